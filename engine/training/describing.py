"""Items read again at the end of training, in blocks: labelled ones that decode, and a random sample of the pool."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.models.fitting import MOST_FITTED
from engine.models.front import Front
from engine.models.summaries import Described
from engine.models.task_models import LoadedTask
from engine.training.batches import to_images, unlabelled_images
from engine.training.labelled import Decoded, Images, decoded
from engine.training.plan import TrainingPlan
from engine.training.streams import Pool
from vaal.refit import Cached
from vaal.task.model import Task
from vaal.task.projection import Projection, coarse, pooled

BATCH = 256


class Reader(NamedTuple):
    """How items are read, by the sight of the pool, and how they become a network's input."""

    pool: Pool
    see: Callable[[NDArray[Any]], Tensor]

    def labelled(self, plan: TrainingPlan, items: list[tuple[str, str]]) -> Iterator[Decoded]:
        """The labelled items that decode, one at a time: all may not fit the memory. `items` gets their names."""
        for number, image in decoded(self.pool, plan.positions):
            items.append(plan.positions[number][:2])
            yield (*items[-1], image)

    def sample(self, plan: TrainingPlan) -> Iterable[Decoded]:
        """Unlabelled items that no discriminator of their own fold has trained on; or those to train on."""
        if not plan.config.fits_at_once:
            return unlabelled_images(self.pool, plan.deal, MOST_FITTED)
        everything = unlabelled_images(self.pool._replace(held_out=0.0), plan.deal, MOST_FITTED)
        return (image for image in everything if not self.pool.is_held_out(*image[:2]))

    def blocks(self, images: Iterable[Decoded]) -> Iterator[tuple[Tensor, Images]]:
        """The network's input of a block of items, and these."""
        left = iter(images)
        while part := list(islice(left, BATCH)):
            block = to_images(self.pool, part)
            yield self.see(block.seen_N), block


def reader_of(plan: TrainingPlan, loaded: LoadedTask, front: Front) -> Reader:
    """How the user's task learner sees items."""

    def see(pixels_N: NDArray[Any]) -> Tensor:
        return loaded.preprocessing(torch.from_numpy(np.ascontiguousarray(pixels_N)).to(front.device))

    return Reader(plan.pool._replace(sight=plan.pool.sight.of_task), see)


def describe(plan: TrainingPlan, reader: Reader, task: Task) -> Described:
    """What acquisition functions are fitted to: features of the task learner in eval mode."""
    items = list[tuple[str, str]]()
    (feature_LF, fold_L, group_L), (feature_RF, *_) = (
        _features(reader, task, images) for images in (reader.labelled(plan, items), reader.sample(plan))
    )
    trains_L = torch.tensor([not plan.pool.is_held_out(*item) for item in items], dtype=torch.bool)
    labels = [plan.labels[item] for item, trains in zip(items, trains_L.tolist(), strict=True) if trains]
    group_L = None if group_L is None else group_L[trains_L]
    cached = Cached(feature_LF[trains_L], fold_L[trains_L], group_L)
    return Described(cached.x_ND, labels, cached, feature_RF, plan.images_per_epoch)


def _features(reader: Reader, task: Task, images: Iterable[Decoded]) -> tuple[Tensor, Tensor, Tensor | None]:
    """The features of items (N, F), their folds (N,), and the numbers of their groups, where there are some (N,)."""
    features, folds, groups = list[Tensor](), list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for x_B, block in reader.blocks(images):
        features.append(pooled(task.features(x_B)).float().cpu())
        folds.append(block.fold_N)
        groups += [] if block.group_N is None else [block.group_N]
    if not features:
        return torch.empty(0, 0), torch.empty(0, dtype=torch.int64), None
    group_N = torch.from_numpy(np.concatenate(groups)) if groups else None
    return torch.cat(features), torch.from_numpy(np.concatenate(folds)), group_N


def projection_of(plan: TrainingPlan, reader: Reader, task: Task | None) -> Projection:
    """What makes latents of the task learner's features, or without one of pixels."""
    sight = reader.pool.sight
    x_1 = reader.see(np.zeros((1, *sight.shape), sight.dtype))
    found = pooled(task.features(x_1)) if task is not None else coarse(x_1)
    return Projection.of(found.shape[1], plan.config.train.seed).to(x_1.device)
