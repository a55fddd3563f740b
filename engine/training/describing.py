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
from engine.models.summaries import Described, Parts
from engine.models.task_models import LoadedTask
from engine.pool.mask_source import resized
from engine.training.batches import to_images, unlabelled_images
from engine.training.labelled import Decoded, Images, decoded
from engine.training.masked import MaskReader, pixels_of_each, places_of
from engine.training.plan import TrainingPlan
from engine.training.streams import Pool
from vaal.refit import Cached
from vaal.task.kinds import VOID
from vaal.task.model import Task
from vaal.task.projection import Projection, coarse, pooled

BATCH, MAPS_AT_ONCE = 256, 32
MOST_PARTS, MOST_PARTS_OF_ONE = 20_000, 64
"""About so many pixels of all labelled masks, and of one mask, are what heads are fitted to."""


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
    labelled, pool = (_read(reader, task, images) for images in (reader.labelled(plan, items), reader.sample(plan)))
    trains_L = torch.tensor([not plan.pool.is_held_out(*item) for item in items], dtype=torch.bool)
    trained = [item for item, trains in zip(items, trains_L.tolist(), strict=True) if trains]
    group_L = None if labelled.group_N is None else labelled.group_N[trains_L]
    cached = Cached(labelled.feature_NF[trains_L], labelled.fold_N[trains_L], group_L)
    labels = [plan.labels[item] for item in trained]
    found = Described(cached.x_ND, labels, cached, pool.feature_NF, plan.images_per_epoch)
    if plan.masks is None:
        return found
    return found._replace(logit_LC=labelled.logit_NC[trains_L], parts=_parts(plan, reader, task, trained))


class _Read(NamedTuple):
    """The features of N items (N, F), of maps their mean; their folds (N,); the numbers of their groups (N,), where
    there are some; and their logits (N, C), of maps their mean."""

    feature_NF: Tensor
    fold_N: Tensor
    group_N: Tensor | None
    logit_NC: Tensor


def _read(reader: Reader, task: Task, images: Iterable[Decoded]) -> _Read:
    parts = list[list[Tensor]]()
    for x_B, (_, fold_B, group_B) in reader.blocks(images):
        features = task.features(x_B)
        numbers = [torch.from_numpy(values) for values in (fold_B, group_B) if values is not None]
        parts.append([pooled(features).float().cpu(), pooled(task.head(features)).cpu(), *numbers])
    if not parts:
        return _Read(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), None, torch.empty(0, 0))
    feature_NF, logit_NC, fold_N, *groups = (torch.cat(values) for values in zip(*parts, strict=True))
    return _Read(feature_NF, fold_N, groups[0] if groups else None, logit_NC)


def _parts(plan: TrainingPlan, reader: Reader, task: Task, items: list[tuple[str, str]]) -> Parts:
    """A sample of the places of these labelled items' maps, with the class that the mask has at the middle of each;
    without void."""
    assert plan.masks is not None
    numbers = {item: number for number, item in enumerate(items)}
    positions = [position for position in plan.positions if position[:2] in numbers]
    each = min(MOST_PARTS_OF_ONE, pixels_of_each(MOST_PARTS, len(items)))
    images = MaskReader(reader.pool, plan.masks, plan.labels, {}).read(positions)
    found = list[tuple[Tensor, Tensor, Tensor]]()
    while part := list(islice(images, MAPS_AT_ONCE)):
        map_BDhw = task.features(reader.see(np.stack([image.pixels for image in part]))).float().cpu()
        height, width = map_BDhw.shape[2:]
        for image, map_Dhw in zip(part, map_BDhw, strict=True):
            number = numbers[positions[image.number][:2]]
            place_P = torch.from_numpy(places_of(number, height * width, each))
            answer_P = torch.from_numpy(resized(image.mask_HW, height, width)).flatten()[place_P].long()
            place_P, answer_P = place_P[answer_P != VOID], answer_P[answer_P != VOID]
            found.append((map_Dhw.flatten(1)[:, place_P].T, answer_P, torch.full_like(answer_P, number)))
    return Parts(*(torch.cat(values) for values in zip(*found, strict=True)))


def projection_of(plan: TrainingPlan, reader: Reader, task: Task | None) -> Projection:
    """What makes latents of the task learner's features, or without one of pixels."""
    sight = reader.pool.sight
    x_1 = reader.see(np.zeros((1, *sight.shape), sight.dtype))
    found = pooled(task.features(x_1)) if task is not None else coarse(x_1)
    return Projection.of(found.shape[1], plan.config.train.seed).to(x_1.device)
