"""Contrastive active learning against scikit-activeml, and against its definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import ContrastiveAL
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from torch import Tensor

from tests.views import images, reference_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import neighbours
from vaal.acquisition.contrastive import contrastive, fit_contrastive
from vaal.acquisition.summary import Summary
from vaal.acquisition.view import DEFAULTS, Settings
from vaal.assembly import Networks
from vaal.linear_head import fit_linear_head
from vaal.task.model import Task


class _Learner(ClassifierMixin, BaseEstimator):
    """The task learner as scikit-learn has them."""

    def __init__(self, task: Task | None = None) -> None:
        self.task = task

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_Learner":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        assert self.task is not None
        return self.task(torch.from_numpy(X).float()).softmax(dim=1).double().numpy()


def scored(task: Task, labelled: Tensor, x: Tensor, settings: Settings = DEFAULTS) -> Tensor:
    reference = reference_of(task, labelled, labelled[:2], settings)
    networks = Networks(task=task, summaries={"contrastive": Summary(fit_contrastive(reference))})
    return contrastive(view_of(networks, x, settings))


def test_it_is_that_of_scikit_activeml() -> None:
    x, y = load_digits(return_X_y=True)
    # Whole numbers have many equal distances.
    x = (x + np.random.default_rng(0).normal(size=x.shape)).astype(np.float32) / 16
    head = fit_linear_head(torch.from_numpy(x[:200]), torch.from_numpy(y[:200]), 10, 0).head
    task = Task(head, unit_C=(1.0,)).eval().requires_grad_(False)
    answers = np.where(np.arange(600) < 200, y[:600], np.nan)
    learner = SklearnClassifier(_Learner(task), classes=range(10))
    # The authors clip probabilities; ours are logarithms.
    query = ContrastiveAL(nearest_neighbors_dict={"n_neighbors": 10}, eps=1e-30, random_state=0)
    _, utility = query.query(x[:600].astype(np.float64), answers, learner, return_utilities=True)
    found = scored(task, torch.from_numpy(x[:200]), torch.from_numpy(x[200:600]))
    torch.testing.assert_close(found.double(), -torch.from_numpy(utility[0, 200:]), rtol=1e-3, atol=1e-5)


def test_labels_and_maps_by_definition() -> None:
    labelled, x = images(30), images(4, seed=5)
    for kind in ("labels", "segmentation"):
        task = task_of(kind)  # type: ignore[arg-type]
        features, logits = (
            [part.flatten(2).mean(dim=2) if part.ndim > 2 else part for part in (task.features(y), task(y))]
            for y in (labelled, x)
        )
        near = torch.cdist(logits[0], features[0]).argsort(dim=1)[:, :10]
        for item, score in enumerate(scored(task, labelled, x)):
            new, old = logits[1][item], features[1][near[item]]
            if kind == "labels":
                p, q = (
                    torch.stack([new.sigmoid(), 1 - new.sigmoid()]),
                    torch.stack([old.sigmoid(), 1 - old.sigmoid()], 1),
                )
                expected = F.kl_div(p.log().expand_as(q), q, reduction="none").sum(dim=1).mean()
            else:
                q = old.softmax(dim=1)
                expected = F.kl_div(new.log_softmax(0).expand_as(q), q, reduction="batchmean")
            torch.testing.assert_close(score, -expected, rtol=1e-4, atol=1e-6)


def test_few_labelled_items_are_all_neighbours_and_many_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    task = vector_task()
    x = vectors(5, seed=3)
    p = task(vectors(3)).log_softmax(dim=1)
    expected = (p.exp() * (p - task(x).log_softmax(dim=1)[:, None])).sum(dim=2).mean(dim=1)
    torch.testing.assert_close(scored(task, vectors(3), x), -expected)
    monkeypatch.setattr(neighbours, "MOST_LABELLED", 4)
    found = [fit_contrastive(reference_of(task, vectors(30), x, Settings(seed))) for seed in (0, 0, 1)]
    assert found[0]["logit_LC"].shape == (4, 4)
    assert torch.equal(found[0]["moved_ND"], found[1]["moved_ND"])
    assert not torch.equal(found[0]["moved_ND"], found[2]["moved_ND"])
    # A logit stays with its features.
    torch.testing.assert_close(task.head(found[0]["moved_ND"] + found[0]["middle_D"]), found[0]["logit_LC"])
