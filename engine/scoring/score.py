"""Scoring: the pool streams through encoder and discriminator. The only module with Ray Data.

Tasks read and decode shards on any node; an actor pool runs the networks; the driver commits a Parquet file a shard.
What travels between them is a chunk: consecutive items of one shard in one row, so that Ray never splits or merges
it, and a chunk that is computed twice is still one chunk. What is committed is never computed again.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, cast

import pyarrow as pa
import ray
import ray.data

from engine.campaign.folder import (
    Campaign,
    Report,
    fingerprint,
    is_complete,
    read_manifest,
    read_trained,
    source_fingerprint,
    write_manifest,
)
from engine.campaign.heartbeat import Heartbeat, Progress, Tally, require_alone
from engine.cluster.ray_session import choose_device, count_devices, ray_session
from engine.config.options import CampaignConfig, result_values
from engine.pool.manifest import Shard, write_shards
from engine.scoring.chunks import Reading, read_chunks
from engine.scoring.drafts import Committed, Draft, count_errors, from_entry
from engine.scoring.quarantine import require_acceptable
from engine.scoring.resume import Ledger, Plan, make_plan, refresh
from engine.scoring.watchdog import Attempts, Past
from engine.storage.location import Location

CODE = (
    "engine.pool.tar", "engine.pool.items", "engine.pool.images", "engine.scoring.chunks", "engine.pool.identity",
    "engine.models.weights", "engine.scoring.scorer",
    "vaal.networks", "vaal.paper", "vaal.ablations", "vaal.acquisition.discriminator", "vaal.acquisition.wasserstein",
    "vaal.duplicates.perceptual_hash",
)  # fmt: skip
"""What decides a score besides the weights: scores by other code are not mixed with these."""
BLOCK_BYTES = 1 << 20
"""Results travel in blocks of this size, and a chunk of pixels, which is larger, alone: neither waits for others."""
TASK_BYTES = 32 << 20
TASKS_PER_ACTOR = 8
MOST_TASKS = 10_000
"""A task reads several small shards, for between two tasks an actor waits; but each actor gets some, for the sake of
the end, and Ray Data's driver, which keeps something of every task, not too many."""
COMMIT_THREADS = 8
"""An object store takes its time over a file, not the driver's."""
MOST_WRITING = 4 * COMMIT_THREADS
"""Shards that wait to be written; with more, no more chunks are taken."""


def score(campaign: Campaign, address: str, on_progress: Callable[[Progress], None], report: Report) -> dict[str, Any]:
    """Score every shard that is not committed yet and complete the scores stage. Returns its manifest.

    A stage that is complete is opened again when a shard or the weights changed since and nothing was selected yet.

    Raises:
        InputError: training is not complete, or storage cannot be read.
        NotAcceptableError: too many items are quarantined; all shards are committed, the stage is not complete.
        VaalError: another run is scoring this campaign.
    """
    folder = campaign.stage("scores")
    inputs = _inputs(campaign)
    if is_complete(folder):
        manifest = read_manifest(folder, "score")
        if is_complete(campaign.stage("selection")) or not _is_outdated(campaign, manifest, inputs, report):
            return manifest
    heartbeat = campaign.stage("ledger") / "progress.json"
    require_alone(heartbeat)
    plan = make_plan(campaign, inputs, report)
    device = ""
    tally = Tally(sum(shard.size_bytes for shard in plan.todo), len(plan.shards), plan.committed)
    if plan.todo:
        with Heartbeat(heartbeat, tally), ray_session(address):
            device, num_actors = _actors(campaign.config, address)
            ledger = Ledger(campaign.stage("ledger"))
            # Closed before Ray is: after an interrupt, what is left of Ray Data's threads would complain of a lost Ray.
            with closing(ledger), closing(_stream(campaign, plan.todo, inputs, (device, num_actors))) as stream:
                for shard, committed in _commit(campaign, plan, _told(stream, tally, on_progress, report)):
                    plan.committed[shard] = committed
                    ledger.add(shard, committed)
                    tally.add_shard(committed)
                    on_progress(tally.progress())
    require_acceptable(campaign, plan.committed, report)
    return _complete(campaign, plan, inputs, device)


