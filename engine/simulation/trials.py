"""One strategy with one seed: a whole campaign, one round after another, and what is measured of it.

All that was done is in files. A trial that was killed goes on where it was; one that is done costs a look.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.campaign.folder import is_complete
from engine.campaign.freshness import fingerprint, source_fingerprint
from engine.campaign.manifests import SelectionManifest, TrainManifest, read_committed, read_manifest
from engine.config.options import CampaignConfig
from engine.config.section import result_values
from engine.selection.select import select
from engine.simulation.experiment import Experiment
from engine.simulation.learners import predict
from engine.simulation.scratch import Scratch, at_round
from engine.simulation.setups import Setup
from engine.simulation.worlds import World
from engine.storage.documents import read_document
from engine.storage.location import Location
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS, WITHOUT_SIGNAL

CODE = ("engine.simulation.trials", "engine.selection.select")
"""Modules that decide, with all that they import, what a trial gives."""
Point = dict[str, Any]
"""What was measured at one number of labels: `num_labels`, by task accuracies, and figures of the batch before it."""


class Trial(NamedTuple):
    """A strategy with a seed. `folder` is named after a fingerprint of all that decides its rounds; `first_folder`
    after one of what decides the point before the first of them, which trials of a seed share."""

    strategy: str
    seed: int
    config: CampaignConfig
    folder: str
    first_folder: str


def trials_of(experiment: Experiment, world: World, home: Location) -> list[Trial]:
    """All trials of an experiment, seed by seed. Strategies with the same options share theirs."""
    made = experiment.model_dump(exclude={"rounds", "seeds", "tasks", "strategies", "campaign"})
    # The number of rounds decides nothing but whether there are enough items: a simulation may be made longer.
    code = source_fingerprint(CODE, [])
    first = fingerprint(experiment=made, files=world.files, code=code)[:16]
    code_of = {s.name: source_fingerprint(CODE, _rows(experiment.config_of(s, 0))) for s in experiment.strategies}
    found = []
    for seed in range(experiment.seeds):
        for strategy in experiment.strategies:
            config = experiment.config_of(strategy, seed)
            key = fingerprint(first=first, options=_options(config), code=code_of[strategy.name])[:16]
            names = f"{home}/runs/{key}/{seed:04d}", f"{home}/first/{first}/{seed:04d}"
            found.append(Trial(strategy.name, seed, config, *names))
    return found


def _options(config: CampaignConfig) -> dict[str, Any]:
    sections = {name: getattr(config, name) for name in ("image", "labels", "train", "score", "select")}
    values = {name: result_values(section) for name, section in sections.items()}
    values["train"].pop("seed"), values["select"].pop("seed")
    return values


def _rows(config: CampaignConfig) -> list[Any]:
    """The rows of the tables that a configuration uses: the code that they name counts too."""
    rows = [config.method, DIVERSIFIERS[config.select.diversity]]
    rows += [ACQUISITIONS[name] for name in config.acquisitions(has_task=config.has_task)]
    rows += [WITHOUT_SIGNAL[name] for name in (config.select.when_no_signal,) if name in WITHOUT_SIGNAL]
    return rows


def play(
    trial: Trial, experiment: Experiment, setup: Setup, classes: list[str], on_round: Callable[[], None]
) -> list[Point]:
    """The points of a trial: before its first batch and after each. `on_round` is called after each that was made."""
    folder = Location.of(trial.folder)
    scratch = Scratch(folder / "campaign", setup, classes, trial.config)
    points = []
    for number in range(experiment.rounds + 1):
        file = (Location.of(trial.first_folder) if number == 0 else folder) / f"point-{number:03d}.json"
        point = read_document(file, dict[str, Any]) if file.exists() else {}
        missing = [task for task in experiment.tasks if task not in point.get("tasks", {})]
        if missing:
            scratch.create()
            if number and scratch.campaign.round < number:
                _buy(scratch)
            point = {"tasks": {}, **(point or _figures(scratch, number))}
            point["tasks"] |= _accuracies(scratch, number, missing, trial.seed)
            file.write_json(point)
            on_round()
        points.append(point)
    return points


def _buy(scratch: Scratch) -> None:
    """One round: train, score, select, and the oracle's labels of what was picked."""
    campaign = scratch.campaign
    begin = time.perf_counter()
    if not is_complete(campaign.stage("scores")):
        scratch.train_and_score(campaign)
    trained = time.perf_counter()
    select(campaign)
    seconds = {"train_and_score": trained - begin, "select": time.perf_counter() - trained}
    (campaign.round_home / "seconds.json").write_json(seconds)
    picks = read_committed(campaign.stage("selection"), "selection.parquet")
    scratch.answer(campaign, picks)
    # Scores take most of a campaign's space, and its next rounds do not read them.
    campaign.stage("scores").clear()


def _figures(scratch: Scratch, number: int) -> Point:
    """The number of labels, and what is known of the batch before this point."""
    setup, num_classes = scratch.setup, len(scratch.classes)
    place_L, _ = scratch.labelled(before=number)
    shares = [np.bincount(setup.pool.label_N[place], minlength=num_classes) for place in (place_L, slice(None))]
    labels_C, pool_C = (count_C / count_C.sum() for count_C in shares)
    point: Point = {"num_labels": len(place_L), "distance": float(np.abs(labels_C - pool_C).sum() / 2)}
    if not number:
        return point
    campaign = at_round(scratch.campaign, number - 1)
    selection, trained = (
        read_manifest(campaign, "selection", SelectionManifest),
        read_manifest(campaign, "train", TrainManifest),
    )
    before = scratch.labelled(before=number - 1)[0]
    bought = np.setdiff1d(place_L, before)
    if setup.missing:
        point["share_missing"] = float(np.isin(setup.pool.label_N[bought], list(setup.missing)).mean())
    seconds = read_document(campaign.round_home / "seconds.json", dict[str, float])
    point |= {"auc": trained["diagnosis"]["auc"], "speaks": float(selection["signal"] == "present")}
    if (lacking := selection.get("gate", {}).get("lacking")) is not None:
        point["lacking"] = lacking
    return point | {f"seconds_{name}": value for name, value in seconds.items()}


def _accuracies(scratch: Scratch, number: int, tasks: Sequence[str], seed: int) -> dict[str, Any]:
    """By task: the accuracy, that of each class, and the seconds."""
    setup, num_classes = scratch.setup, len(scratch.classes)
    place_L, label_L = scratch.labelled(before=number)
    true_M, found = setup.test.label_N, {}
    for task in tasks:
        begin = time.perf_counter()
        predicted_M = predict(task, setup.pool.vector_ND[place_L], label_L, setup.test.vector_ND, num_classes, seed)
        is_right_M = predicted_M == true_M
        by_class = {
            name: float(is_right_M[true_M == c].mean()) for c, name in enumerate(scratch.classes) if (true_M == c).any()
        }
        found[task] = {
            "accuracy": float(is_right_M.mean()),
            "classes": by_class,
            "missing": [by_class[scratch.classes[c]] for c in sorted(setup.missing) if scratch.classes[c] in by_class],
            "seconds": time.perf_counter() - begin,
        }
    return found
