"""Scoring: the pool streams through the networks, and the driver commits one Parquet file for each shard.

Committed shards are never computed again.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.changes import look_again, refresh
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint, source_fingerprint
from engine.campaign.handed_out import completed
from engine.campaign.heartbeat import PROGRESS_FILE, beating
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.campaign.scored_shards import LEDGER, complete_scores, outdated, shard_records
from engine.campaign.stages import QUIET, Log, Run
from engine.campaign.workers import require_workers, session_with_workers
from engine.cluster.waiting import watched
from engine.config.options import CampaignConfig
from engine.config.section import result_values
from engine.config.texts import plural
from engine.errors import ConfigError, InputError
from engine.models.task_source import task_inputs, weights_of_task
from engine.pool.manifest import write_counts
from engine.pool.shard import CHANGED
from engine.pool.sight import EMBEDDINGS, embedding_inputs
from engine.scoring.drafts import Draft
from engine.scoring.quarantine import require_acceptable
from engine.scoring.resume import Ledger, ScoringPlan, make_plan
from engine.scoring.stream import choose_actors, scored_chunks
from engine.scoring.tally import Tally
from engine.tables.scores import ShardRecord, without_forgotten
from engine.tables.shard_records import first_unused, write_records
from vaal.acquisition import ACQUISITIONS
from vaal.methods import ENCODER, PROJECTION_FILE, SUMMARY, TASK_FILE

PASSED_THROUGH = ("engine.pool.items", "engine.scoring.chunks", "engine.scoring.scorer")
"""The modules that an item passes on its way from bytes to scores. With everything that they import, and the rows of
the tables in use, they decide a score together with the weights. Scores by other code are never mixed with these."""
COMMIT_THREADS = 8
"""Files are written by threads, because an object store takes long over each of them."""
MOST_WRITING = 4 * COMMIT_THREADS
"""Shards that wait to be written, at most: no chunks are taken while there are more."""


def score(campaign: Campaign, run: Run = QUIET) -> ScoresManifest:
    """Score every shard that is not committed yet and complete the scores stage. Returns its manifest.

    A complete stage is opened again when a shard or the weights changed since and nothing was handed out yet.

    Raises:
        InputError: training is not complete, or storage cannot be read.
        NotAcceptableError: too many items are quarantined; all shards are committed, the stage is not complete.
    """
    inputs = inputs_of(campaign)
    if is_complete(campaign.stage("scores")):
        manifest = read_manifest(campaign, "scores", ScoresManifest)
        if completed(campaign, "handoff") or not _is_outdated(campaign, manifest, inputs, run.log):
            if manifest["inputs"].get("code", inputs["code"]) != inputs["code"]:
                run.log("scored by the code of another version; a complete stage is kept, the next round uses this one")
            return manifest
    heartbeat = campaign.stage(LEDGER) / PROGRESS_FILE
    plan = make_plan(campaign, inputs, run.log)
    cost: dict[str, Any] = {"device": ""}
    tally, ledger = Tally(plan.todo.num_bytes, len(plan.shards), plan.committed), Ledger(campaign.stage(LEDGER))
    if plan.todo:
        require_model(campaign)
        begun_at = time.monotonic()
        with session_with_workers(campaign, run), beating(heartbeat, partial(tally.measured, run.measure)):
            actors = choose_actors(campaign.config, run)
            require_workers(campaign, run)
            trained = read_manifest(campaign, "train", TrainManifest)
            stream = scored_chunks(campaign, plan.todo, inputs, actors, trained)
            # Closed before Ray ends: after an interrupt, threads of Ray Data would log errors about the missing Ray.
            is_watched = watched(actors.need, run.address, run.log, run.measure)
            with closing(ledger), is_watched, closing(stream) as chunks:
                for record in _commit(campaign, plan, _counted(chunks, tally, run)):
                    ledger.add(record)
                    tally.add_shard(record)
                    tally.measured(run.measure)
                    run.on_progress(*tally.in_words())
            cost = {"device": actors.device, "effort": tally.effort(time.monotonic() - begun_at, actors.num)}
        run.measure("vaal_items_per_second", 0)
    records = pa.concat_tables([plan.committed, *ledger.tables])
    changed = records["shard"].filter(pc.match_substring(records["failure"], CHANGED)).to_pylist()
    if changed:
        look_again(campaign.home, {shard.url for shard in plan.shards.find(changed).values()})
    require_acceptable(campaign, records, run.log)
    return _complete(campaign, records, inputs, cost)


def describe(campaign: Campaign, manifest: ScoresManifest) -> dict[str, Any]:
    """The facts about a complete stage that a person sees."""
    counts = manifest["counts"]
    errors, num_forgotten = without_forgotten(manifest["errors"])
    num_bad = counts["quarantined"] - num_forgotten
    facts = {"scored": counts["scored"], "quarantined": num_bad, "scores": campaign.stage("scores")}
    if num_forgotten:
        facts["forgotten, not scored"] = num_forgotten
    if counts.get("unused_files"):
        example = first_unused(shard_records(campaign, manifest, ["unused_example"]))
        facts["unused"] = f"{plural(counts['unused_files'], 'file')} of no image, for example {example}"
    if num_bad:
        facts["of these"] = ", ".join(f"{count:,} x {name}" for name, count in errors.items())
        facts["quarantine"] = campaign.stage("quarantine")
    return facts


def inputs_of(campaign: Campaign, *, is_again: bool = False) -> dict[str, str]:
    """SHA-256 of everything that decides scores, by name: the networks, whose files are checked, settings and code.
    `is_again`: the scores of candidates, with the task learner's features."""
    config, folder = campaign.config, campaign.stage("train")
    trained_by = read_manifest(campaign, "train", TrainManifest)
    weights = {name: sha for name, sha in trained_by["files"].items() if name.endswith(".safetensors")}
    names = config.acquisitions(has_task=TASK_FILE in weights or bool(config.task.model))
    _require_made(campaign, trained_by, weights, names)
    asking = is_again or any("task" in ACQUISITIONS[name].needs for name in names)
    if not asking and PROJECTION_FILE not in weights:
        weights.pop(TASK_FILE, None)
    for name, sha in weights.items():
        (folder / name).read_verified(sha, f"delete {folder}/manifest.json and train again")
    seen, before = embedding_inputs(config), trained_by["inputs"].get(EMBEDDINGS)
    if seen and before and fingerprint(**seen) != before and not completed(campaign, "handoff"):
        source = config.pool.embeddings or config.encoder.model
        fix = f"restore them, or train on them: delete {folder}/manifest.json, then run: vaal train {campaign.home}"
        raise InputError(f"{source}: the embeddings changed since the networks were trained on them; {fix}")
    if by_user := task_inputs(config):
        weights |= weights_of_task(trained_by.get("task", {}))
    if sha256 := trained_by.get("embedding", {}).get("encoder_sha256"):
        weights[ENCODER] = sha256
    return {
        **weights,
        "settings": fingerprint(
            image=result_values(config.image),
            score=result_values(config.score),
            group=config.pool.group,
            **seen,
            **by_user,
        ),
        "code": code_fingerprint(config, names),
    }


