"""The look-ahead against the variances before and after a label, in full."""

import torch
from torch import Tensor

from tests.views import images, reference_of, task_of, vector_task, vectors, view_of
from vaal.acquisition.look_ahead import PENALTY, expected_error_reduction, fit_look_ahead
from vaal.acquisition.reference import Reference
from vaal.acquisition.summary import Summary
from vaal.assembly import Networks
from vaal.task.model import Task


def drops(reference: Reference, feature_BD: Tensor) -> Tensor:
    """By how much the mean variance of the predictions for the sample falls with each item, float64."""
    middle = reference.feature_RD.double().mean(dim=0)
    scale = (reference.feature_RD.double() - middle).square().mean().sqrt()

    def with_one(feature: Tensor) -> Tensor:
        moved = (feature.double() - middle) / scale
        return torch.cat([moved, torch.ones_like(moved[:, :1])], dim=1)

    labelled, pool, items = (with_one(f) for f in (reference.feature_LD, reference.feature_RD, feature_BD))

    def mean_variance(labelled: Tensor) -> Tensor:
        precision = PENALTY * torch.eye(labelled.shape[1]) + labelled.T @ labelled
        return (pool * torch.linalg.solve(precision.double(), pool.T).T).sum(dim=1).mean()

    before = mean_variance(labelled)
    return torch.stack([before - mean_variance(torch.cat([labelled, item[None]])) for item in items])


def scored(task: Task, reference: Reference, x: Tensor) -> Tensor:
    networks = Networks(task=task, summaries={"expected_error_reduction": Summary(fit_look_ahead(reference))})
    return expected_error_reduction(view_of(networks, x))


def test_it_is_the_drop_of_the_mean_variance() -> None:
    task, x = vector_task(), vectors(9, seed=5) * torch.tensor([3.0, 1, 1, 0.1, 1, 0.01]) + 2
    reference = reference_of(task, x[:4] * 1.3, vectors(50, seed=6) * 2 + 1)
    found = scored(task, reference, x)
    torch.testing.assert_close(found.double(), -drops(reference, x), rtol=1e-4, atol=1e-7)
    assert (found < 0).all()


def test_maps_have_their_mean_features() -> None:
    task = task_of("segmentation")
    reference = reference_of(task, images(6), images(30, seed=2))
    x = images(5, seed=3)
    expected = -drops(reference, task.features(x).mean(dim=(2, 3)))
    torch.testing.assert_close(scored(task, reference, x).double(), expected, rtol=1e-4, atol=1e-7)


def test_neither_the_scale_nor_the_origin_of_the_features_matters() -> None:
    task, labelled, pool, x = vector_task(), vectors(4, seed=5), vectors(50, seed=6), vectors(9, seed=7)
    found = scored(task, reference_of(task, labelled, pool), x)
    moved = [50 * part - 30 for part in (labelled, pool, x)]
    torch.testing.assert_close(scored(task, reference_of(task, *moved[:2]), moved[2]), found, rtol=1e-3, atol=1e-6)


def test_a_pool_whose_features_are_all_equal_has_a_score() -> None:
    task, same = vector_task(), torch.ones(5, 6)
    assert torch.isfinite(scored(task, reference_of(task, vectors(4), same), vectors(3, seed=1))).all()
