"""Scoring: the pool streams through the networks, and the driver commits a Parquet file a shard.

What is committed is never computed again.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint, source_fingerprint
from engine.campaign.heartbeat import beating, require_alone
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest, write_manifest
from engine.campaign.stages import QUIET, Log, Run
from engine.cluster.ray_session import ray_session
from engine.config.options import CampaignConfig, result_values
from engine.pool.manifest import write_shards
from engine.scoring.drafts import Draft
from engine.scoring.quarantine import require_acceptable
from engine.scoring.resume import Ledger, Plan, make_plan, refresh
from engine.scoring.stream import choose_actors, scored_chunks
from engine.scoring.tally import Tally
from engine.tables.scores import ShardRecord, count_errors, records_of
from vaal.acquisition import ACQUISITIONS
from vaal.methods import METHODS, TASK_FILE

PASSED_THROUGH = ("engine.pool.items", "engine.scoring.chunks", "engine.scoring.scorer")
"""What an item passes on its way from bytes to scores: with all that these import, and with the rows of the tables that
are asked for, it decides a score besides the weights. Scores by other code are not mixed with these."""
COMMIT_THREADS = 8
"""An object store takes its time over a file, not the driver's."""
MOST_WRITING = 4 * COMMIT_THREADS
"""Shards that wait to be written; with more, no more chunks are taken."""


def score(campaign: Campaign, run: Run = QUIET) -> ScoresManifest:
    """Score every shard that is not committed yet and complete the scores stage. Returns its manifest.

    A stage that is complete is opened again when a shard or the weights changed since and nothing was selected yet.

    Raises:
        InputError: training is not complete, or storage cannot be read.
        NotAcceptableError: too many items are quarantined; all shards are committed, the stage is not complete.
        VaalError: another run is scoring this campaign.
    """
    inputs = _inputs(campaign)
    if is_complete(campaign.stage("scores")):
        manifest = read_manifest(campaign, "scores", ScoresManifest)
        if campaign.completed("selection") or not _is_outdated(campaign, manifest, inputs, run.log):
            return manifest
    heartbeat = campaign.stage("ledger") / "progress.json"
    require_alone(heartbeat)
    plan = make_plan(campaign, inputs, run.log)
    device = ""
    tally = Tally(sum(shard.size_bytes for shard in plan.todo), len(plan.shards), plan.committed)
    if plan.todo:
        with beating(heartbeat, tally.state), ray_session(run.address):
            device, num_actors = choose_actors(campaign.config, run.address)
            ledger = Ledger(campaign.stage("ledger"))
            # Closed before Ray is: after an interrupt, what is left of Ray Data's threads would complain of a lost Ray.
            with (
                closing(ledger),
                closing(scored_chunks(campaign, plan.todo, inputs, (device, num_actors))) as chunks,
            ):
                for record in _commit(campaign, plan, _counted(chunks, tally, run)):
                    plan.committed[record.shard] = record
                    ledger.add(record)
                    tally.add_shard(record)
                    run.on_progress(*tally.in_words())
    require_acceptable(campaign, plan.committed, run.log)
    return _complete(campaign, plan, inputs, device)


def describe(campaign: Campaign, manifest: ScoresManifest) -> dict[str, Any]:
    """What a person is shown of a complete stage."""
    counts = manifest["counts"]
    facts = {
        "scored": counts["scored"],
        "quarantined": counts["quarantined"],
        "scores": campaign.stage("scores"),
    }
    if counts["quarantined"]:
        facts["of these"] = ", ".join(f"{count:,} x {name}" for name, count in manifest["errors"].items())
        facts["quarantine"] = campaign.stage("quarantine")
    return facts


def _inputs(campaign: Campaign) -> dict[str, str]:
    """What scores follow from, by name: SHA-256 of the networks, whose files are checked, the settings and the code."""
    config, folder = campaign.config, campaign.stage("train")
    trained = read_manifest(campaign, "train", TrainManifest)["files"]
    weights = {name: sha for name, sha in trained.items() if _is_scored_with(name, config)}
    for name, sha in weights.items():
        (folder / name).read_verified(sha, f"delete {folder}/manifest.json and train again")
    return {
        **weights,
        "settings": fingerprint(image=result_values(config.image), score=result_values(config.score)),
        "code": code_fingerprint(config),
    }