def require_model(campaign: Campaign) -> None:
    """Load the user's task learner, so that what an actor would refuse is refused in one line, before a cluster is up.

    Raises as `engine.models.task_trial.require_as_trained`.
    """
    if not campaign.config.task.model:
        return
    # Only this needs torch.
    from engine.models.task_trial import require_as_trained

    folder, entry = campaign.stage("train"), read_manifest(campaign, "train", TrainManifest).get("task", {})
    advice = f"train with it: delete {folder}/manifest.json, then run: vaal round {campaign.home.quoted}"
    require_as_trained(campaign.config, entry, advice)


def _require_made(campaign: Campaign, trained_by: TrainManifest, weights: dict[str, str], names: list[str]) -> None:
    """Raises ConfigError if training did not make what these scores ask for."""
    config, folder = campaign.config, campaign.stage("train")
    again = f"delete {folder}/manifest.json, then run: vaal train {campaign.home}"
    has_task = TASK_FILE in weights or bool(config.task.model)
    asking = [name for name in names if "task" in ACQUISITIONS[name].needs]
    if asking and not has_task:
        why = f"score.acquisition={asking[0]} needs a task learner, and training made none"
        raise ConfigError(f"{folder}: {why}; set train.task or task.model, {again}")
    if config.needs_method != trained_by["diagnosis"].get("is_trained", True):
        why = "needs VAAL, which was not trained" if config.needs_method else "needs no VAAL, and it was trained"
        raise ConfigError(f"{folder}: score.acquisition={config.score.acquisition} {why}; {again}")
    for name in names:
        if ACQUISITIONS[name].fit and has_task and f"{SUMMARY}{name}.safetensors" not in weights:
            raise ConfigError(f"{folder}: score.acquisition={name} is fitted in training, and was not; {again}")


