"""The plan of a round's training: the items that train, the items held out, the iterations, and the streams."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.campaign.decisions import forgotten, without_forgotten
from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, Snapshot, read_snapshot
from engine.campaign.packed_positions import PACKED_SCHEMA, Positions, sorted_places
from engine.campaign.positions import places_of
from engine.campaign.stages import QUIET, Log
from engine.config.first_round import needs_labels
from engine.config.options import CampaignConfig
from engine.errors import ConfigError, InputError, NotAcceptableError
from engine.pool.identity import ALONE, folds_of
from engine.pool.manifest import read_shards
from engine.pool.mask_source import MaskSource, mask_source
from engine.pool.metadata import read_groups
from engine.pool.runs import holds_archives
from engine.pool.shard import DamagedShardError, Shard
from engine.pool.shards import Shards
from engine.pool.sight import Sight, notes_on, sight_of
from engine.storage.location import Location
from engine.tables.by_shard import ByShard, places_of_texts
from engine.training.deal import Deal, run_bytes
from engine.training.streams import Pool, count_trainable
from engine.training.task_plan import TaskPlan, controls_among, plan_task
from vaal.losses import LossWeights
from vaal.step import Updates
from vaal.task.classifier import augmented

LABEL_COLUMNS = ("shard", "key", "label", "round", "origin")
"""Of a label, what training needs."""
HELD_OUT_SHARE = 0.2
"""Share of each pool, without folds, that nothing trains on, so that the networks can be judged on it."""


class TrainingPlan(NamedTuple):
    """The plan of a round's training, for every worker. `labelled_share` is as in `vaal.losses.LossWeights`.

    `labels` and `positions` are those of the labels at the time of planning: every worker uses the same. `left_out` are
    damaged shards, with their faults. The updates of `task` follow `num_steps` iterations
    of VAAL; it is None where no task learner trains in steps. `masks` are where a task learner of masks finds them.
    """

    config: CampaignConfig
    labels: ByShard
    positions: Positions
    folder: Location
    pool: Pool
    deal: Deal
    labelled_share: tuple[float, ...]
    left_out: dict[str, str]
    images_per_epoch: int
    images_per_step: float
    num_steps: int
    task: TaskPlan | None
    masks: MaskSource | None
    device: str
    board: Any

    @property
    def all_steps(self) -> int:
        """The iterations of VAAL, and the updates of the task learner."""
        return self.num_steps + (self.task.num_steps if self.task else 0)

    @property
    def weights(self) -> LossWeights:
        train = self.config.train
        return LossWeights(train.beta, train.transductive_weight, train.adversarial_weight, self.labelled_share)


def augment_of(config: CampaignConfig) -> Callable[[NDArray[Any], np.random.Generator], NDArray[Any]] | None:
    """How the images of a batch are changed: where discriminators learn features of pixels; a VAE sees them as they
    are."""
    kind = config.train.task_augmentation
    if config.sees_embeddings or config.train.method != "features" or kind == "none":
        return None
    return partial(augmented, flips=kind == "flips_and_crops")


def phase_of(plan: TrainingPlan, step: int, *, is_holding: bool) -> tuple[Updates, bool]:
    """The updates of iteration `step`, and whether discriminators take part; `is_holding`: they are only measured."""
    train = plan.config.train
    discriminators = 0 if is_holding else train.discriminator_steps
    if not plan.config.method.vae_first:
        return Updates(train.vae_steps, discriminators), True
    if 2 * step < plan.num_steps:
        return Updates(train.vae_steps, 0), False
    return Updates(0, discriminators), True


def plan_training(campaign: Campaign, snapshot: Snapshot | None = None, log: Log = QUIET.log) -> TrainingPlan:
    """The plan of a round on these labels, or those there are now, without the device and the board. The rows of a
    snapshot are let go: of millions both would not fit.

    Raises:
        InputError: a shard cannot be read, or nothing is left to train on.
        ConfigError: too few labelled images for the folds or for holding out.
    """
    config, known = campaign.config, read_shards(campaign.home)
    shards = known.in_round(campaign.round)
    train, gone = config.train, forgotten(campaign.home)
    labelled, controls = _labelled(campaign, snapshot or read_snapshot(campaign.home, LABEL_COLUMNS))
    num_unlabelled = shards.estimated_items(known) - _num_in(labelled["shard"], shards)
    if num_unlabelled < 1:
        raise InputError(f"{campaign.home}: all {len(labelled)} items are labelled; use a larger pool")
    # With folds every item is held out from one discriminator, and none needs to be held out from all.
    held_out = 0.0 if _is_cross_fitted(config) or not config.needs_method else HELD_OUT_SHARE
    groups, sight = read_groups(campaign.home, config.pool.group), _sight(config, shards, log)
    others = known.where(~known.are_in(campaign.round))
    # An image that is in its shard no more is neither labelled nor unlabelled: nothing trains on it.
    placed = [places_of(campaign.home, labelled, known, config.image, log)]
    every_label = ByShard(labelled, "label") if len(placed[0]) < len(labelled) else None
    del labelled
    # Nothing else holds it: as it is sorted, it lets go what is done.
    table = sorted_places(placed.pop())
    positions, labels = Positions(table.select(PACKED_SCHEMA.names)), every_label or ByShard(table, "label")
    pool = Pool(shards, sight, train.folds, labels, held_out, campaign.round, groups, others, frozenset(gone))
    if len(labels) or needs_labels(config):
        _require_labelled(campaign, pool, positions)
    images_per_step = train.batch_size * config.method.batches_per_step(train.vae_steps, train.discriminator_steps)
    counts, length, left_out, sizes = None, 0, dict[str, str](), shards.sizes
    if train.max_steps * images_per_step >= (1 - held_out) * num_unlabelled:
        # There is at least one whole pass. Every item is read once per pass, for which the pool must be counted.
        counts = count_trainable(pool, left_out)
        require_few(config, shards, left_out)
        num_unlabelled = int(counts.sum())
        if not num_unlabelled:
            raise InputError(f"{campaign.home}: the pool has no unlabelled image to train on; use a larger pool")
    elif _holds_archives(shards[0]):
        log(f"{shards[0].shard} has a tar in it: training samples whole shards, instead of short runs of all")
    else:
        length = run_bytes(sizes, num_unlabelled, int(train.max_steps * images_per_step))
    return TrainingPlan(
        config=config,
        labels=labels,
        positions=positions,
        folder=campaign.stage("train"),
        pool=pool,
        # Another sample of the pool in each round.
        deal=Deal(sizes, train.streams, train.seed + (campaign.round << 32), counts, length),
        labelled_share=_labelled_share(config, pool, positions),
        left_out=left_out,
        images_per_epoch=num_unlabelled,
        images_per_step=images_per_step,
        num_steps=num_steps_of(config, num_unlabelled / images_per_step),
        task=plan_task(config, controls, partial(_texts, table["label"]), positions, groups),
        masks=mask_source(config, campaign.home),
        device="",
        board=None,
    )


def _num_in(names: pa.ChunkedArray, shards: Shards) -> int:
    """How many rows have the name of one of the shards; the names may be a dictionary."""
    different, place_N = places_of_texts(names)
    is_in_S = pc.is_in(different, value_set=shards.names).to_numpy(zero_copy_only=False)
    return int(np.count_nonzero(is_in_S[place_N]))


def _labelled(campaign: Campaign, snapshot: Snapshot) -> tuple[pa.Table, frozenset[Identity]]:
    """Shard, key and label of the labelled images, and the controls among them where a task learner asks for them. The
    snapshot has no rows any more."""
    labels = snapshot.labels
    snapshot.tables.clear()
    controls = controls_among(campaign, labels) if campaign.config.task_kind else frozenset[Identity]()
    return without_forgotten(campaign.home, labels.select(["shard", "key", "label"])), controls


def _texts(column: pa.ChunkedArray) -> list[str]:
    """The texts of a dictionary as a list. Equal ones are one object."""
    whole = column.combine_chunks()
    found: list[str] = np.array(whole.dictionary.to_pylist(), object)[whole.indices.to_numpy()].tolist()
    return found


def _require_labelled(campaign: Campaign, pool: Pool, usable: Positions) -> None:
    """Raises InputError if no labelled image is in its shard, ConfigError if all of them are held out."""
    train = campaign.config.train
    if not usable:
        count = len(pool.labelled)
        raise InputError(f"{campaign.home}: none of {count} labelled images is in its shard; restore the shards")
    if all(pool.is_held_out(*item) for item in usable.items()):
        raise ConfigError(
            f"train.folds={train.folds}, train.method={train.method}: a fifth of the labelled images is held out for "
            f"the diagnosis, which leaves none of the {len(usable)} to train on; label more"
        )


def _sight(config: CampaignConfig, shards: Shards, log: Log) -> Sight:
    sight = sight_of(config, shards)
    for note in notes_on(sight, shards):
        log(note)
    return sight


def _holds_archives(shard: Shard) -> bool:
    """Whether runs of the pool could begin in an archive that is an item's companion, of which one shard tells."""
    try:
        return holds_archives(shard)
    except DamagedShardError:
        return False


