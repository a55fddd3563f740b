"""A linear head for several labels an image: a regression for each, as for two classes."""

import pytest
import torch
from sklearn.datasets import load_digits

from vaal.linear_head import fit_label_head, fit_linear_head


@pytest.mark.heavy
def test_each_label_is_a_regression_of_two_classes() -> None:
    bunch = load_digits()
    x, number = torch.tensor(bunch.data[:400], dtype=torch.float32) / 16, torch.tensor(bunch.target[:400])
    answer = torch.stack([number % 2, (number > 4).long(), number % 3 == 0], dim=1).float()
    fold = torch.arange(400) % 4
    found = fit_label_head(x, answer, 0, fold)
    accuracies = []
    for label in range(3):
        alone = fit_linear_head(x, answer[:, label].long(), 2, 0, fold)
        logit = alone.head(x)
        torch.testing.assert_close(found.head(x)[:, label], logit[:, 1] - logit[:, 0], atol=2e-2, rtol=2e-2)
        accuracies.append(alone.held_out_accuracy or 0)
    assert found.held_out_accuracy == pytest.approx(sum(accuracies) / 3)
    assert min(accuracies) > 0.8


def test_a_label_that_nobody_has_is_unlikely_and_a_few_images_are_enough() -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = fit_label_head(x, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 0)
    assert found.held_out_accuracy is None
    assert (found.head(x)[:, 1] < 0).all()
