"""Training on the driver: it plans the run, starts Ray Train's workers, and completes the stage.

A round's training is a function of its fingerprint (configuration, labels, pool). Only a run of the same fingerprint
resumes from a checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import ray

from engine.campaign.changes import current_shards
from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint
from engine.campaign.growing import follow
from engine.campaign.heartbeat import PROGRESS_FILE, beating
from engine.campaign.labels import Snapshot, read_snapshot
from engine.campaign.manifests import TrainManifest, read_manifest, write_manifest
from engine.campaign.opening import check_budget
from engine.campaign.stages import QUIET, Run
from engine.campaign.unlabelled import in_words
from engine.campaign.workers import require_workers, session_with_workers
from engine.cluster.ray_session import choose_device, require_cpus
from engine.cluster.waiting import Need, wait_for, watched
from engine.config.section import result_values
from engine.config.train_options import TrainConfig
from engine.models.diagnosis import findings_of, summary
from engine.models.task_source import TASK_MODEL, task_inputs
from engine.models.task_trial import note_on_weights, task_entry
from engine.models.task_words import task_facts
from engine.models.weights import shape_of
from engine.pool.manifest import read_shards
from engine.pool.mask_source import MASKS, mask_inputs, mask_source
from engine.pool.sight import EMBEDDINGS, embedding_inputs
from engine.storage.location import Location
from engine.training.board import News, Steps, following, make_board
from engine.training.plan import LABEL_COLUMNS, TrainingPlan, plan_training, require_few
from engine.training.ray_trainer import fit
from engine.training.reusing import fingerprint_of, reused
from engine.training.trackers import About, require_installed, tracked


def train(campaign: Campaign, run: Run = QUIET) -> TrainManifest:
    """Train this round's networks and complete the train stage. Returns its manifest; a complete stage is left alone.

    Raises:
        InputError: a shard or label cannot be read, or nothing is left to train on.
        NotAcceptableError: damaged shards are too much of the pool, or too many labelled images do not decode.
        ConfigError: the budget exceeds the pool, or the cluster lacks what the configuration asks for.
        VaalError: a loss is not finite.
    """
    folder = campaign.stage("train")
    if is_complete(folder):
        return read_manifest(campaign, "train", TrainManifest)
    follow(campaign, run.log)
    check_budget(campaign)
    require_installed(campaign.config.train.trackers)
    with current_shards(campaign, run.log):
        snapshot = read_snapshot(campaign.home, LABEL_COLUMNS)
        inputs = _inputs_of(campaign, snapshot.files)
        return reused(campaign, inputs, run.log) or _train(campaign, snapshot, inputs, run)


def _inputs_of(campaign: Campaign, labels: dict[str, str]) -> dict[str, str]:
    """What is learnt from, by hash."""
    config, gone = campaign.config, sorted(forgotten(campaign.home))
    shards = read_shards(campaign.home).in_round(campaign.round)
    prints = {
        EMBEDDINGS: embedding_inputs(config),
        TASK_MODEL: task_inputs(config),
        MASKS: mask_inputs(mask_source(config, campaign.home)),
        "forgotten": {"items": gone} if gone else {},
    }
    return {**labels, "pool": fingerprint_of(shards), **_prints(prints)}


def _train(campaign: Campaign, snapshot: Snapshot, inputs: dict[str, str], run: Run) -> TrainManifest:
    folder, config = campaign.stage("train"), campaign.config
    plan = plan_training(campaign, snapshot, run.log)
    if not plan.labels:
        run.log(in_words(campaign))
    run_name, steps = _name_of_run(plan, snapshot.files, inputs["pool"]), Steps(plan.all_steps)
    entry = task_entry(config, plan.labels.different) if config.task.model else {}
    if note := note_on_weights(config):
        run.log(note)
    with session_with_workers(campaign, run):
        board = make_board()
        least = config.train.min_workers or config.train.workers
        require_cpus("train.min_workers" if config.train.min_workers else "train.workers", least, run.address)
        device = choose_device(config.device, least, run.address)
        need = need_of(config.train, device)
        plan = plan._replace(device=device, board=board)
        wait_for(need, run.address, run.log, run.measure)
        require_workers(campaign, run)

        def has_begun() -> bool:
            return bool(ray.get(board.is_at_work.remote()))

        is_watched = watched(need, run.address, run.log, run.measure, has_begun)
        is_beating = beating(folder / PROGRESS_FILE, steps.state)
        with is_beating, _shown(campaign, run, plan, run_name, steps), is_watched:
            result = fit(plan, folder / "checkpoint", run_name)
        effort = steps.effort(*ray.get(board.began.remote()))
        left_out = plan.left_out | ray.get(board.left_out.remote())
    for why in left_out.values():
        run.log(f"{why}; the shard was left out of training")
    require_few(config, plan.pool.shards, left_out)
    entry = entry and {**entry, **result["details"]["task"]}
    manifest = write_manifest(
        campaign,
        "train",
        TrainManifest,
        inputs=inputs,
        counts={
            "labelled": len(plan.labels),
            "labelled_not_decoded": result["not_decoded"],
            "unlabelled_estimate": plan.images_per_epoch,
            "steps": plan.num_steps,
            **({"task_steps": plan.task.num_steps} if plan.task else {}),
            **({"masks_not_usable": result["masks_not_usable"]} if plan.masks else {}),
        },
        files=result["files"],
        device=device,
        effort=effort,
        left_out=left_out,
        fold_round=campaign.round,
        **{**result["details"], **({"task": entry} if entry else {})},
    )
    (folder / PROGRESS_FILE).delete()
    _keep_newest_checkpoint(folder / "checkpoint", run_name)
    return manifest


def _keep_newest_checkpoint(storage: Location, run_name: str) -> None:
    """Delete what a finished training wrote beside its newest checkpoint: from that one it would be made again, if its
    manifest were lost. Raises StorageError if the storage refuses."""
    for name in storage.folders():
        run = storage / name
        written = [checkpoint for checkpoint in run.folders() if checkpoint.startswith("checkpoint_")]
        for old in [run] if name != run_name else [run / checkpoint for checkpoint in written[:-1]]:
            old.remove()


def _name_of_run(plan: TrainingPlan, labels: dict[str, str], pool: str) -> str:
    """What decides a training, as the name under which a run of it goes on from another one's checkpoints.

    The networks' shape is part of it: another version may give another shape to the same options.
    """
    config = plan.config
    return fingerprint(
        labels=labels, pool=pool, steps=plan.all_steps, method=config.needs_method,
        shape=asdict(shape_of(config)), learnt=plan.task and (plan.task.kind, plan.task.classes, plan.task.num_steps),
        image=result_values(config.image), train=result_values(config.train), group=config.pool.group,
        **embedding_inputs(config), **task_inputs(config), **mask_inputs(plan.masks),
    )[:16]  # fmt: skip


@contextmanager
def _shown(campaign: Campaign, run: Run, plan: TrainingPlan, run_name: str, steps: Steps) -> Iterator[None]:
    """Show what the board has while the body runs: as lines, as progress, as gauges, and to the trackers."""
    options = {f"train.{name}": value for name, value in plan.config.train.model_dump().items()}
    about = About(campaign.home.url, campaign.round, run_name, options, campaign.stage("train"))
    run.measure("vaal_labels", len(plan.labels))
    run.measure("vaal_train_steps", plan.all_steps)
    shown = 0

    def show(news: News) -> None:
        nonlocal shown
        for note in news.notes:
            run.log(note)
        track(news.rows)
        if news.saved_at is not None:
            run.measure("vaal_checkpoint_time_seconds", news.saved_at)
        if news.step == shown:
            return
        shown = news.step
        steps.reach(shown)
        run.measure("vaal_train_step", shown)
        for name, loss in news.losses.items():
            run.measure("vaal_train_loss", loss, loss=name)
        run.on_progress(shown / plan.all_steps, f"step {shown} of {plan.all_steps}, {_in_words(news.losses)}")

    with tracked(plan.config.train.trackers, about, run.log) as track, following(plan.board, show):
        yield


def _prints(parts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The fingerprint of each part that there is."""
    return {name: fingerprint(**values) for name, values in parts.items() if values}


def need_of(train: TrainConfig, device: str) -> Need:
    """The workers without which training cannot begin, or go on."""
    return Need("train", train.min_workers or train.workers, float(device == "cuda"), train.wait_seconds)


def describe(campaign: Campaign, manifest: TrainManifest) -> dict[str, Any]:
    """The summary of a complete stage for the user."""
    steps, losses = manifest["counts"]["steps"], _in_words(manifest["losses"])
    findings = findings_of(manifest, campaign.config.select.acquisition)
    if not manifest["diagnosis"].get("is_trained", True):
        # Its only finding says so, and why.
        verdict, findings = findings[0], []
    else:
        verdict = summary(manifest, campaign.config.select.acquisition)
    return {
        **task_facts(manifest),
        **({"steps": steps} if steps else {}),
        **({"losses": losses} if losses else {}),
        "verdict": verdict,
        **{f"finding {number}": line for number, line in enumerate(findings, 1)},
        "weights, metrics": campaign.stage("train"),
    }


def _in_words(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
