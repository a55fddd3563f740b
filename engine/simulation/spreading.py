"""Trials as tasks of a Ray cluster: many side by side, each a whole campaign whose stages run on the same cluster."""

from collections.abc import Iterator
from typing import Any

import ray

from engine.campaign.stages import Run
from engine.cluster.ray_session import count_devices, ray_session
from engine.cluster.waiting import Need, wait_for
from engine.simulation.experiment import Experiment
from engine.simulation.source_files import expand
from engine.simulation.trial_campaign import KINDS, ground_of
from engine.simulation.trials import Point, Trial, play
from engine.simulation.worlds import World


def spread(trials: list[Trial], experiment: Experiment, world: World, run: Run, most: int) -> dict[str, list[Point]]:
    """The points of every trial by its folder, which all machines reach. `most` trials at a time; 0: one a GPU, or a
    core without."""
    found: dict[str, list[Point]] = {}
    with ray_session(run.address):
        if experiment.device == "cuda":
            # A trial waits for its task models without a word.
            seconds = float(experiment.campaign.get("train.wait_seconds", 0.0))
            wait_for(Need("campaign.train", 1, 1.0, seconds), run.address, run.log, run.measure)
        # Other machines have other environments.
        pool = experiment.pool.model_copy(update={"shards": expand(experiment.pool.shards, "pool.shards")})
        there = ray.put((experiment.model_copy(update={"pool": pool}), world))
        at_once = most or count_devices("cuda" if experiment.device == "cuda" else "cpu")
        for batch in turns_of(trials):
            left, working = list(batch), dict[Any, Trial]()
            while left or working:
                while left and len(working) < at_once:
                    trial = left.pop(0)
                    # What a campaign on pixels trains and scores in has the cores.
                    task = _play.options(num_cpus=0 if KINDS[trial.kind].needs_ray else 1)
                    working[task.remote(there, trial)] = trial
                (ready, *_), _ = ray.wait(list(working))
                trial = working.pop(ready)
                found[trial.folder] = ray.get(ready)
                run.on_progress(len(found) / len(trials), f"{trial.strategy}, seed {trial.seed}")
    return found


@ray.remote
def _play(shared: tuple[Experiment, World], trial: Trial) -> list[Point]:
    experiment, world = shared
    return play(trial, experiment, ground_of(world, experiment, trial.seed, trial.first_folder), lambda: None)


def turns_of(trials: list[Trial]) -> Iterator[list[Trial]]:
    """Trials that may work side by side: what later ones of a seed share is made by one of a turn before theirs."""
    left = trials
    for shared in ("first_folder", "opening_folder"):
        leaders = list({getattr(trial, shared): trial for trial in reversed(left)}.values())[::-1]
        yield leaders
        left = [trial for trial in left if trial not in leaders]
    yield left
