"""The task learner learns its labels, by its own equation and with its own optimizer."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from tests.updater import OptimizerUpdater
from vaal.task.classifier import Classifier, augmented
from vaal.task.kinds import Kind
from vaal.task.recipe import held_out, learning_rate, task_loss, task_step


def digits(number: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    bunch = load_digits()
    x = torch.tensor(bunch.images[:number], dtype=torch.float32)[:, None] / 8 - 1
    return F.interpolate(x, size=(size, size), mode="bilinear"), torch.tensor(bunch.target[:number])


@pytest.mark.heavy
def test_it_learns_32_digits_by_heart() -> None:
    torch.manual_seed(0)
    x, label = digits(32, 32)
    network = Classifier(32, 1, 10, width=8)
    task = OptimizerUpdater(network, torch.optim.Adam(network.parameters(), lr=3e-3))
    losses = [task_step(task, "classes", x, label).item() for _ in range(40)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.1
    assert (network(x).argmax(dim=1) == label).all()


def test_loss_is_the_negative_log_likelihood_of_the_labels() -> None:
    logits, label = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, -1.0]]), torch.tensor([1, 2])
    expected = (math.log(3) + math.log(math.exp(2) + 1 + math.exp(-1)) + 1) / 2
    assert task_loss("classes", logits, label).item() == pytest.approx(expected)


def test_a_step_is_gradient_descent_on_the_loss() -> None:
    torch.manual_seed(0)
    x, label = digits(6, 16)
    network = Classifier(16, 1, 10, width=8)
    expected = copy.deepcopy(network)
    loss = task_loss("classes", expected(x), label)
    gradients = torch.autograd.grad(loss, list(expected.parameters()))
    before = task_step(OptimizerUpdater(network, torch.optim.SGD(network.parameters(), lr=0.1)), "classes", x, label)
    assert not before.requires_grad
    torch.testing.assert_close(before, loss.detach())
    for moved, start, gradient in zip(network.parameters(), expected.parameters(), gradients, strict=True):
        torch.testing.assert_close(moved, start - 0.1 * gradient)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (17, 4), (100, 3)])
def test_an_image_has_the_same_logits_whatever_its_batch_mates(size: int, channels: int) -> None:
    torch.manual_seed(0)
    network = Classifier(size, channels, 7, width=8).train()
    x = torch.randn(3, channels, size, size)
    together = network(x)
    assert together.shape == (3, 7)
    torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.head(network.features(x)), together)


@pytest.mark.parametrize("flips", [True, False])
def test_an_augmented_image_is_moved_by_an_eighth_at_most_and_mirrored_if_at_all(flips: bool) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 16, 24, 3), np.uint8)
    found = augmented(pixels, rng, flips=flips)
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    wide = np.pad(pixels, ((0, 0), (2, 2), (3, 3), (0, 0)), "reflect")
    seen = set()
    for number, image in enumerate(found):
        crops = {
            (row, column): wide[number, row : row + 16, column : column + 24] for row in range(5) for column in range(7)
        }
        seen |= {(place, False) for place, crop in crops.items() if np.array_equal(image, crop)}
        seen |= {(place, True) for place, crop in crops.items() if np.array_equal(image, crop[:, ::-1])}
    # Every crop comes with odds of 1 in 35, or in 70 with flips: all are seen among 300.
    assert len(seen) > (60 if flips else 34)
    assert {mirrored for _, mirrored in seen} == ({True, False} if flips else {False})
    assert np.array_equal(augmented(pixels[:, :4, :4], rng, flips=False), pixels[:, :4, :4])


def test_several_labels_an_image_are_each_a_yes_or_no() -> None:
    logits, answer = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    p = logits.sigmoid()
    each = -(answer * p.log() + (1 - answer) * (1 - p).log())
    assert task_loss("labels", logits, answer).item() == pytest.approx(each.mean().item())
    target = answer * 0.8 + 0.1
    smooth = -(target * p.log() + (1 - target) * (1 - p).log())
    assert task_loss("labels", logits, answer, 0.2).item() == pytest.approx(smooth.mean().item())


def test_smoothed_classes_share_a_part_of_the_target() -> None:
    logits, label = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    target = torch.tensor([[0.9, 0.0, 0.0]]) + 0.1 / 3
    expected = -(target * logits.log_softmax(1)).sum().item()
    assert task_loss("classes", logits, label, 0.1).item() == pytest.approx(expected)


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [learning_rate(step, 200, 0.01) for step in range(200)]
    assert max(rates) == pytest.approx(0.01)
    top = rates.index(max(rates))
    assert top == 20 - 1 or top == 20
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[0] == pytest.approx(0.01 / 20)
    assert 0 < rates[-1] < 1e-5
    assert learning_rate(0, 1, 0.01) == 0.01


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_held_out_items_give_the_temperature_that_fits_their_labels(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(0)
    truth_NC = 1.5 * torch.randn(20_000, 4, generator=generator)
    if kind == "labels":
        answer = (torch.rand(truth_NC.shape, generator=generator) < truth_NC.sigmoid()).float()
        expected = F.binary_cross_entropy_with_logits(truth_NC, answer)
        right = ((truth_NC > 0) == (answer > 0)).double().mean()
    else:
        answer = torch.multinomial(truth_NC.softmax(1), 1, generator=generator)[:, 0]
        expected = F.cross_entropy(truth_NC, answer)
        right = (truth_NC.argmax(1) == answer).double().mean()
    found = held_out(kind, 4 * truth_NC, answer)
    assert found.factor == pytest.approx(1 / 4, rel=0.05)
    assert found.loss == pytest.approx(expected.item(), rel=0.01)
    assert found.accuracy == pytest.approx(right.item())
    # Labels that were picked for uncertainty are left out of the temperature, and count otherwise.
    is_odd_N = torch.arange(len(truth_NC)) % 2 == 1
    mixed_NC = torch.where(is_odd_N[:, None], 4 * truth_NC, 0.7 * truth_NC)
    by_odd = held_out(kind, mixed_NC, answer, is_odd_N)
    assert by_odd.factor == pytest.approx(1 / 4, rel=0.05)
    assert by_odd.accuracy == found.accuracy
    with pytest.raises(ValueError, match="no item is held out"):
        held_out(kind, truth_NC[:0], answer[:0])
