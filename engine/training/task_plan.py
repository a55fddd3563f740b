"""The plan of the task learner's training: its answers, the images that train and judge it, its updates."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.campaign.folder import Campaign
from engine.campaign.labels import Identity, identities
from engine.campaign.origins import origins_of
from engine.campaign.packed_positions import Positions
from engine.config.options import CampaignConfig
from engine.config.train_options import TrainConfig
from engine.errors import ConfigError, InputError
from engine.models.task_answers import answers_of_items
from engine.models.task_networks import TASK_NETWORKS
from engine.models.task_words import LEAST_TO_JUDGE
from engine.pool.identity import Groups, are_held_out, group_number_of, held_out_of
from engine.tables.selections import ORIGIN_CONTROL
from vaal.task.kinds import Kind

JUDGING_SHARE = 0.2
"""Share of the labelled images that the task learner does not train on."""
MOST_JUDGING = 5000
"""Most labelled images by which it is judged."""
TASK_PASSES, LEAST_TASK_STEPS = 50, 500
"""Passes of the task learner over its images, and the least number of updates, with train.task_steps=auto."""


class TaskPlan(NamedTuple):
    """The plan of a task learner that trains in steps.

    `classes` are in the order of the logits. `answer_N` are those of the images at the plan's positions: see
    `vaal.task.recipe.task_loss`; masks are not among them, but read with the images. `training` and `judging` are
    numbers of positions. `controls` are the labelled images that are a random sample of the pool.
    """

    kind: Kind
    classes: list[str]
    answer_N: Tensor
    training: NDArray[np.int64]
    judging: list[int]
    controls: frozenset[Identity]
    num_steps: int


def plan_task(
    config: CampaignConfig,
    controls: frozenset[Identity],
    labels: Callable[[], list[str]],
    positions: Positions,
    groups: Groups,
) -> TaskPlan | None:
    """The plan for the labels of the images at these positions, which are asked for where they are answers; None where
    no task learner trains in steps. `controls` as in the plan.

    Raises ConfigError or VaalError as `engine.models.task_answers.answers_of`.
    """
    classes, answer_N = config.mask_classes, torch.empty(0)
    if config.task_kind is None:
        return None
    if _has_answers(config):
        classes, answer_N = answers_of_items(config, labels(), positions)
    if config.sees_embeddings or config.task.model:
        return None
    name, size = config.task_network, config.image.size
    if size < (smallest := TASK_NETWORKS[name].smallest_image):
        fix = "raise it" if config.task_kind == "segmentation" else "use small"
        raise ConfigError(f"train.task_network={name} needs image.size={smallest} or more, it is {size}; {fix}")
    training, judging = split_for_task(groups, positions)
    steps = num_task_steps(config.train, len(training))
    return TaskPlan(config.task_kind, classes, answer_N, training, judging, controls, steps)


def _has_answers(config: CampaignConfig) -> bool:
    """Whether labels must be answers. Those of masks are read with the images; on embeddings labels that are no classes
    teach nothing with train.task=auto; and several of an image only name outputs of a model where task.classes does."""
    if config.sees_embeddings:
        return config.train.task != "auto"
    names_outputs = bool(config.task_classes) or not config.task.model
    return config.task_kind == "classes" or (config.task_kind == "labels" and names_outputs)


def judges_task(groups: Groups, shard: str, key: str) -> bool:
    """Whether a labelled image is held out from the task learner."""
    return held_out_of(shard, key, JUDGING_SHARE, groups=groups)


def split_for_task(groups: Groups, positions: Positions) -> tuple[NDArray[np.int64], list[int]]:
    """The numbers of the images that the task learner trains on, and of those by which it is judged.

    A hash decides. Where it holds out none, or all, the fifth of the groups with the lowest number is held out; with
    fewer than LEAST_TO_JUDGE groups all images train.
    """
    is_judge_N = are_held_out(positions.items(), JUDGING_SHARE, groups=groups)
    if is_judge_N.all() or not is_judge_N.any():
        number_N = np.array([group_number_of(*item, groups) for item in positions.items()], np.uint64)
        numbers = np.unique(number_N)
        few = numbers[: int(JUDGING_SHARE * len(numbers)) if len(numbers) >= LEAST_TO_JUDGE else 0]
        is_judge_N = np.isin(number_N, few)
    training, judging = np.flatnonzero(~is_judge_N), np.flatnonzero(is_judge_N)
    return training, np.sort(np.random.default_rng(len(judging)).permutation(judging)[:MOST_JUDGING]).tolist()


def controls_among(campaign: Campaign, labels: pa.Table) -> frozenset[Identity]:
    """The labelled images that are a random sample of the pool, of rows of SNAPSHOT_SCHEMA."""
    # They only calibrate: a damaged selection need not end training.
    with suppress(InputError):
        return frozenset(identities(labels.filter(pc.equal(origins_of(campaign.home, labels), ORIGIN_CONTROL))))
    return frozenset()


def num_task_steps(train: TrainConfig, num_images: int) -> int:
    """The updates of a task learner on pixels that trains on so many images."""
    if train.task_steps != "auto":
        return train.task_steps
    return max(LEAST_TASK_STEPS, math.ceil(TASK_PASSES * num_images / train.batch_size))
