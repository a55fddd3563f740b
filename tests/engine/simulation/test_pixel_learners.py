"""Task models on pixels: every network learns by its recipes, and what is moved stays together."""

import numpy as np
import pytest
import torch

from engine.simulation.learners import LEARNERS, learner_of
from engine.simulation.pixel_learners import Training, classes_by, confusion_by, trained
from engine.simulation.recipes import RECIPES, Moves, optimizer_of
from vaal.task.kinds import VOID
from vaal.task.segmentation import mean_iou

NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow if name == "vgg16_bn" else ())
    for name, row in LEARNERS.items()
    if row.recipe
]


def halves(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose left and right halves are dark and bright, or the other way round; the classes of their pixels."""
    rng = np.random.default_rng(0)
    mask = np.zeros((count, side, side), np.uint8)
    mask[::2, :, side // 2 :] = 1
    mask[1::2, :, : side // 2] = 1
    pixels = 60 + 120 * mask[..., None] + rng.integers(0, 40, (count, side, side, 3))
    return pixels.astype(np.uint8), mask


@pytest.mark.heavy
@pytest.mark.parametrize("task", [*NETWORKS, "small+strong", "unet+strong"])
def test_every_network_is_trained_and_asked(task: str) -> None:
    pixels, masks = halves(4, 32)
    training = Training(task, 2, seed=0, steps=1)
    with pytest.MonkeyPatch.context() as patch:
        small = RECIPES[learner_of(task).recipe]._replace(batch=2)
        patch.setitem(RECIPES, learner_of(task).recipe, small)
        if learner_of(task).sees == "masks":
            network = trained(pixels, masks, training)
            counts = confusion_by(network, pixels, list(masks), 2, "cpu")
            assert int(counts.sum()) == masks.size
        else:
            network = trained(pixels, np.arange(4) % 2, training)
            assert classes_by(network, pixels, "cpu").shape == (4,)
    assert not network.training


@pytest.mark.heavy
def test_masks_are_learned() -> None:
    pixels, masks = halves(8, 32)
    network = trained(pixels, masks, Training("unet", 2, seed=0, steps=12))
    assert (mean_iou(confusion_by(network, pixels, list(masks), 2, "cpu")) or 0) > 0.8


def test_a_mask_moves_with_its_image_and_what_was_outside_is_void() -> None:
    recipe = RECIPES["strong"]._replace(cutout=False)
    pixels, masks = halves(16, 16)
    moves = Moves.drawn(recipe, 16, 16, torch.Generator().manual_seed(0))
    images, moved = moves.images(pixels), moves.masks(masks)
    is_known = moved != VOID
    assert not is_known.all()
    assert (images[:, 0][~is_known] == 0).all()
    # Bright is above the middle of grey, dark below.
    assert ((images[:, 0] > 0) == (moved == 1))[is_known].all()


def test_a_cutout_hides_a_square_and_recipes_have_their_schedules() -> None:
    pixels = np.full((64, 16, 16, 3), 255, np.uint8)
    moves = Moves.drawn(RECIPES["strong"]._replace(crops=False), 64, 16, torch.Generator().manual_seed(0))
    hidden = (moves.images(pixels) == 0).sum(dim=(1, 2, 3))
    assert int(hidden.min()) > 0
    # A quarter of the side, where it is within the image.
    assert int(hidden.max()) == 3 * 4 * 4
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, schedule = optimizer_of(RECIPES["paper"], [weight], 8)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
