"""Neighbours against all distances in float64, and the scores against scikit-activeml."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skactiveml.pool import CoreSet
from skactiveml.pool._typi_clust import _typicality
from sklearn.datasets import load_digits
from torch import Tensor

from tests.views import images, reference_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import neighbours
from vaal.acquisition.neighbours import core_set, fit_core_set, fit_typicality, fixed, kept, nearest, typicality
from vaal.acquisition.summary import Summary
from vaal.assembly import Networks
from vaal.linear_head import LinearHead
from vaal.task.model import Task


def task_on(length: int) -> Task:
    return Task(LinearHead(length, 2), unit_C=(1.0,)).eval().requires_grad_(False)


def digits(count: int) -> Tensor:
    return torch.from_numpy(load_digits().data[:count].astype(np.float32))


def typicalities(sample: Tensor, x: Tensor) -> Tensor:
    task = task_on(x.shape[1])
    summary = Summary(fit_typicality(reference_of(task, sample[:2], sample)))
    return typicality(view_of(Networks(task=task, summaries={"typicality": summary}), x))


def core_sets(labelled: Tensor, x: Tensor) -> Tensor:
    task = task_on(x.shape[1])
    summary = Summary(fit_core_set(reference_of(task, labelled, labelled[:2])))
    return core_set(view_of(Networks(task=task, summaries={"core_set": summary}), x))


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_the_nearest_are_found_in_any_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ITEMS", block)
    x, items = vectors(11), vectors(64, seed=1) + 3
    distance, number = nearest(x, fixed(items), 5)
    expected = torch.cdist(x.double(), items.double()).topk(5, dim=1, largest=False)
    torch.testing.assert_close(distance.double(), expected.values, rtol=1e-5, atol=0)
    assert torch.equal(number, expected.indices)


def test_near_duplicates_have_a_distance() -> None:
    items = vectors(50) * 0.5 + 100
    x = items[:4] + torch.tensor([[1e-3], [3e-4], [2e-3], [1e-4]])
    distance, number = nearest(x, fixed(items), 1)
    torch.testing.assert_close(
        distance[:, 0].double(), (x.double() - items[:4].double()).norm(dim=1), rtol=0.02, atol=0
    )
    assert number[:, 0].tolist() == [0, 1, 2, 3]


def test_fewer_items_than_neighbours_and_none() -> None:
    distance, number = nearest(vectors(3), fixed(vectors(2, seed=1)), 5)
    assert distance.shape == number.shape == (3, 2)
    with pytest.raises(ValueError, match="no item"):
        fixed(vectors(0))


def test_core_set_is_the_first_choice_of_scikit_activeml() -> None:
    x = digits(500)
    answers = np.where(np.arange(500) < 60, 0.0, np.nan)
    _, utility = CoreSet(random_state=0).query(x.double().numpy(), answers, return_utilities=True)
    found = core_sets(x[:60], x[60:])
    torch.testing.assert_close(found.double(), -torch.from_numpy(utility[0, 60:]), rtol=1e-5, atol=0)


def test_typicality_is_that_of_scikit_activeml_without_the_item_itself() -> None:
    """All items are of the sample: there is one at distance 0, which is the item."""
    x = digits(300)
    expected = _typicality(F.normalize(x).double().numpy(), np.arange(300), neighbours.NEIGHBOURS)
    torch.testing.assert_close(typicalities(x, x).double(), -torch.from_numpy(expected), rtol=1e-3, atol=0)


def test_an_item_that_the_sample_does_not_hold_keeps_its_nearest() -> None:
    x, sample = F.normalize(digits(10)), F.normalize(digits(300)[10:])
    mean = torch.cdist(x.double(), sample.double()).topk(20, dim=1, largest=False).values.mean(dim=1)
    torch.testing.assert_close(typicalities(sample, x).double(), -1 / (mean + 1e-5), rtol=1e-4, atol=0)
    # The length of the features has no part in it.
    torch.testing.assert_close(typicalities(3 * sample, 5 * x).double(), -1 / (mean + 1e-5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [1, 2, 20, 21])
def test_small_samples_have_a_typicality(size: int) -> None:
    x = digits(30)
    assert torch.isfinite(typicalities(x[:size], x)).all()


def test_maps_are_compared_by_their_mean() -> None:
    task, labelled, x = task_of("segmentation"), images(9), images(4, seed=8)
    summary = Summary(fit_core_set(reference_of(task, labelled, labelled[:2])))
    found = core_set(view_of(Networks(task=task, summaries={"core_set": summary}), x))
    means = [task.features(y).mean(dim=(2, 3)) for y in (x, labelled)]
    torch.testing.assert_close(found, -torch.cdist(*means).amin(dim=1))


def test_at_most_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept(7, 0).tolist() == list(range(7))
    monkeypatch.setattr(neighbours, "MOST_LABELLED", 5)
    found = kept(1000, 0)
    assert len(found.unique()) == 5
    assert torch.equal(found, kept(1000, 0))
    assert not torch.equal(found, kept(1000, 1))
    assert vector_task().kind == "classes"
