"""The pool through the networks: the only module with Ray Data.

Tasks read and decode shards on any node; an actor pool runs the networks. Chunks travel between them: consecutive items
of one shard in one row, so that Ray never splits or merges them, and a chunk that is computed twice is one chunk.
"""

import logging
import math
from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, cast

import pyarrow as pa
import ray
import ray.data

from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest
from engine.campaign.stages import Run
from engine.cluster.allocation import keep_freed_memory
from engine.cluster.ray_session import choose_device, count_devices, require_cpus
from engine.cluster.waiting import Need, wait_for
from engine.config.options import CampaignConfig
from engine.pool.identity import Groups
from engine.pool.metadata import read_groups
from engine.pool.shard import Place, Shard
from engine.pool.shards import Shards
from engine.pool.sight import sight_of
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.watchdog import Attempts, ShardHistory
from engine.storage.location import Location

BLOCK_BYTES = 1 << 20
"""Results travel in blocks of this size. A chunk of pixels is larger and travels alone. Neither waits for others."""
TASK_BYTES = 32 << 20
TASKS_PER_ACTOR = 8
MOST_TASKS = 10_000
"""A task reads several small shards, because an actor waits between two tasks. Each actor gets several tasks, so that
all of them end at about the same time. Ray Data's driver keeps data about every task, so their number is limited."""


class Actors(NamedTuple):
    """The device on which the networks run, the number of actors, and what they cannot do without."""

    device: str
    num: int
    need: Need


def choose_actors(config: CampaignConfig, run: Run) -> Actors:
    """The actors of a run. Waits until one of them has its machine: see `engine.cluster.waiting.wait_for`."""
    workers, share = config.score.workers, config.score.gpus_per_worker
    device = choose_device(config.device, 1 if workers == "auto" else math.ceil(workers * share), run.address)
    need = Need("score", 1, share if device == "cuda" else 0.0, config.score.wait_seconds)
    wait_for(need, run.address, run.log, run.measure)
    if workers != "auto":
        require_cpus("score.workers", workers, run.address)
        return Actors(device, workers, need)
    return Actors(device, int(count_devices(device) / (share if device == "cuda" else 1)), need)


def scored_chunks(
    campaign: Campaign,
    todo: Shards,
    inputs: dict[str, str],
    actors: Actors,
    trained: TrainManifest,
    places: dict[str, list[Place]] | None = None,
) -> Generator[pa.Table]:
    """Scored chunks in any order, one row each.

    Args:
        trained: the manifest of the networks.
        places: by shard, where only candidates are scored, for the second time: see `engine.scoring.again`.
    """
    device, num_actors, _ = actors
    # Errors are raised here. What Ray Data's threads also log, as after an interrupt, is about their own end.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    # By default Ray Data gives up after 30 minutes. A shard of many gigabytes may take longer.
    context.execution_no_progress_timeout_s = -1
    config = campaign.config
    rows, reading = read_rows(campaign, todo, trained)
    if places:
        of_each = [[place._asdict() for place in places[name]] for name in todo.names.to_pylist()]
        rows = rows.append_column("places", pa.array(of_each))
    actor = _AttemptsActor.remote()
    attempts = _RemoteAttempts(actor)
    by_bytes = todo.num_bytes // TASK_BYTES
    num_tasks = min(len(todo), max(by_bytes, TASKS_PER_ACTOR * num_actors), MOST_TASKS)
    # Not as a row of Python a shard, of which a million take a gigabyte.
    cuts = [len(rows) * task // num_tasks for task in range(num_tasks + 1)]
    blocks = [rows.slice(begin, end - begin) for begin, end in pairwise(cuts)]
    chunks = ray.data.from_arrow(blocks).map_batches(
        cast("Any", _read), fn_args=(reading, attempts), batch_size=1, batch_format="pyarrow"
    )
    # On CPUs both stages ask for the same resources, so that Ray Data fuses them and a chunk stays in one process.
    scored = chunks.map_batches(
        _Scorer,
        fn_constructor_args=(campaign.stage("train"), config, inputs, device, places is not None),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(todo)), **({} if device == "cpu" else _OVERLAPPED)),
        num_gpus=None if device == "cpu" else config.score.gpus_per_worker,
        num_cpus=1,
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")
    # Ray Data keeps what it was given, so that it would live on with its 150 MB as long as the driver.
    ray.kill(actor)


def read_rows(campaign: Campaign, todo: Shards, trained: TrainManifest) -> tuple[pa.Table, Reading]:
    """The rows that tasks read shards by, columns shard and group, and how they read."""
    config, groups = campaign.config, read_groups(campaign.home, campaign.config.pool.group)
    # A row has the group of its own shard, not those of a million.
    named = groups.by_shard or {}
    of_each = [named.get(name, "") for name in todo.names.to_pylist()] if named else [""] * len(todo)
    columns = todo.table.combine_chunks().to_struct_array(), pa.array(of_each, pa.string())
    rows = pa.table(dict(zip(("shard", "group"), columns, strict=True)))
    score, rule = config.score, Groups(groups.pattern)
    sight = sight_of(config, todo, trained.get("embedding", {}).get("length", 0))
    # An item is scored by the discriminator that did not train on it, by the folds of that training.
    fold_round = trained.get("fold_round", 0)
    gone = frozenset(forgotten(campaign.home))
    return rows, Reading(sight, config.train.folds, score.attempts, score.stall_seconds, fold_round, rule, gone)


_OVERLAPPED: dict[str, Any] = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True}
"""While a GPU works on one chunk, the next is unpacked and copied to it."""
_AttemptsActor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts)


class _RemoteAttempts(Attempts):
    """The one `Attempts` of a run, which all processes that read share."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, shard: str) -> ShardHistory:
        return cast("ShardHistory", ray.get(self._actor.begin.remote(shard)))

    def stalled(self, shard: str, key: str) -> None:
        # Wait for it, because this process is about to be ended.
        ray.get(self._actor.stalled.remote(shard, key))

    def done(self, shard: str) -> None:
        self._actor.done.remote(shard)


def _read(batch: pa.Table, reading: Reading, attempts: Attempts) -> Iterator[pa.Table]:
    shard, group = Shard(**batch["shard"][0].as_py()), batch["group"][0].as_py()
    groups = reading.groups._replace(by_shard={shard.shard: group})
    places = [Place(**place) for place in batch["places"][0].as_py()] if "places" in batch.column_names else None
    yield from read_chunks(shard, reading._replace(groups=groups), attempts, places)


class _Scorer:
    """An actor that holds the networks. It imports torch when it is made, so that the driver never loads torch."""

    def __init__(
        self, folder: Location, config: CampaignConfig, weights: dict[str, str], device: str, is_again: bool
    ) -> None:
        from engine.scoring.scorer import load_scorer

        keep_freed_memory()
        # The weights are read here and not sent: an actor that Ray restarts must find them again.
        self._scorer = load_scorer(folder, config, weights, device, is_again=is_again)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        return self._scorer.score_chunk(chunk)
