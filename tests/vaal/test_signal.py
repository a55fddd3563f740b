"""The AUC against its definition, its interval against textbook DeLong and by coverage; what makes a fault a fault."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from vaal.signal import (
    ACTIVE_VARIANCE,
    MIN_HELD_OUT,
    SATURATED_LOGIT,
    SHARED_VARIANCE,
    Interval,
    Posterior,
    auc_interval,
    diagnose,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairwise_auc(labelled: torch.Tensor, unlabelled: torch.Tensor) -> float:
    """The definition, over all pairs."""
    difference = labelled[:, None] - unlabelled[None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def textbook_delong(labelled: torch.Tensor, unlabelled: torch.Tensor) -> Interval:
    """Eqs. 4 to 6 of DeLong, DeLong and Clarke-Pearson over all pairs, then the delta method for the log odds."""
    difference = (labelled[:, None] - unlabelled[None]).double()
    kernel = (difference > 0).double() + 0.5 * (difference == 0).double()
    auc = kernel.mean()
    v10, v01 = kernel.mean(dim=1), kernel.mean(dim=0)
    s10 = ((v10 - auc) ** 2).sum() / (len(v10) - 1)
    s01 = ((v01 - auc) ** 2).sum() / (len(v01) - 1)
    half = 1.959963984540054 * torch.sqrt(s10 / len(v10) + s01 / len(v01)) / (auc * (1 - auc))
    return Interval(float(auc), float(torch.sigmoid(auc.logit() - half)), float(torch.sigmoid(auc.logit() + half)))


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_definition_with_ties_and_agrees_with_scikit_learn(seed: int) -> None:
    labelled, unlabelled = (normal(23, seed=seed) * 3 + 1).round(), (normal(57, seed=seed + 50) * 3).round()
    assert set(labelled.tolist()) & set(unlabelled.tolist())
    auc = auc_interval(labelled, unlabelled).value
    assert auc == pytest.approx(pairwise_auc(labelled, unlabelled), abs=1e-12)
    truth = torch.cat([torch.ones(23), torch.zeros(57)])
    assert auc == pytest.approx(roc_auc_score(truth, torch.cat([labelled, unlabelled])), abs=1e-12)
    assert auc_interval(unlabelled, labelled).value == pytest.approx(1 - auc, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_interval_is_delongs_where_that_is_the_wider(seed: int) -> None:
    # Labelled logits that are spread wide: here Newcombe's interval is too narrow.
    labelled, unlabelled = (4 * normal(40, seed=seed) + 2).round(), normal(300, seed=seed + 50).round()
    assert auc_interval(labelled, unlabelled) == pytest.approx(textbook_delong(labelled, unlabelled), abs=1e-9)


def test_interval_holds_delongs_and_is_the_score_interval_at_perfect_separation() -> None:
    labelled, unlabelled = normal(30, seed=1) + 3, normal(200, seed=2)
    got, delong = auc_interval(labelled, unlabelled), textbook_delong(labelled, unlabelled)
    assert got.low < delong.low < got.value < delong.high <= got.high < 1
    value, low, high = auc_interval(normal(30).abs(), -normal(200).abs())
    assert (value, high) == (1, 1)
    # At the end of Newcombe's method 5, 1 - low is z standard errors of an AUC that is `low`.
    variance = low * (1 - low) * (1 + 114 * ((1 - low) / (2 - low) + low / (1 + low))) / (30 * 200)
    assert 1 - low == pytest.approx(1.959963984540054 * math.sqrt(variance))
    assert 0.95 < low < 0.97


def test_interval_mirrors_when_the_pools_change_places() -> None:
    for shift in (0.5, 100.0):
        labelled, unlabelled = normal(30) + shift, normal(90, seed=1)
        value, low, high = auc_interval(labelled, unlabelled)
        assert auc_interval(unlabelled, labelled) == pytest.approx((1 - value, 1 - high, 1 - low), abs=1e-9)


def test_logits_that_all_tie_show_nothing() -> None:
    value, low, high = auc_interval(torch.zeros(50), torch.zeros(70))
    assert value == 0.5
    assert low < 0.45 < 0.55 < high


def test_a_smaller_confidence_is_a_narrower_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled, unlabelled = normal(30) + 1, normal(90, seed=1)
    wide = auc_interval(labelled, unlabelled)
    monkeypatch.setattr("vaal.signal.CONFIDENCE", 0.5)
    narrow = auc_interval(labelled, unlabelled)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize(
    ("num_labelled", "num_unlabelled"), [(MIN_HELD_OUT - 1, 500), (500, MIN_HELD_OUT - 1), (0, 50)]
)
def test_few_items_say_nothing(num_labelled: int, num_unlabelled: int) -> None:
    diagnosis = diagnose(normal(num_labelled) + 100, normal(num_unlabelled), None)
    assert diagnosis.auc[1:] == (0, 1)
    assert diagnosis.signal == "none"
    assert auc_interval(normal(MIN_HELD_OUT) + 100, normal(MIN_HELD_OUT)).low > 0.5


def test_nan_is_refused_and_infinity_is_a_logit() -> None:
    logit = normal(20)
    logit[3] = math.nan
    for pools in ((logit, normal(30)), (normal(30), logit)):
        with pytest.raises(ValueError, match="1 of 50 logits are NaN"):
            auc_interval(*pools)
    logit[3] = math.inf
    assert auc_interval(logit, normal(30)).value == pytest.approx(pairwise_auc(logit, normal(30)))


@pytest.mark.parametrize(
    ("num_labelled", "num_unlabelled", "shift", "spread"),
    [
        (40, 400, 0, 1), (40, 400, 1, 1), (40, 400, 3, 1), (40, 400, 1.5, 2),
        (12, 200, 0, 1), (12, 200, 1, 1), (12, 200, 3, 1), (12, 200, 1.5, 2),
    ],
)  # fmt: skip
def test_coverage_by_simulation(num_labelled: int, num_unlabelled: int, shift: float, spread: float) -> None:
    """Binormal logits, whose AUC is Phi(shift / sqrt(1 + spread^2))."""
    draws = 500
    labelled = normal(draws, num_labelled, seed=1) * spread + shift
    unlabelled = normal(draws, num_unlabelled, seed=2)
    truth = 0.5 * (1 + math.erf(shift / math.sqrt(2 * (1 + spread**2))))
    intervals = [auc_interval(*pools) for pools in zip(labelled, unlabelled, strict=True)]
    assert 0.91 <= sum(low <= truth <= high for _, low, high in intervals) / draws <= 0.99
    if shift == 0:
        assert sum(low > 0.5 for _, low, _ in intervals) / draws < 0.05


def test_signal_needs_the_whole_interval_above_one_half() -> None:
    diagnosis = diagnose(normal(40) + 1, normal(400, seed=1), None)
    assert diagnosis.signal == "present"
    for low in (0.5, 0.3):
        assert diagnosis._replace(auc=Interval(0.6, low, 0.8)).signal == "none"
    # Confidently wrong is no signal either.
    assert diagnose(normal(40) - 1, normal(400, seed=1), None).signal == "none"


def test_saturation_is_the_share_of_logits_beyond_certainty() -> None:
    edge = SATURATED_LOGIT
    assert 1 / (1 + math.exp(-edge)) > 0.999
    labelled, unlabelled = torch.tensor([edge, edge + 0.1, 9.0]), torch.tensor([0.0, -edge - 0.1])
    diagnosis = diagnose(labelled, unlabelled, None)
    assert diagnosis.saturation == pytest.approx(3 / 5)
    assert (diagnosis.num_labelled, diagnosis.num_unlabelled) == (3, 2)
    assert diagnosis.is_saturated
    assert not diagnosis._replace(saturation=0.5).is_saturated
    assert diagnose(torch.empty(0), torch.empty(0), None).saturation == 0


def test_active_units_and_collapse() -> None:
    logit = normal(20)
    mean = normal(500, 20)
    mean = (mean - mean.mean(dim=0)) / mean.std(dim=0, correction=0) * math.sqrt(ACTIVE_VARIANCE * 0.99)
    mean[:, :2] *= math.sqrt(1.02 / 0.99)
    mean[:, 5] += 3
    posterior = Posterior(mean, normal(500, 20, seed=1), normal(500, seed=2).square())
    diagnosis = diagnose(logit, logit, posterior)
    assert diagnosis.active_units == 2
    assert not diagnosis.is_collapsed
    assert diagnosis._replace(active_units=1).is_collapsed
    assert diagnosis.mean_squared_error == pytest.approx(float(posterior.squared_error_N.mean()))
    assert len(diagnosis.kl_Z) == 20
    two = Posterior(torch.tensor([[0.099, 0.101], [-0.099, -0.101]]), torch.zeros(2, 2), torch.zeros(2))
    assert diagnose(logit, logit, two).active_units == 1
    by_hand = (mean[:, 5] ** 2 + posterior.logvar_NZ[:, 5].exp() - 1 - posterior.logvar_NZ[:, 5]).mean() / 2
    assert diagnosis.kl_Z[5] == pytest.approx(float(by_hand), rel=1e-5)


def test_without_a_vae_nothing_is_collapsed() -> None:
    diagnosis = diagnose(normal(20), normal(20, seed=1), None)
    assert (diagnosis.kl_Z, diagnosis.active_units, diagnosis.mean_squared_error) == ([], 0, None)
    assert not diagnosis.is_collapsed


def test_a_posterior_that_says_nothing_is_refused() -> None:
    whole = Posterior(normal(3, 2), normal(3, 2, seed=1), normal(3).square())
    for broken in (whole._replace(mean_NZ=whole.mean_NZ / 0), Posterior(*(part[:0] for part in whole))):
        with pytest.raises(ValueError, match="empty or not finite"):
            diagnose(normal(20), normal(20), broken)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("num_labelled", "num_folds", "num_seeds"),
    [(50, 2, 120), *(pytest.param(n, k, 400, marks=pytest.mark.slow) for n in (20, 50, 200, 1000) for k in (2, 5))],
)
def test_labels_drawn_at_random_show_a_signal_hardly_ever(num_labelled: int, num_folds: int, num_seeds: int) -> None:
    """Real discriminators, cross-fitted as in training: 2.5 % of false signals are meant."""
    found = [random_labels(num_labelled, num_folds, seed) for seed in range(num_seeds)]
    false = [auc_interval(*logits, SHARED_VARIANCE).low > 0.5 for logits in found]
    assert np.mean(false) <= 0.025
    # As if the folds shared nothing, the interval is too narrow.
    values = np.array([auc_interval(*logits).value for logits in found])
    widths = np.array([auc_interval(*logits).high - auc_interval(*logits).low for logits in found])
    assert values.std() > 1.1 * widths.mean() / (2 * 1.96)


def random_labels(num_labelled: int, num_folds: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Out-of-fold logits of logistic discriminators for labels that say nothing."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(num_labelled + 1000, 32))
    y_N, fold_N = np.arange(len(x_ND)) < num_labelled, rng.integers(0, num_folds, size=len(x_ND))
    logit_N = np.zeros(len(x_ND))
    for fold in range(num_folds):
        trains_N = fold_N != fold
        fitted = LogisticRegression(C=0.1, class_weight="balanced").fit(x_ND[trains_N], y_N[trains_N])
        logit_N[~trains_N] = fitted.decision_function(x_ND[~trains_N])
    return torch.tensor(logit_N[:num_labelled]), torch.tensor(logit_N[num_labelled:])
