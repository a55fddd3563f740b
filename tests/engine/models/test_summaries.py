"""What acquisition functions are fitted to is built of real images, kept, and read again."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import VaalError
from engine.models.summaries import Described, fit_summaries, fitted_names, folds_of
from vaal.acquisition import ACQUISITIONS
from vaal.linear_head import LinearHead, fit_linear_head
from vaal.refit import Cached
from vaal.task.model import Task

FITTED = [name for name, row in ACQUISITIONS.items() if row.fit]


def config_of(**settings: Any) -> CampaignConfig:
    given = {"train.task": "classification", "score.acquisition": FITTED, "select.acquisition": FITTED[0]}
    return override(CampaignConfig(), {**given, **settings}, "test")


@pytest.fixture(scope="module")
def described() -> Described:
    """200 labelled digits in five folds, and 500 of the pool; features are the pixels."""
    bunch = load_digits()
    x, labels = torch.tensor(bunch.data, dtype=torch.float32) / 16, [str(number) for number in bunch.target]
    return Described(x[:200], labels[:200], Cached(x[:200], torch.arange(200) % 5), x[200:700], 5000)


@pytest.fixture(scope="module")
def task(described: Described) -> Task:
    answer = torch.tensor([int(label) for label in described.labels])
    return Task(fit_linear_head(described.feature_LD, answer, 10, 0).head, unit_C=(1.0,)).eval()


CLASSES = [str(number) for number in range(10)]


@pytest.mark.heavy
def test_every_function_that_is_fitted_keeps_its_own_the_same_each_time(described: Described, task: Task) -> None:
    config = config_of()
    found = fit_summaries(config, task, CLASSES, described)
    assert set(found) == set(fitted_names(config)) >= set(FITTED)
    again = fit_summaries(config, task, CLASSES, described)
    for name, summary in found.items():
        assert summary.tensors
        assert all(torch.equal(again[name].tensors[key], tensor) for key, tensor in summary.tensors.items()), name
    # The distance to what is labelled is 0 for what is labelled: the functions see these images.
    assert found["core_set"].tensors["moved_ND"].shape == (200, 64)


@pytest.mark.heavy
def test_the_answers_are_in_the_order_of_the_logits(described: Described, task: Task) -> None:
    # The classes turned round, in the logits too, give the heads turned round.
    head = LinearHead(64, 10)
    head.head.weight.data, head.head.bias.data = (
        value.data.flip(0)
        for value in (task.network.head.weight, task.network.head.bias)  # type: ignore[union-attr]
    )
    config = config_of(**{"score.acquisition": ["ensemble_varr"], "select.acquisition": "ensemble_varr"})
    straight = fit_summaries(config, task, CLASSES, described)["ensemble_varr"].tensors["weight"]
    turned = fit_summaries(config, Task(head).eval(), CLASSES[::-1], described)["ensemble_varr"].tensors["weight"]
    torch.testing.assert_close(turned.flip(1), straight, atol=0.1, rtol=0)
    assert (turned - straight).abs().max() > 1


def test_nothing_is_fitted_where_nothing_asks_for_it(described: Described, task: Task) -> None:
    config = config_of(**{"score.acquisition": ["margin"], "select.acquisition": "margin"})
    assert fit_summaries(config, task, CLASSES, described) == {}


def test_what_cannot_be_fitted_is_named(described: Described, task: Task) -> None:
    alone = described._replace(cached=Cached(described.feature_LD, torch.zeros(200, dtype=torch.int64)))
    config = config_of(**{"score.acquisition": ["ensemble_varr"], "select.acquisition": "ensemble_varr"})
    with pytest.raises(VaalError, match=r"score.acquisition=\w+: .*2 folds or more.*; leave it out, or label more"):
        fit_summaries(config, task, CLASSES, alone)


def test_folds_keep_groups_together() -> None:
    x, fold, group = torch.zeros(60, 1), torch.arange(60) % 4, torch.arange(60) // 6 * 1_000_003
    assert folds_of(Cached(x, fold), 4, 0) is fold
    dealt = folds_of(Cached(x, fold, group), 1, 0).numpy()
    assert all(len(set(dealt[group.numpy() == number].tolist())) == 1 for number in set(group.tolist()))
    assert set(dealt.tolist()) == {0, 1, 2}
    alone = folds_of(Cached(x, fold), 1, 0).numpy()
    assert np.bincount(alone).tolist() == [20, 20, 20]


@pytest.mark.parametrize("name", ["core_set", "typicality", "ensemble_varr"])
def test_an_item_without_finite_features_changes_nothing(described: Described, task: Task, name: str) -> None:
    bad_LD, bad_RD = (torch.full((count, 64), float("nan")) for count in (3, 5))
    labelled = torch.cat([bad_LD, described.feature_LD])
    folds = torch.cat([torch.zeros(3, dtype=torch.int64), described.cached.fold_N])
    with_bad = Described(
        labelled, [*"123", *described.labels], Cached(labelled, folds), torch.cat([described.feature_RD, bad_RD]), 5000
    )
    config = config_of(**{"score.acquisition": [name], "select.acquisition": name})
    expected, found = (fit_summaries(config, task, CLASSES, given)[name].tensors for given in (described, with_bad))
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    nothing = with_bad._replace(feature_LD=torch.full((203, 64), float("nan")))
    with pytest.raises(VaalError, match="features of all 203 labelled images are not finite; give another"):
        fit_summaries(config, task, CLASSES, nothing)
