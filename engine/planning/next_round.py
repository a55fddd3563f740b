"""What a campaign's next round reads, computes, asks of its storage, keeps and costs; nothing of it changes.

Seconds are those of the newest round that measured them on the same kind of device, else those of a trial: see
`engine.planning.trial`. Counts that only a run can know are estimates.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow.compute as pc

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import completed
from engine.campaign.labels import read_labels
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.campaign.scored_shards import shard_records
from engine.campaign.stages import STAGES, Effort
from engine.campaign.unlabelled import as_labels_allow
from engine.handoff.gold import num_gold_of
from engine.models.fitting import MOST_FITTED
from engine.planning.trial import Trial
from engine.pool.items import LARGEST_BLOCK_BYTES
from engine.pool.manifest import read_shards
from engine.pool.shard import Shard
from engine.pool.shards import Shards
from engine.training.deal import MOST_RUN_ITEMS
from engine.training.plan import num_steps_of
from engine.training.task_plan import num_task_steps

REQUESTS_OF_A_FILE = 3
"""To write one to an object store: an upload begins, gets its parts, and ends."""
SELECTION_PASSES = 2
"""Selection reads the scores twice."""
ROW_BYTES = 60
"""Of a scores file for each item, about, without its latent of two bytes a component."""
CHECKPOINT_TIMES = 3
"""A checkpoint is so many times its weights: with two moments of each."""
Try = Callable[[Shard], Trial]


class StagePlan(NamedTuple):
    """What a stage will do: items that it reads, and their bytes; steps of training; requests to object stores; bytes
    that it writes; hours on the device, summed over workers, None where nobody knows; and how these are known. All is 0
    where it is complete."""

    stage: str
    complete: bool
    items: int = 0
    read_bytes: int = 0
    steps: int = 0
    requests: int = 0
    write_bytes: int = 0
    hours: float | None = 0.0
    basis: str = ""


class RoundPlan(NamedTuple):
    """The next round. `pool_items` is an estimate where no pass has counted them (`is_counted`). `cost` is that of its
    answers, 0 without handoff.price; `trial` is None where none was needed."""

    round: int
    pool_items: int
    is_counted: bool
    num_labels: int
    pool_bytes: int
    stages: list[StagePlan]
    cost: Decimal
    trial: Trial | None

    @property
    def hours(self) -> float | None:
        """Hours on the device of all stages; None where those of one are not known."""
        each = [stage.hours for stage in self.stages]
        return None if None in each else sum(filter(None, each))


class _Pool(NamedTuple):
    """Shards, items and bytes of the pool, labels, and the bytes of an item; whether the pool and the campaign are on
    object stores."""

    shards: Shards
    items: int
    bytes: int
    labels: int
    is_remote: bool
    is_home_remote: bool

    @property
    def item_bytes(self) -> float:
        return self.bytes / max(1, self.items)


def plan_round(campaign: Campaign, device: str, try_: Try) -> RoundPlan:
    """The plan of the campaign's round; of the one after it where all stages are complete and answers are awaited.

    `campaign` is opened with `with_labels`. `try_` times a trial on the items of a shard; it is called at most once.
    Raises as `run_trial` of `engine.planning.trial`.
    """
    is_over = all(completed(campaign, stage.name) for stage in STAGES)
    # The answers are labels of the round after this one.
    campaign = campaign if is_over else as_labels_allow(campaign)
    number = campaign.round + is_over
    efforts = {stage: _effort(campaign, stage, device) for stage in ("train", "scores")}
    shards = read_shards(campaign.home).in_round(number).at_root(campaign.config.pool.root)
    is_counted = not shards.table["num_items"].null_count
    next_one = replace(campaign, round=number)
    needs_trial = not all(efforts[name] or completed(next_one, name) for name in efforts) or not is_counted
    trial = try_(shards[0]) if needs_trial else None
    pool = _pool_of(campaign, shards, trial, is_over=is_over)
    made = (
        _training(next_one, pool, efforts["train"], trial),
        _scoring(next_one, pool, efforts["scores"], trial),
        _selecting(next_one, pool),
        *_sending(next_one, pool),
    )
    stages = [
        StagePlan(plan.stage, complete=True) if completed(next_one, stage.name) else plan
        for stage, plan in zip(STAGES, made, strict=True)
    ]
    cost = cost_of(next_one)
    return RoundPlan(number, pool.items, is_counted, pool.labels, pool.bytes, stages, cost, trial)


def cost_of(campaign: Campaign) -> Decimal:
    """What the answers to a round's picks cost, in the currency of handoff.price; 0 where they are out."""
    handoff, budget = campaign.config.handoff, campaign.config.select.budget
    if completed(campaign, "handoff"):
        return Decimal(0)
    return Decimal(str(handoff.price)) * handoff.annotators * (budget + num_gold_of(handoff, budget))


class _Measured(NamedTuple):
    """What an earlier round's stage cost, and that round."""

    effort: Effort
    round: int

    @property
    def hours(self) -> float:
        return self.effort["seconds"] * self.effort["workers"] / 3600

    @property
    def basis(self) -> str:
        return f"measured in round {self.round:03d}"


def _effort(campaign: Campaign, stage: str, device: str) -> _Measured | None:
    """The newest measurement of a stage on this kind of device."""
    kind: Any = TrainManifest if stage == "train" else ScoresManifest
    for number in range(campaign.round, -1, -1):
        before = replace(campaign, round=number)
        if completed(before, stage):
            manifest = read_manifest(before, stage, kind)
            if manifest.get("effort") and manifest["device"] == device:
                return _Measured(manifest["effort"], number)
    return None


