"""Whole campaigns against an oracle, strategies and seeds side by side: `vaal simulate`.

A trial leaves its points on disk. On embeddings every trial runs in a process of its own with one thread; on pixels
they run one after another, in one session of Ray, or side by side, each with a Ray and cores of its own; on a cluster
all are tasks of Ray. Curves, comparisons and the page are made from them at the end.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa

from engine.campaign.heartbeat import alone
from engine.campaign.stages import QUIET, Run
from engine.cluster.ray_session import LOCAL, ray_session, usable_cpus
from engine.errors import ConfigError, VaalError, asked_by
from engine.simulation.devices import require_device
from engine.simulation.experiment import Experiment, advised_here, read_experiment
from engine.simulation.findings import Findings, findings_of
from engine.simulation.learning_page import render
from engine.simulation.measuring import ACCURACY, MIOU
from engine.simulation.setups import setup_of
from engine.simulation.spreading import spread, turns_of
from engine.simulation.trial_campaign import KINDS, ground_of
from engine.simulation.trials import Point, Trial, done, play, trials_of
from engine.simulation.variants import Variant, variant_of
from engine.simulation.worlds import World, load
from engine.storage.location import Location
from engine.storage.placing import require_folder
from engine.tables.columns import required

CURVES_SCHEMA = pa.schema(
    [
        *required(pa.string(), "strategy"),
        *required(pa.int32(), "seed", "round", "num_labels"),
        pa.field("task", pa.string()),
        *required(pa.string(), "metric"),
        *required(pa.float64(), "value"),
    ]
)
"""A row a measurement. `round` counts the batches that were bought, and `num_labels` the labels then. Of a `task`:
accuracy, accuracy_missing (the mean over the classes without a first label), accuracy/CLASS, seconds; of masks miou and
miou/CLASS, the IoU of a class. Without one: answers (of annotators, bought so far, where there are some). Of the batch
before: share_missing (of picks, true classes), distance (total variation between the classes of labels and
pool, true classes), auc, speaks (the gate: 1 or 0), lacking (the share of the pool that lacks labels, where the gate
asks that), seconds_train_and_score, seconds_score (of the former, on pixels), seconds_select."""

CURVES_FILE = "curves.parquet"


class Simulated(NamedTuple):
    """A simulation's files and its findings."""

    curves: Location
    report: Location
    findings: Findings


def simulate(
    file: str, folder: str, run: Run = QUIET, workers: int = 0, settings: dict[str, Any] | None = None
) -> Simulated:
    """Run an experiment, as far as it was not yet, and report it.

    Args:
        workers: trials side by side. 0: one a core on embeddings, one on pixels, and on a cluster one a GPU, or a core
            without.
        settings: as of `read_experiment`.

    Raises:
        ConfigError: the experiment is wrong, or a campaign's option, or the folder is a file, or this machine has no
            GPU and it wants one.
        InputError: a file of it is missing or wrong.
        BusyError: another simulation is at work in the folder.
    """
    experiment, home = read_experiment(file, settings), Location.of(folder)
    require_folder(home, "--out")
    with asked_by(file):
        if run.address == LOCAL:
            require_device(experiment.device)
        world = load(experiment)
        # What it asks for and is not there is said before anything starts.
        setup_of(world, experiment, 0)
    trials = trials_of(experiment, world, home)
    variant = Variant(Location.of(file).name, settings or {})
    with alone(home, "simulate"):
        _note_other(home, variant, run)
        try:
            points = _play_all(trials, experiment, world, run, workers)
        except ConfigError as error:
            raise ConfigError(f"{file}: {advised_here(str(error))}") from error
        curves = _curves(trials, points, experiment.first_point, experiment.tasks)
        findings = findings_of(experiment, variant.name, curves)
        (home / CURVES_FILE).write_table(curves.replace_schema_metadata(variant.metadata))
        (home / "report.html").write_bytes(render(findings).encode())
    return Simulated(home / CURVES_FILE, home / "report.html", findings)


def _note_other(home: Location, variant: Variant, run: Run) -> None:
    """Log that the curves and the report of another experiment are replaced. Its campaigns stay."""
    file = home / CURVES_FILE
    before = variant_of(file.read_table()) if file.exists() else None
    if before not in (None, variant):
        text = f"{home} has curves.parquet and report.html of {before.name}"
        run.log(f"{text}: they are replaced; another --out keeps both")


def _play_all(
    trials: list[Trial], experiment: Experiment, world: World, run: Run, workers: int
) -> dict[str, list[Point]]:
    """The points of every trial by its folder."""
    found = {trial.folder: points for trial in trials if (points := done(trial, experiment))}
    left = list({trial.folder: trial for trial in trials if trial.folder not in found}.values())
    if not left:
        return found
    if run.address != LOCAL:
        return found | spread(left, experiment, world, run, workers)
    needs_ray = any(KINDS[trial.kind].needs_ray for trial in left)
    if needs_ray and workers < 2:
        return found | _one_by_one(left, experiment, world, run)
    at_once = min(workers or usable_cpus(), len(left))
    with _pool(at_once, experiment, world, shares_machine=needs_ray) as pool:
        return found | _side_by_side(left, pool, run)