def require_few(config: CampaignConfig, shards: Shards, left_out: dict[str, str]) -> None:
    """Raises NotAcceptableError if damaged shards are more of the pool's bytes than score.max_bad_fraction."""
    most = config.score.max_bad_fraction
    share = int(shards.sizes[shards.are_named(left_out)].sum()) / shards.num_bytes
    if share > most:
        raise NotAcceptableError(
            f"{min(left_out.values())}; damaged shards are {share:.1%} of the pool, score.max_bad_fraction={most:g} is "
            "the limit: restore them, or train without them: --set score.max_bad_fraction=1"
        )


def require_decoded(plan: TrainingPlan, not_decoded: set[int]) -> str:
    """The line that reports labelled images that do not decode, by their numbers among the positions; "" for none.

    Raises NotAcceptableError if more of them do not decode than score.max_bad_fraction.
    """
    if not not_decoded:
        return ""
    most, total = plan.config.score.max_bad_fraction, len(plan.positions)
    shard, key, *_ = plan.positions[min(not_decoded)]
    why = f"{len(not_decoded)} of {total} labelled images do not decode, the first is {shard}: item {key}"
    if len(not_decoded) > most * total:
        raise NotAcceptableError(
            f"{plan.folder}: {why}; score.max_bad_fraction={most:g} is the limit: repair the shards, retract the "
            "labels, or train without these images: --set score.max_bad_fraction=1"
        )
    return f"{why}; nothing trains on them"


