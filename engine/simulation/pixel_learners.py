"""Task models on pixels: networks that are trained from nothing by a recipe, for a class an image or a class a pixel.

Shape suffixes: N labelled images, M images of the test set, S image side in pixels, C channels; K classes.
"""

import pkgutil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.simulation.learners import STRONG, learner_of
from engine.simulation.recipes import RECIPES, Moves, optimizer_of, scaled
from vaal.task.kinds import Kind
from vaal.task.recipe import task_loss
from vaal.task.segmentation import classes_at, confusion

TEST_BATCH = 250


class Training(NamedTuple):
    """What a network is trained by beside its labels: a row of `learners.LEARNERS`, maybe with a recipe; the number of
    classes; the seed of the initial weights and of all draws; updates, 0 for those of the recipe; the device."""

    task: str
    num_classes: int
    seed: int
    steps: int = 0
    device: str = "cpu"


def trained(
    pixel_NSSC: NDArray[np.uint8], answer: NDArray[np.int64] | NDArray[np.uint8], training: Training
) -> nn.Module:
    """A network in eval mode on its device.

    Initial weights depend on the seed, the images' size and channels, and the number of classes alone.

    Args:
        answer: classes (N,), or masks (N, S, S) of classes, 255 for void.
    """
    row, device = learner_of(training.task), torch.device(training.device)
    kind: Kind = "segmentation" if row.sees == "masks" else "classes"
    recipe = RECIPES["strong_masks" if row.recipe == STRONG and kind == "segmentation" else row.recipe]
    steps, generator = training.steps or recipe.steps, torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        side, channels = pixel_NSSC.shape[2:]
        network: nn.Module = pkgutil.resolve_name(row.function)(side, channels, training.num_classes)
    network = network.to(memory_format=torch.channels_last).to(device).train()
    optimizer, schedule = optimizer_of(recipe, network.parameters(), steps)
    with torch.random.fork_rng(devices=[]):
        # Layers of dropout draw from here.
        torch.manual_seed(training.seed)
        for _ in range(steps):
            place_B = torch.randint(len(answer), (recipe.batch,), generator=generator).numpy()
            moves = Moves.drawn(recipe, recipe.batch, side, generator)
            x_BCSS = moves.images(pixel_NSSC[place_B]).to(device)
            drawn = answer[place_B]
            target = moves.masks(drawn) if drawn.dtype == np.uint8 else torch.from_numpy(drawn)
            loss = task_loss(kind, network(x_BCSS), target.to(device), recipe.smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def classes_by(network: nn.Module, test_MSSC: NDArray[np.uint8], device: str) -> NDArray[np.int64]:
    """The class (M,) that a trained network gives to each image."""
    with torch.inference_mode():
        parts = [
            network(scaled(test_MSSC[place : place + TEST_BATCH]).to(device)).argmax(dim=1).cpu()
            for place in range(0, len(test_MSSC), TEST_BATCH)
        ]
    found: NDArray[np.int64] = torch.cat(parts).numpy()
    return found


def confusion_by(
    network: nn.Module, test_MSSC: NDArray[np.uint8], masks: list[NDArray[np.uint8]], num_classes: int, device: str
) -> torch.Tensor:
    """Counts of pixels (K, K) int64 of all images, as `vaal.task.segmentation.confusion`; each prediction is compared
    at the size of its mask."""
    count_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    with torch.inference_mode():
        for pixel_SSC, mask_HW in zip(test_MSSC, masks, strict=True):
            (logit_Khw,) = network(scaled(pixel_SSC[None]).to(device)).cpu()
            found_HW, true_HW = classes_at(logit_Khw, *mask_HW.shape), torch.from_numpy(mask_HW)
            count_KK += confusion(found_HW.flatten(), true_HW.flatten(), num_classes)
    return count_KK