def _one_by_one(trials: list[Trial], experiment: Experiment, world: World, run: Run) -> dict[str, list[Point]]:
    """As `_play_all`, in this process: training uses all cores itself."""
    found: dict[str, list[Point]] = {}
    total, made = len(trials) * (experiment.rounds + 1 - experiment.first_point), 0
    with ray_session(run.address):
        for trial in trials:
            ground = ground_of(world, experiment, trial.seed, trial.first_folder)

            def on_round(trial: Trial = trial) -> None:
                nonlocal made
                made += 1
                run.on_progress(made / total, f"{trial.strategy}, seed {trial.seed}")

            found[trial.folder] = play(trial, experiment, ground, on_round)
            made = len(found) * (experiment.rounds + 1 - experiment.first_point)
    return found


def _side_by_side(trials: list[Trial], pool: ProcessPoolExecutor, run: Run) -> dict[str, list[Point]]:
    """As `_play_all`, in the processes of a pool."""
    found: dict[str, list[Point]] = {}
    for batch in turns_of(trials):
        try:
            left = {pool.submit(_play, trial): trial for trial in batch}
            while left:
                ready, _ = wait(left, return_when=FIRST_COMPLETED)
                for future in ready:
                    trial = left.pop(future)
                    found[trial.folder] = future.result()
                    run.on_progress(len(found) / len(trials), f"{trial.strategy}, seed {trial.seed}")
        except BrokenProcessPool as error:
            raise VaalError("a process of the simulation was killed; run the same command again") from error
        except BaseException:
            # Nobody wants what is at work. It is made again.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return found


@contextmanager
def _pool(workers: int, experiment: Experiment, world: World, *, shares_machine: bool) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each; those that share the machine are bound, with all that they start, to their own
    cores and GPU."""
    context = multiprocessing.get_context("spawn")
    shares = context.SimpleQueue()
    for share in _shares(workers) if shares_machine else [_Share(set(), "")] * workers:
        shares.put(share)
    with TemporaryDirectory() as folder:
        # Python writes arguments into a pipe, and waits for ever if the process dies before it has read them.
        file = Path(folder) / "world"
        with file.open("wb") as stream:
            pickle.dump((experiment, world), stream)
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(file, shares)) as pool:
            yield pool


class _Share(NamedTuple):
    """The cores of a process and its GPU, as CUDA_VISIBLE_DEVICES names it; empty: as this process has them."""

    cores: set[int]
    gpu: str


def _shares(workers: int) -> list[_Share]:
    """What each of `workers` processes has of this machine. Some systems bind no process to cores."""
    import torch

    # A container may have a quota of fewer CPUs than it sees.
    cores = sorted(os.sched_getaffinity(0))[: usable_cpus()] if hasattr(os, "sched_setaffinity") else []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = (named if named[0] else [str(number) for number in range(count)])[:count]
    return [
        _Share(
            set(cores[number::workers] or [cores[number % len(cores)]]) if cores else set(),
            gpus[number % len(gpus)] if gpus else "",
        )
        for number in range(workers)
    ]


_here: list[tuple[Experiment, World]] = []
"""What a process of the simulation works on."""


def _begin(file: Path, shares: SimpleQueue[_Share]) -> None:
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Ctrl-C reaches every process; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cores, gpu = shares.get()
    if cores:
        os.sched_setaffinity(0, cores)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(max(1, len(cores)))
    threadpool_limits(max(1, len(cores)))
    # A point that a power cut loses can be made again; waiting for the disk would take a third of the time.
    os.fsync = lambda fd: None  # noqa: ARG005 - called by that name
    with file.open("rb") as stream:
        _here.append(pickle.load(stream))


def _end_with_parent() -> None:
    """So that what is left of a killed simulation does not write beside the next one."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _play(trial: Trial) -> list[Point]:
    experiment, world = _here[0]
    with ray_session(LOCAL) if KINDS[trial.kind].needs_ray else nullcontext():
        return play(trial, experiment, ground_of(world, experiment, trial.seed, trial.first_folder), lambda: None)


def _curves(trials: list[Trial], points: dict[str, list[Point]], first: int, tasks: list[str]) -> pa.Table:
    rows = [
        (trial.strategy, trial.seed, number, point["num_labels"], *row)
        for trial in trials
        for number, point in enumerate(points[trial.folder], first)
        for row in _measurements(point, tasks)
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns, schema=CURVES_SCHEMA)


def _measurements(point: Point, tasks: list[str]) -> Iterator[tuple[str | None, str, float]]:
    """Task, metric and value; of tasks that an earlier run measured too, nothing."""
    for task in tasks:
        found = point["tasks"][task]
        metric = MIOU if MIOU in found else ACCURACY
        yield task, metric, found[metric]
        yield task, "seconds", found["seconds"]
        if found["missing"]:
            yield task, "accuracy_missing", sum(found["missing"]) / len(found["missing"])
        for name, value in found["classes"].items():
            yield task, f"{metric}/{name}", value
    for name, value in point.items():
        if name not in ("tasks", "num_labels"):
            yield None, name, float(value)