def _inputs(campaign: Campaign) -> dict[str, str]:
    """What scores follow from, by name: SHA-256 of the networks, whose files are checked, the settings and the code."""
    folder = campaign.stage("train")
    weights = {name: sha for name, sha in read_manifest(folder, "train")["files"].items() if _is_scored_with(name)}
    for name, sha in weights.items():
        read_trained(folder, name, sha)
    return {
        **weights,
        "settings": fingerprint(image=result_values(campaign.config.image), score=result_values(campaign.config.score)),
        "code": source_fingerprint(*CODE),
    }


def _is_scored_with(file: str) -> bool:
    return file.endswith(".safetensors") and not file.startswith("task")


def _is_outdated(campaign: Campaign, manifest: dict[str, Any], inputs: dict[str, str], report: Report) -> bool:
    """Whether the complete stage is of other networks, or shards changed since. Then it is opened again."""
    has_new_weights = any(manifest["inputs"].get(name) != inputs[name] for name in inputs if _is_scored_with(name))
    if has_new_weights:
        report("the networks were trained again since the pool was scored; it is scored anew")
    _, num_changed = refresh(campaign, report)
    if not num_changed and not has_new_weights:
        return False
    # In this order: while the manifest is there the stage is complete, and the ledger spares counting every file.
    with closing(Ledger(campaign.stage("ledger"))) as ledger:
        for entry in manifest["shards"]:
            ledger.add(*from_entry(entry))
    (campaign.stage("scores") / "manifest.json").delete()
    return True


def _complete(campaign: Campaign, plan: Plan, inputs: dict[str, str], device: str) -> dict[str, Any]:
    if is_complete(campaign.stage("scores")):
        # Another run, begun in the same instant, was faster; its files are the same.
        return read_manifest(campaign.stage("scores"), "score")
    ledgers = plan.committed
    listed = sum(ledger.listed for ledger in ledgers.values())
    quarantined = sum(ledger.quarantined for ledger in ledgers.values())
    counted = [s._replace(num_items=None if ledgers[s.shard].failure else ledgers[s.shard].listed) for s in plan.shards]
    write_shards(campaign.home, counted)
    manifest = write_manifest(
        campaign.stage("scores"),
        campaign,
        inputs=inputs,
        counts={
            "shards": len(plan.shards), "listed": listed, "scored": listed - quarantined, "quarantined": quarantined,
        },
        files={},
        details={
            "device": device, "errors": dict(sorted(count_errors(ledgers.values()).items())),
            "shards": [ledgers[shard.shard].entry(shard.shard) for shard in plan.shards],
        },
    )  # fmt: skip
    for name in campaign.stage("ledger").children():
        # The manifest has it all now.
        (campaign.stage("ledger") / name).delete()
    return manifest


def _actors(config: CampaignConfig, address: str) -> tuple[str, int]:
    """On what device the networks run, and in how many actors."""
    workers, share = config.score.workers, config.score.gpus_per_worker
    device = choose_device(config.device, 1 if workers == "auto" else math.ceil(workers * share), address)
    if workers != "auto":
        return device, workers
    return device, int(count_devices(device) / (share if device == "cuda" else 1))


