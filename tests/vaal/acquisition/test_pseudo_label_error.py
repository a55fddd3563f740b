"""Errors of pseudo-labels: as frequent as they are on labels that nobody fitted to."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.views import FOLDS, images, reference_of, task_of, view_of
from vaal.acquisition.pseudo_label_error import fit_confusion, log_odds, pseudo_label_error
from vaal.acquisition.reference import Reference
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import Inputs, Settings, View
from vaal.assembly import Networks
from vaal.linear_head import fit_linear_head
from vaal.task.model import Task

CLASSES, LENGTH = 4, 8


def items(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four classes around their means. Nine in ten of class 3 lie where class 2 does: labels of class 2 are often
    wrong, whatever the confidence, which mostly sees one cloud."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (count,), generator=generator)
    place = torch.where((label == 3) & (torch.rand(count, generator=generator) < 0.45), 2, label)
    return torch.eye(LENGTH)[place] * 4 + torch.randn(count, LENGTH, generator=generator), label


def fitted(count: int) -> tuple[Task, Reference]:
    x, label = items(count, 0)
    fold = torch.arange(count) % FOLDS
    task = Task(fit_linear_head(x, label, CLASSES, 0, fold).head, unit_C=(1.0,)).eval().requires_grad_(False)
    return task, Reference(task, x, task(x), fold, x, label, fold, x, count, Settings())


def wrong(task: Task, summary: dict[str, Tensor], x: Tensor) -> Tensor:
    networks = Networks(task=task, summaries={"pseudo_label_error": Summary(summary)})
    return -pseudo_label_error(View(networks, Inputs(x, torch.zeros(len(x)))))


@pytest.mark.heavy
def test_it_is_as_frequent_as_errors_are_for_each_label() -> None:
    task, reference = fitted(3000)
    x, label = items(20_000, 1)
    found, predicted = wrong(task, fit_confusion(reference), x), task(x).argmax(dim=1)
    is_wrong = (predicted != label).float()
    for number in range(CLASSES):
        mask = predicted == number
        assert abs(float(found[mask].mean() - is_wrong[mask].mean())) < 0.025
    # Surer than the confidence alone, in nats.
    alone = 1 - task(x).softmax(dim=1).amax(dim=1)
    loss, loss_alone = (F.binary_cross_entropy(part, is_wrong) for part in (found, alone))
    assert float(loss) < float(loss_alone) - 0.001


def test_a_label_that_is_often_wrong_is_worth_more_at_the_same_confidence() -> None:
    """Class 1 is right as often as its confidence says; of class 0 every second label is wrong."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(900, LENGTH)
    label = torch.arange(900) % 3
    x[torch.arange(900), label] = 3
    x += torch.randn(900, LENGTH, generator=generator) * 0.7
    answer = torch.where((label == 0) & (torch.rand(900, generator=generator) < 0.5), 2, label)
    fold = torch.arange(900) // 3 % FOLDS
    task = Task(fit_linear_head(x, label, 4, 0, fold).head, unit_C=(1.0,)).eval().requires_grad_(False)
    found = fit_confusion(Reference(task, x, task(x), fold, x, answer, fold, x, 900, Settings()))
    assert found["slope"] > 0
    assert float(found["offset_C"][1] - found["offset_C"][0]) > 0.3
    # A class that nothing is taken for has what the classes share.
    assert float(found["offset_C"].min()) < float(found["offset_C"][3]) < -0.1
    same = torch.tensor([[5.0, 0, 0], [0, 5.0, 0]]).log_softmax(dim=1)
    odds, predicted = log_odds(same[:, :, None])
    probability = torch.sigmoid(-(found["slope"] * odds + found["offset_C"][predicted]))
    assert float(probability[0, 0]) > float(probability[1, 0])


@pytest.mark.parametrize("folds", [1, 2])
def test_without_two_folds_or_classes_it_is_one_less_the_confidence(folds: int) -> None:
    task, reference = fitted(60)
    reference = reference._replace(part_fold_N=reference.part_fold_N % folds)
    if folds == 2:
        reference = reference._replace(answer_N=torch.zeros_like(reference.answer_N))
    x, _ = items(50, 1)
    expected = 1 - task(x).double().softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(wrong(task, fit_confusion(reference), x).double(), expected, rtol=1e-4, atol=1e-9)


def test_few_labels_change_little() -> None:
    _, reference = fitted(9)
    found = fit_confusion(reference)
    assert 0.7 < float(found["slope"]) < 1.3
    assert float(found["offset_C"].abs().max()) < 1.0


def test_folds_without_a_number_and_two_classes() -> None:
    _, reference = fitted(200)
    binary = reference._replace(answer_N=(reference.answer_N > 1).long(), logit_LC=reference.logit_LC[:, :2])
    found = [fit_confusion(binary._replace(part_fold_N=binary.part_fold_N * factor)) for factor in (1, 5)]
    assert found[0]["offset_C"].shape == (2,)
    torch.testing.assert_close(found[0]["offset_C"], found[1]["offset_C"], rtol=0, atol=0)


def test_pixels_are_reduced() -> None:
    task, x = task_of("segmentation"), images(4)
    summary = fit_confusion(reference_of(task, images(12, seed=4), images(3, seed=5)))
    networks = Networks(task=task, summaries={"pseudo_label_error": Summary(summary)})
    odds, predicted = log_odds(task(x).flatten(2).log_softmax(dim=1))
    each = -torch.sigmoid(-(summary["slope"] * odds + summary["offset_C"][predicted]))
    torch.testing.assert_close(pseudo_label_error(view_of(networks, x)), each.mean(dim=1))
    lowest = pseudo_label_error(view_of(networks, x, Settings(reduction="lowest")))
    torch.testing.assert_close(lowest, each.amin(dim=1))


def test_log_odds_are_exact_near_one() -> None:
    odds, predicted = log_odds(torch.tensor([[40.0, 0.0, 0.0]]).log_softmax(dim=1)[:, :, None])
    assert float(odds) == pytest.approx(40 - torch.tensor(2.0).log().item(), rel=1e-6)
    assert predicted.tolist() == [[0]]