def require_masks(plan: TrainingPlan, faults: dict[Identity, str]) -> str:
    """The line that reports masks that cannot be used; "" for none.

    Raises NotAcceptableError if they are more of the labelled images than score.max_bad_fraction.
    """
    if not faults:
        return ""
    most, total = plan.config.score.max_bad_fraction, len(plan.positions)
    why = f"{faults[min(faults)]}; it is the first of {len(faults)} among {total} labelled images"
    if len(faults) > most * total:
        raise NotAcceptableError(
            f"{why}; score.max_bad_fraction={most:g} is the limit: correct the masks, retract the labels, or train "
            "without these images: --set score.max_bad_fraction=1"
        )
    return f"{why}; the task learner does not see these"


def num_steps_of(config: CampaignConfig, steps_per_epoch: float) -> int:
    """The iterations of VAAL; none where the last refit does everything, or no score needs its networks."""
    if config.fits_at_once or not config.needs_method:
        return 0
    return min(config.train.max_steps, math.ceil(config.train.epochs * steps_per_epoch))


def _is_cross_fitted(config: CampaignConfig) -> bool:
    return config.train.folds > 1 and config.method.has_discriminators


def _labelled_share(config: CampaignConfig, pool: Pool, labelled: Positions) -> tuple[float, ...]:
    """The share of the labelled items that discriminator k trains on, for every k; empty without folds."""
    if not _is_cross_fitted(config) or not config.needs_method:
        return ()
    elsewhere = "" if pool.groups == ALONE else ", in other groups (pool.group)"
    folds = folds_of(labelled.items(), pool.num_folds, pool.round, pool.groups)
    return shares_outside(folds, config.train.folds, elsewhere)


def shares_outside(folds: NDArray[np.int64], num_folds: int, elsewhere: str = "") -> tuple[float, ...]:
    """The share of the labelled images outside of each fold, from the fold of every image. `elsewhere` says where more
    of them help. Raises ConfigError if all are in one fold."""
    counts = np.bincount(folds, minlength=num_folds).tolist()
    share = tuple(1 - count / max(1, len(folds)) for count in counts)
    if num_folds > 1 and 0.0 in share:
        raise ConfigError(
            f"train.folds={num_folds}: all {len(folds)} labelled images fall into one fold, which leaves its "
            f"discriminator none to train on; label more{elsewhere}, or --set train.folds=1"
        )
    return share