def code_fingerprint(config: CampaignConfig) -> str:
    """SHA-256 of the code that makes scores under a configuration."""
    asked_for = [METHODS[config.train.method], *(ACQUISITIONS[name] for name in sorted(config.score.acquisition))]
    return source_fingerprint(PASSED_THROUGH, asked_for)


def _is_scored_with(file: str, config: CampaignConfig) -> bool:
    if file == TASK_FILE:
        return any("task" in ACQUISITIONS[name].needs for name in config.score.acquisition)
    return file.endswith(".safetensors")


def _is_outdated(campaign: Campaign, manifest: ScoresManifest, inputs: dict[str, str], log: Log) -> bool:
    """Whether the complete stage is of other networks, or shards changed since. Then it is opened again."""
    weights = [name for name in inputs if name.endswith(".safetensors")]
    has_new_weights = any(manifest["inputs"].get(name) != inputs[name] for name in weights)
    if has_new_weights:
        log("the networks were trained again since the pool was scored; it is scored again")
    _, num_changed = refresh(campaign, log)
    if not num_changed and not has_new_weights:
        return False
    # In this order: while the manifest is there the stage is complete, and the ledger spares counting every file.
    with closing(Ledger(campaign.stage("ledger"))) as ledger:
        for record in records_of(manifest["shards"]):
            ledger.add(record)
    (campaign.stage("scores") / "manifest.json").delete()
    return True


def _complete(campaign: Campaign, plan: Plan, inputs: dict[str, str], device: str) -> ScoresManifest:
    if is_complete(campaign.stage("scores")):
        # Another run, begun in the same instant, was faster; its files are the same.
        return read_manifest(campaign, "scores", ScoresManifest)
    records = plan.committed
    listed = sum(record.listed for record in records.values())
    quarantined = sum(record.quarantined for record in records.values())
    counted = [s._replace(num_items=None if records[s.shard].failure else records[s.shard].listed) for s in plan.shards]
    write_shards(campaign.home, counted)
    manifest = write_manifest(
        campaign,
        "scores",
        ScoresManifest,
        inputs=inputs,
        counts={
            "shards": len(plan.shards), "listed": listed, "scored": listed - quarantined, "quarantined": quarantined,
        },
        files={},
        device=device,
        errors=dict(sorted(count_errors(records.values()).items())),
        shards=[records[shard.shard].entry() for shard in plan.shards],
    )  # fmt: skip
    for name in campaign.stage("ledger").children():
        # The manifest has it all now.
        (campaign.stage("ledger") / name).delete()
    return manifest


def _counted(chunks: Iterator[pa.Table], tally: Tally, run: Run) -> Iterator[dict[str, Any]]:
    """The rows of the stream, counted."""
    for row in (row for table in chunks for row in table.to_pylist()):
        yield row
        tally.add_chunk(row["read_bytes"], row["num_items"])
        run.on_progress(*tally.in_words())
        for note in row["notes"]:
            run.log(note)


def _commit(campaign: Campaign, plan: Plan, rows: Iterator[dict[str, Any]]) -> Iterator[ShardRecord]:
    """Commit each shard as its last chunk arrives. Yields its record."""
    left = {shard.shard for shard in plan.todo}
    drafts: dict[str, Draft] = {}
    writing: deque[Future[ShardRecord]] = deque()
    with ThreadPoolExecutor(COMMIT_THREADS) as threads:
        for row in rows:
            shard = row["shard"]
            # Ray computes a chunk again when a node is lost; the first answer is as good.
            if shard in left and drafts.setdefault(shard, Draft(shard)).add(row) and drafts[shard].is_whole:
                left.remove(shard)
                writing.append(threads.submit(drafts.pop(shard).commit, campaign, plan.files[shard]))
            while writing and (writing[0].done() or len(writing) > MOST_WRITING):
                yield writing.popleft().result()
        for future in writing:
            yield future.result()
    if left:
        raise RuntimeError(f"Ray Data ended without all chunks of {sorted(left)[:3]}")
