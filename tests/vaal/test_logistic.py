"""Logistic regression: equal to scikit-learn's, and finite where the data say nothing."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vaal.calibration import temperature_factor
from vaal.linear_head import fit_linear_head
from vaal.logistic import Logistic, fit_logistic


def drawn(num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """600 items of 12 inputs with very unequal spread, their classes and weights."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(600, 12)) * np.geomspace(10, 0.1, 12) + 3
    centre_CD = rng.normal(size=(num_classes, 12)) / np.geomspace(10, 0.1, 12)
    label_N = ((x_ND - 3) @ centre_CD.T + rng.normal(size=(600, num_classes))).argmax(axis=1)
    return torch.tensor(x_ND), torch.tensor(label_N), torch.tensor(rng.random(600))


@pytest.mark.parametrize(("num_classes", "is_weighted"), [(2, False), (2, True), (4, False), (4, True)])
def test_the_weights_are_those_of_scikit_learn(num_classes: int, is_weighted: bool) -> None:
    x_ND, label_N, weight_N = drawn(num_classes)
    weight_N = weight_N if is_weighted else torch.ones(600)
    layer = fit_logistic(x_ND, label_N, num_classes, 1e-2, weight_N if is_weighted else None)
    peer = LogisticRegression(C=1 / (1e-2 * float(weight_N.sum())), tol=1e-10, max_iter=5000)
    peer.fit(x_ND, label_N, sample_weight=weight_N)
    bias_C, peer_C = layer.bias.detach().numpy(), peer.intercept_
    if num_classes > 2:
        # Only the differences of the biases are determined.
        bias_C, peer_C = bias_C - bias_C.mean(), peer_C - peer_C.mean()
    np.testing.assert_allclose(layer.weight.detach().numpy(), peer.coef_, atol=1e-4)
    np.testing.assert_allclose(bias_C, peer_C, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_folds_side_by_side_are_those_fitted_alone_wherever_they_start(num_classes: int) -> None:
    x_ND, label_N, weight_N = drawn(num_classes)
    fold_N = torch.arange(600) % 3
    weight_NK = weight_N[:, None] * (fold_N[:, None] != torch.arange(3))
    together = Logistic(x_ND, label_N, num_classes)
    cold_KCE = together.fit(1e-2, weight_NK, tolerance=1e-8)
    warm_KCE = together.fit(1e-2, weight_NK, tolerance=1e-8, start_KCE=together.fit(1, weight_NK, tolerance=1e-8))
    torch.testing.assert_close(warm_KCE, cold_KCE, rtol=0, atol=1e-5)
    for number in range(3):
        rows = fold_N != number
        alone = fit_logistic(x_ND[rows], label_N[rows], num_classes, 1e-2, weight_N[rows], tolerance=1e-8)
        layer = together.layer(cold_KCE[number])
        torch.testing.assert_close(layer.weight, alone.weight, rtol=0, atol=1e-5)
        # Of several biases only the differences are determined.
        logit_NC, alone_NC = (
            found(x_ND) - (found(x_ND).mean(dim=1, keepdim=True) if num_classes > 2 else 0) for found in (layer, alone)
        )
        torch.testing.assert_close(logit_NC, alone_NC, rtol=0, atol=1e-4)
        torch.testing.assert_close(together.logits(cold_KCE[number], rows), layer(x_ND[rows]), rtol=0, atol=1e-9)


def test_it_is_the_same_each_time_and_draws_no_random_number() -> None:
    x_ND, label_N, _ = drawn(2)
    before = torch.get_rng_state()
    first, second = (fit_logistic(x_ND.float(), label_N, 2, 1e-2) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert first.weight.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


def test_separable_classes_and_one_class_alone_stay_finite() -> None:
    x_ND = torch.linspace(-1, 1, 20)[:, None].repeat(1, 64)
    layer = fit_logistic(x_ND, (x_ND[:, 0] > 0).long(), 2, 1e-4)
    assert torch.isfinite(layer.weight).all()
    for num_classes in (2, 3):
        alone = fit_logistic(x_ND, torch.zeros(20, dtype=torch.int64), num_classes, 1e-4)
        assert torch.isfinite(alone.bias).all()
        assert float(alone.bias.detach().abs().max()) < 50


@pytest.mark.parametrize(
    ("x_ND", "l2"), [(torch.zeros(0, 2), 1.0), (torch.zeros(3, 2), 0.0), (torch.ones(3, 2) / 0, 1.0)]
)
def test_what_has_no_fit_is_refused(x_ND: torch.Tensor, l2: float) -> None:
    with pytest.raises(ValueError, match=r"logistic regression"):
        fit_logistic(x_ND, torch.zeros(len(x_ND), dtype=torch.int64), 2, l2)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_temperature_undoes_a_scale(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logit_NC = torch.randn(4000, num_classes, generator=generator)
    label_N = torch.multinomial(logit_NC.softmax(dim=1), 1, generator=generator)[:, 0]
    if num_classes == 2:
        logit_NC = (logit_NC[:, 1] - logit_NC[:, 0])[:, None]
    assert temperature_factor(4 * logit_NC, label_N) == pytest.approx(0.25, abs=0.03)
    assert temperature_factor(100 * logit_NC, label_N) == pytest.approx(0.05, abs=1e-6)
    assert temperature_factor(logit_NC / 100, label_N) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_head_s_held_out_accuracy_is_that_on_new_items(num_classes: int) -> None:
    x_ND, label_N, _ = drawn(num_classes)
    fitted = fit_linear_head(x_ND[:300].float(), label_N[:300], num_classes, seed=0)
    logit_NC = fitted.head(x_ND[300:].float())
    assert logit_NC.shape == (300, num_classes)
    accuracy = float((logit_NC.argmax(dim=1) == label_N[300:]).double().mean())
    assert fitted.held_out_accuracy == pytest.approx(accuracy, abs=0.08)
    assert accuracy > 0.6


def test_a_head_of_few_labels_is_fitted_without_an_accuracy() -> None:
    x_ND, label_N, _ = drawn(4)
    rows = torch.tensor([int((label_N == number).nonzero()[0]) for number in range(4)])
    fitted = fit_linear_head(x_ND[rows], label_N[rows], 4, seed=0)
    assert fitted.held_out_accuracy is None
    assert torch.isfinite(fitted.head.head.weight).all()
