"""How networks on pixels are trained as task models: one row each, and what they see of an image in training.

Shape suffixes: B batch, S image side in pixels, C channels.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine.simulation.learners import STRONG
from vaal.task.kinds import VOID

CROP = 8
"""A crop moves the image by up to an eighth of its side."""
CUTOUT = 4
"""A cutout hides a square of a quarter of its side."""


class Recipe(NamedTuple):
    """Updates, whatever the number of labels, of `batch` images; the peak learning rate and the weight decay.

    `schedule`: one cycle of the learning rate, or a tenth of it after each quarter. Every second image is mirrored;
    with `crops` it is moved too, and with `cutout` a square of it is hidden. `smoothing` is the labels' share that is
    spread over the classes.
    """

    optimizer: Literal["adamw", "sgd", "nesterov"]
    learning_rate: float
    weight_decay: float
    batch: int
    steps: int
    schedule: Literal["one_cycle", "quarters"]
    crops: bool = False
    cutout: bool = False
    smoothing: float = 0.0


RECIPES = {
    "small": Recipe("adamw", 1e-2, 0.05, 64, 300, "one_cycle", crops=True),
    # The authors' code: 100 passes over 50,000 images, however many are labelled.
    "paper": Recipe("sgd", 0.01, 5e-4, 128, 39_062, "quarters"),
    "masks": Recipe("adamw", 3e-3, 0.05, 8, 500, "one_cycle", crops=True),
    # 50 passes over the 2,975 images of Cityscapes; the rest is as for classes, for the paper's is not known.
    "paper_masks": Recipe("sgd", 0.01, 5e-4, 8, 18_593, "quarters"),
    STRONG: Recipe("nesterov", 0.1, 5e-4, 128, 39_062, "one_cycle", crops=True, cutout=True, smoothing=0.1),
    f"{STRONG}_masks": Recipe("adamw", 3e-3, 0.05, 8, 18_593, "one_cycle", crops=True, smoothing=0.1),
}


def optimizer_of(
    recipe: Recipe, parameters: Iterable[nn.Parameter], steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer, and the schedule of its learning rate over so many updates."""
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    else:
        is_nesterov = recipe.optimizer == "nesterov"
        optimizer = torch.optim.SGD(
            parameters, recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=is_nesterov
        )
    if recipe.schedule == "one_cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    quarters = [steps * part // 4 for part in (1, 2, 3)]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, quarters, gamma=0.1)


class Moves(NamedTuple):
    """Where each pixel of a batch comes from: rows and columns (B, S) of images that are padded by `most` pixels, and
    what is hidden (B, S, S) bool, None without."""

    most: int
    row_BS: Tensor
    column_BS: Tensor
    is_hidden_BSS: Tensor | None

    @classmethod
    def drawn(cls, recipe: Recipe, count: int, side: int, generator: torch.Generator) -> "Moves":
        """For so many images of this side."""
        most = side // CROP if recipe.crops else 0
        shift_B2 = torch.randint(2 * most + 1, (count, 2), generator=generator)
        flip_B = torch.rand(count, generator=generator) < 0.5
        row_BS = shift_B2[:, :1] + torch.arange(side)
        column_BS = shift_B2[:, 1:] + torch.arange(side)
        column_BS = torch.where(flip_B[:, None], column_BS.flip(1), column_BS)
        if not recipe.cutout:
            return cls(most, row_BS, column_BS, None)
        middle_B2 = torch.randint(side, (count, 2), generator=generator)
        at_S, hidden = torch.arange(side), side // CUTOUT
        # Of an even number of pixels one more lies before the middle than behind it.
        from_first_B2S = at_S - middle_B2[:, :, None] + hidden // 2
        is_near_B2S = (from_first_B2S >= 0) & (from_first_B2S < hidden)
        return cls(most, row_BS, column_BS, is_near_B2S[:, 0, :, None] & is_near_B2S[:, 1, None, :])

    def images(self, pixel_BSSC: NDArray[np.uint8]) -> Tensor:
        """The images (B, C, S, S) from -1 to 1; what is hidden or was outside is 0."""
        x_BCSS = functional.pad(scaled(pixel_BSSC), (self.most,) * 4)
        image_B = torch.arange(len(x_BCSS))[:, None, None]
        # The indices come first: (B, S, S, C).
        x_BSSC = x_BCSS.permute(0, 2, 3, 1)[image_B, self.row_BS[:, :, None], self.column_BS[:, None, :]]
        x_BCSS = x_BSSC.permute(0, 3, 1, 2)
        return x_BCSS if self.is_hidden_BSS is None else x_BCSS.masked_fill(self.is_hidden_BSS[:, None], 0.0)

    def masks(self, class_BSS: NDArray[np.uint8]) -> Tensor:
        """The masks (B, S, S) int64, moved as their images; void where was nothing."""
        mask_BSS = functional.pad(torch.from_numpy(class_BSS).long(), (self.most,) * 4, value=VOID)
        image_B = torch.arange(len(mask_BSS))[:, None, None]
        return mask_BSS[image_B, self.row_BS[:, :, None], self.column_BS[:, None, :]]


def scaled(pixel_BSSC: NDArray[np.uint8]) -> Tensor:
    """Images (B, C, S, S) from -1 to 1."""
    return torch.from_numpy(pixel_BSSC).permute(0, 3, 1, 2).float() / 127.5 - 1