def _pool_of(campaign: Campaign, shards: Shards, trial: Trial | None, *, is_over: bool) -> _Pool:
    num_bytes, items = shards.num_bytes, shards.estimated_items()
    if trial and not pc.sum(shards.table["num_items"]).as_py():
        items = round(num_bytes / max(1.0, trial.bytes_per_item))
    labels = len(read_labels(campaign.home)) + (campaign.config.select.budget if is_over else 0)
    return _Pool(shards, items, num_bytes, labels, "://" in shards[0].url, "://" in campaign.home.url)


def _training(campaign: Campaign, pool: _Pool, measured: _Measured | None, trial: Trial | None) -> StagePlan:
    config, train = campaign.config, campaign.config.train
    unlabelled = max(1, pool.items - pool.labels)
    images_per_step = train.batch_size * config.method.batches_per_step(train.vae_steps, train.discriminator_steps)
    steps = num_steps_of(config, unlabelled / images_per_step)
    has_task_steps = config.has_task and not (config.sees_embeddings or config.task.model)
    task_steps = num_task_steps(train, pool.labels) if has_task_steps else 0
    # What is fitted at the end reads a sample again.
    seen = round(steps * images_per_step) + pool.labels + min(MOST_FITTED, unlabelled)
    is_sampled = train.max_steps * images_per_step < unlabelled
    requests = seen // MOST_RUN_ITEMS if is_sampled else math.ceil(seen / max(1, pool.items)) * _reads(pool)
    weights = trial.weight_bytes if trial else _weight_bytes(campaign)
    hours, basis = _hours(measured, steps + task_steps)
    if trial and hours is None:
        seconds = steps * trial.seconds_per_step + task_steps * trial.seconds_per_task_step
        hours = (seconds + min(MOST_FITTED, unlabelled) * trial.seconds_per_item) / 3600
        basis = _tried(trial)
    return StagePlan(
        "train", complete=False, items=seen, read_bytes=round(seen * pool.item_bytes), steps=steps + task_steps,
        requests=requests * pool.is_remote, write_bytes=weights * (1 + CHECKPOINT_TIMES * train.checkpoints_kept),
        hours=hours, basis=basis,
    )  # fmt: skip


def _hours(measured: _Measured | None, steps: int) -> tuple[float | None, str]:
    """Of training, by what an earlier one measured: by its steps, or where it had none, as it was."""
    if measured is None:
        return None, ""
    done = measured.effort["done"]
    if bool(done) != bool(steps):
        return None, ""
    return measured.hours * (steps / done if done else 1), measured.basis


def _tried(trial: Trial) -> str:
    return f"a trial of {trial.items} images" if trial.seconds_per_item else "nothing: the trial read no image"


def _scoring(campaign: Campaign, pool: _Pool, measured: _Measured | None, trial: Trial | None) -> StagePlan:
    kept = len([name for name in campaign.stage("scores").children() if name.endswith(".parquet")])
    left = max(0, len(pool.shards) - kept) / len(pool.shards)
    items, basis, hours = round(pool.items * left), "", None
    if measured and measured.effort["done"]:
        hours, basis = measured.hours * items / measured.effort["done"], measured.basis
    elif trial:
        hours, basis = items * trial.seconds_per_item / 3600, _tried(trial)
    files = round(len(pool.shards) * left) * REQUESTS_OF_A_FILE
    return StagePlan(
        "score", complete=False, items=items, read_bytes=round(pool.bytes * left),
        requests=round(_reads(pool) * left) * pool.is_remote + files * pool.is_home_remote,
        write_bytes=items * _row_bytes(campaign, trial), hours=hours, basis=basis,
    )  # fmt: skip


def _selecting(campaign: Campaign, pool: _Pool) -> StagePlan:
    size = pool.items * _row_bytes(campaign, None)
    requests = SELECTION_PASSES * len(pool.shards) * pool.is_home_remote
    return StagePlan("select", complete=False, items=pool.items, read_bytes=SELECTION_PASSES * size, requests=requests)


def _sending(campaign: Campaign, pool: _Pool) -> tuple[StagePlan, StagePlan]:
    """The export, and the report, which shows what was picked."""
    handoff, budget = campaign.config.handoff, campaign.config.select.budget
    images = budget + num_gold_of(handoff, budget)
    size = round(images * pool.item_bytes)
    is_there = "://" in handoff.images or pool.is_home_remote
    written = images * REQUESTS_OF_A_FILE * is_there
    export = StagePlan(
        "export", complete=False, items=images, read_bytes=size, requests=images * pool.is_remote + written,
        write_bytes=size,
    )  # fmt: skip
    report = StagePlan("report", complete=False, items=budget, read_bytes=size, requests=budget * pool.is_remote)
    return export, report


def _reads(pool: _Pool) -> int:
    """Requests of one pass over the pool."""
    return len(pool.shards) + int((-(-pool.shards.sizes // LARGEST_BLOCK_BYTES)).sum())


def _row_bytes(campaign: Campaign, trial: Trial | None) -> int:
    """Bytes of an item in a scores file: as in the newest round that was scored, or by the length of its latent."""
    for number in range(campaign.round, -1, -1):
        before = replace(campaign, round=number)
        if completed(before, "scores"):
            manifest = read_manifest(before, "scores", ScoresManifest)
            sizes = shard_records(before, manifest, ["size_bytes"])["size_bytes"]
            return round((pc.sum(sizes).as_py() or 0) / max(1, manifest["counts"]["scored"]))
    return ROW_BYTES + 2 * (trial.num_latents if trial else 0)


def _weight_bytes(campaign: Campaign) -> int:
    """Of the newest trained networks."""
    for number in range(campaign.round, -1, -1):
        files = replace(campaign, round=number).stage("train").children()
        if sizes := [size for name, size in files.items() if name.endswith(".safetensors")]:
            return sum(sizes)
    return 0