def code_fingerprint(config: CampaignConfig, names: list[str]) -> str:
    """SHA-256 of the code that makes these scores under a configuration."""
    rows = [config.method, *(ACQUISITIONS[name] for name in sorted(names))]
    return source_fingerprint(PASSED_THROUGH, rows)


def _is_outdated(campaign: Campaign, manifest: ScoresManifest, inputs: dict[str, str], log: Log) -> bool:
    """Whether the networks or shards changed since the stage was completed. If so, it is opened again."""
    weights = {name: sha for name, sha in inputs.items() if name.endswith(".safetensors")}
    has_new_weights = not weights.items() <= manifest["inputs"].items()
    if has_new_weights:
        log("the networks were trained again since the pool was scored; the pool is scored again")
    changed = outdated(campaign, refresh(campaign, log).in_round(campaign.round), manifest)
    if not changed and not has_new_weights:
        return False
    if "ledger" not in manifest:
        # Without a ledger every file would be counted again once the manifest is deleted.
        write_records(campaign.stage(LEDGER), shard_records(campaign, manifest))
    (campaign.stage("scores") / "manifest.json").delete()
    return True


def _complete(campaign: Campaign, records: pa.Table, inputs: dict[str, str], cost: dict[str, Any]) -> ScoresManifest:
    if is_complete(campaign.stage("scores")):
        # Another run that started at the same moment was faster; its files are the same.
        return read_manifest(campaign, "scores", ScoresManifest)
    counts = pc.if_else(pc.equal(records["failure"], ""), records["listed"], pa.scalar(None, pa.int64()))
    write_counts(campaign.home, records["shard"], counts)
    return complete_scores(campaign, records, inputs, cost)


def _counted(chunks: Iterator[pa.Table], tally: Tally, run: Run) -> Iterator[dict[str, Any]]:
    """The rows of the stream, while the tally counts them."""
    for row in (row for table in chunks for row in table.to_pylist()):
        yield row
        tally.add_chunk(row["read_bytes"], row["num_items"])
        run.on_progress(*tally.in_words())
        for note in row["notes"]:
            run.log(note)


def _commit(campaign: Campaign, plan: ScoringPlan, rows: Iterator[dict[str, Any]]) -> Iterator[ShardRecord]:
    """Commit each shard as its last chunk arrives. Yields its record."""
    left = set(plan.todo.names.to_pylist())
    folders = campaign.stage("scores"), campaign.stage("quarantine")
    drafts: dict[str, Draft] = {}
    writing: deque[Future[ShardRecord]] = deque()
    with ThreadPoolExecutor(COMMIT_THREADS) as threads:
        for row in rows:
            shard = row["shard"]
            # Ray computes a chunk again when a node is lost; the first result is used.
            if shard in left and drafts.setdefault(shard, Draft(shard)).add(row) and drafts[shard].is_whole:
                left.remove(shard)
                writing.append(threads.submit(drafts.pop(shard).commit, *folders, plan.file_of(shard)))
            while writing and (writing[0].done() or len(writing) > MOST_WRITING):
                yield writing.popleft().result()
        for future in writing:
            yield future.result()
    if left:
        raise RuntimeError(f"Ray Data ended without all chunks of {sorted(left)[:3]}; run the same command again")