def _stream(
    campaign: Campaign, todo: list[Shard], inputs: dict[str, str], actors: tuple[str, int]
) -> Generator[pa.Table]:
    """Scored chunks in any order, a row each. `actors` is their device and number."""
    device, num_actors = actors
    # Whatever stops it is raised here; what its threads log besides is about their own end, as after an interrupt.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    # A shard of many gigabytes may take longer than the 30 minutes after which Ray Data gives up by default.
    context.execution_no_progress_timeout_s = -1
    config = campaign.config
    rows = [{"shard": shard._asdict()} for shard in todo]
    reading = Reading(config.image, config.train.folds, config.score.attempts, config.score.stall_seconds)
    memory = _Memory(_AttemptsActor.remote())
    chunks = ray.data.from_items(rows, override_num_blocks=_num_tasks(todo, num_actors)).map_batches(
        cast("Any", _read), fn_args=(reading, memory), batch_size=1, batch_format="pyarrow"
    )
    # On CPUs both stages ask for the same resources, so that Ray Data fuses them: a chunk then stays in one process.
    scored = chunks.map_batches(
        _Scorer,
        fn_constructor_args=(campaign.stage("train"), config, inputs, device),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(todo)), **({} if device == "cpu" else _OVERLAPPED)),
        num_gpus=None if device == "cpu" else config.score.gpus_per_worker,
        num_cpus=1,
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")


def _num_tasks(todo: list[Shard], num_actors: int) -> int:
    by_bytes = sum(shard.size_bytes for shard in todo) // TASK_BYTES
    return min(len(todo), max(by_bytes, TASKS_PER_ACTOR * num_actors), MOST_TASKS)


_OVERLAPPED: dict[str, Any] = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True}
"""While a GPU works on one chunk, the next is unpacked and copied to it."""
_AttemptsActor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts)


class _Memory:
    """The one `Attempts` of a run, for the processes that read."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, shard: str) -> Past:
        return cast("Past", ray.get(self._actor.begin.remote(shard)))

    def stalled(self, shard: str, key: str) -> None:
        # Waited for: this process is about to be ended.
        ray.get(self._actor.stalled.remote(shard, key))

    def done(self, shard: str) -> None:
        self._actor.done.remote(shard)


def _read(batch: pa.Table, reading: Reading, memory: _Memory) -> Iterator[pa.Table]:
    yield from read_chunks(Shard(**batch["shard"][0].as_py()), reading, memory)


class _Scorer:
    """An actor that holds the networks. It knows no torch until it is made, so that the driver never loads it."""

    def __init__(self, folder: Location, config: CampaignConfig, weights: dict[str, str], device: str) -> None:
        from engine.scoring.scorer import Scorer

        # Read here and not sent along: an actor that Ray restarts must find its weights again.
        self._scorer = Scorer(folder, config, weights, device)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        return self._scorer.score_chunk(chunk)


def _told(
    stream: Iterator[pa.Table], tally: Tally, on_progress: Callable[[Progress], None], report: Report
) -> Iterator[dict[str, Any]]:
    """The rows of the stream, counted."""
    for row in (row for table in stream for row in table.to_pylist()):
        yield row
        tally.add_chunk(row["read_bytes"], row["num_items"])
        on_progress(tally.progress())
        for note in row["notes"]:
            report(note)


def _commit(campaign: Campaign, plan: Plan, rows: Iterator[dict[str, Any]]) -> Iterator[tuple[str, Committed]]:
    """Commit each shard as its last chunk arrives. Yields its ledger."""
    left = {shard.shard for shard in plan.todo}
    drafts: dict[str, Draft] = {}
    writing: deque[tuple[str, Future[Committed]]] = deque()
    with ThreadPoolExecutor(COMMIT_THREADS) as threads:
        for row in rows:
            shard = row["shard"]
            # Ray computes a chunk again when a node is lost; the first answer is as good.
            if shard in left and drafts.setdefault(shard, Draft(shard)).add(row) and drafts[shard].is_whole:
                left.remove(shard)
                writing.append((shard, threads.submit(drafts.pop(shard).commit, campaign, plan.files[shard])))
            while writing and (writing[0][1].done() or len(writing) > MOST_WRITING):
                shard, future = writing.popleft()
                yield shard, future.result()
        for shard, future in writing:
            yield shard, future.result()
    if left:
        raise RuntimeError(f"Ray Data ended without all chunks of {sorted(left)[:3]}")
