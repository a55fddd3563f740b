"""Masks: their loss, predictions at their own size, and mIoU, against definitions; and the network that learns them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, jaccard_score

from tests.updater import OptimizerUpdater
from vaal.task.kinds import VOID
from vaal.task.recipe import task_loss, task_step
from vaal.task.segmentation import class_ious, classes_at, confusion, logits_at, mask_loss, mean_iou
from vaal.task.unet import UNet


def masks(count: int, height: int, width: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(0, num_classes, (count, height, width), generator=generator)
    found[torch.rand(found.shape, generator=generator) < 0.2] = VOID
    return found


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_valid_pixels_over_all(smoothing: float) -> None:
    logit, mask = noise(3, 4, 5, 5), masks(3, 10, 10, 4)
    wide = F.interpolate(logit, size=(10, 10), mode="bilinear", align_corners=False).log_softmax(1)
    expected = 0.0
    for image, row, column in np.argwhere(mask.numpy() != VOID).tolist():
        log_p = wide[image, :, row, column]
        expected -= float((1 - smoothing) * log_p[mask[image, row, column]] + smoothing * log_p.mean())
    assert task_loss("segmentation", logit, mask, smoothing).item() == pytest.approx(expected / 300)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts_and_void_adds_nothing() -> None:
    logit, mask = noise(4, 3, 4, 4).requires_grad_(), masks(4, 8, 8, 3)
    mask[1] = VOID
    each = [mask_loss(logit[n : n + 1], mask[n : n + 1]) for n in range(4)]
    torch.testing.assert_close(mask_loss(logit, mask), torch.stack(each).mean())
    assert each[1] == 0
    (gradient,) = torch.autograd.grad(each[1], [logit])
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("size", [(8, 8), (20, 13), (3, 2)])
def test_logits_at_pixels_and_classes_are_those_of_the_resized_map(size: tuple[int, int]) -> None:
    logit = noise(2, 5, 8, 8)
    wide = F.interpolate(logit, size=size, mode="bilinear", align_corners=False)
    place = torch.randint(0, size[0] * size[1], (2, 30), generator=torch.Generator().manual_seed(0))
    expected = torch.stack([wide[n].flatten(1)[:, place[n]].T for n in range(2)])
    torch.testing.assert_close(logits_at(logit, place, *size), expected)
    assert torch.equal(classes_at(logit[0], *size), wide[0].argmax(dim=0))


def test_miou_is_scikit_learns_over_all_images_and_absent_classes_have_none() -> None:
    truth, found = masks(6, 9, 7, 4), masks(6, 9, 7, 5, seed=2).clamp_max(5)
    found[found == 5] = 0
    count = sum(confusion(found[n].flatten(), truth[n].flatten(), 6) for n in range(6))
    assert isinstance(count, torch.Tensor)
    is_valid = (truth != VOID).numpy()
    flat = truth.numpy()[is_valid], found.numpy()[is_valid]
    assert count.dtype == torch.int64
    assert np.array_equal(count.numpy(), confusion_matrix(*flat, labels=range(6)))
    expected = jaccard_score(*flat, average=None, labels=range(4))
    # Class 4 is predicted and in no mask, class 5 is nowhere.
    assert count[:, 4].sum() > 0
    assert class_ious(count)[:4] == pytest.approx(list(expected))
    assert class_ious(count)[4:] == [None, None]
    assert mean_iou(count) == pytest.approx(expected.mean())
    assert mean_iou(torch.zeros(3, 3, dtype=torch.int64)) is None


@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((17, 50), 1), ((16, 16), 4)])
def test_a_map_of_logits_has_half_of_the_sides_and_knows_no_batch_mates(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    network = UNet(channels, 7, width=8)
    x = torch.randn(3, channels, *size)
    together = network(x)
    assert together.shape == (3, 7, -(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.head(network.features(x)), together)


def test_the_default_network_is_small() -> None:
    count = sum(value.numel() for value in UNet(3, 11).parameters())
    assert 0.5e6 < count < 2e6


@pytest.mark.heavy
def test_it_learns_shapes_by_heart() -> None:
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    mask = torch.stack([((row - 16) ** 2 + (column - 8 - 4 * n) ** 2 < 60).long() for n in range(4)])
    mask[:, :2] = VOID
    x = mask.clamp_max(1)[:, None].float() * 0.5 + 0.3 * torch.randn(4, 1, 32, 32)
    network = UNet(1, 2, width=8)
    task = OptimizerUpdater(network, torch.optim.Adam(network.parameters(), lr=3e-3))
    losses = [task_step(task, "segmentation", x, mask).item() for _ in range(60)]
    assert losses[-1] < 0.1 < losses[0]
    count = sum(confusion(classes_at(logit, 32, 32), one, 2) for logit, one in zip(network(x), mask, strict=True))
    assert (mean_iou(count) or 0) > 0.9
