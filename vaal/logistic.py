"""Logistic regression with an L2 penalty: convex, so that data and penalty alone decide the weights.

Shape suffixes: N items, D inputs, E inputs and a one for the bias, C logits (one for two classes).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ITERATIONS = 300
SMALLEST_GRADIENT = 1e-6


@torch.inference_mode(mode=False)
def fit_logistic(
    x_ND: Tensor, label_N: Tensor, num_classes: int, l2: float, weight_N: Tensor | None = None,
    tolerance: float = SMALLEST_GRADIENT,
) -> nn.Linear:  # fmt: skip
    """The linear layer that minimises the weighted mean cross-entropy in nats plus l2 / 2 times the squared weights.

    The bias is free. With two classes the layer has one output, the logit of class 1; else one output a class. Float64
    inside; the layer has the dtype of `x_ND`. Deterministic.

    Args:
        x_ND: inputs, floating point.
        label_N: classes, int64, from 0 to num_classes - 1. A class may have no items: its logit is then low.
        l2: above 0, so that the minimum is finite where classes can be separated.
        weight_N: weight of each item, 0 or more; equal if not given. Only their ratios count.
        tolerance: largest entry of the gradient at which the fit ends, in nats per unit of a whitened input.

    Raises ValueError if there is no item, fewer than two classes, an l2 of 0 or less, a weight sum of 0, or an input
    that is not finite.
    """
    if not len(x_ND) or num_classes < 2 or l2 <= 0:
        raise ValueError(f"{len(x_ND)} items of {num_classes} classes with l2={l2:g} have no logistic regression")
    # Clones, because tensors of the inference mode take no part in a backward pass.
    x_ND, label_N, dtype = x_ND.detach().double().clone(), label_N.clone(), x_ND.dtype
    if not torch.isfinite(x_ND).all():
        raise ValueError("an input of the logistic regression is not finite")
    share_N = torch.ones_like(x_ND[:, 0]) if weight_N is None else weight_N.to(x_ND)
    total = share_N.sum()
    if not total > 0:
        raise ValueError("the weights of a logistic regression sum to 0")
    share_N = share_N / total
    # Centred, so that the bias and the weights do not pull at each other.
    mean_D = share_N @ x_ND
    fit = _newton if num_classes == 2 else _quasi_newton
    weight_CD, bias_C = fit(x_ND - mean_D, label_N.to(x_ND.device), num_classes, l2, share_N, tolerance)
    return linear(weight_CD, bias_C - weight_CD @ mean_D, dtype)


def linear(weight_CD: Tensor, bias_C: Tensor, dtype: torch.dtype) -> nn.Linear:
    """The linear layer with these weights, on their device. Draws no random numbers."""
    with torch.device("meta"):
        layer = nn.Linear(weight_CD.shape[1], len(bias_C), dtype=dtype)
    layer.weight, layer.bias = (nn.Parameter(values.detach().to(dtype)) for values in (weight_CD, bias_C))
    return layer


def cross_entropy(logit_NC: Tensor, label_N: Tensor) -> Tensor:
    """The cross-entropy of each item in nats (N,), of one logit for two classes or of a logit for each class."""
    if logit_NC.shape[1] == 1:
        return F.softplus(torch.where(label_N > 0, -1.0, 1.0).to(logit_NC) * logit_NC[:, 0])
    return F.cross_entropy(logit_NC, label_N, reduction="none")


def _newton(
    x_ND: Tensor, label_N: Tensor, _: int, l2: float, share_N: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Two classes, by Newton's method: few iterations of a symmetric system of D + 1 unknowns."""
    x_NE = F.pad(x_ND, (0, 1), value=1.0)
    penalty_E = torch.full_like(x_NE[0], l2)
    # Nothing pulls at the bias but the items. With this little, the system can be solved where one class is absent.
    penalty_E[-1] = 1e-9
    target_N = label_N.to(x_ND)

    def loss(w_E: Tensor, logit_N: Tensor) -> Tensor:
        return share_N @ cross_entropy(logit_N[:, None], label_N) + 0.5 * (penalty_E * w_E.square()).sum()

    w_E = torch.zeros_like(x_NE[0])
    logit_N = x_NE @ w_E
    value = loss(w_E, logit_N)
    for _iteration in range(MOST_ITERATIONS):
        p_N = logit_N.sigmoid()
        gradient_E = x_NE.T @ (share_N * (p_N - target_N)) + penalty_E * w_E
        hessian_EE = x_NE.T @ ((share_N * p_N * (1 - p_N))[:, None] * x_NE) + torch.diag(penalty_E)
        step_E = torch.linalg.solve(hessian_EE, gradient_E)
        decrement = float(gradient_E @ step_E)
        if decrement < tolerance**2:
            break
        # Halved until the loss falls (Armijo): far from the minimum a whole step may overshoot.
        size, logit_step_N = 1.0, x_NE @ step_E
        while (lower := loss(w_E - size * step_E, logit_N - size * logit_step_N)) > value - 1e-4 * size * decrement:
            size /= 2
            if size < 1e-8:
                return w_E[None, :-1], w_E[-1:]
        w_E, logit_N, value = w_E - size * step_E, logit_N - size * logit_step_N, lower
    return w_E[None, :-1], w_E[-1:]


def _quasi_newton(
    x_ND: Tensor, label_N: Tensor, num_classes: int, l2: float, share_N: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Three classes or more, by L-BFGS on inputs turned and scaled so that the curvature is about 1 everywhere."""
    covariance_DD = x_ND.T @ (share_N[:, None] * x_ND)
    value_D, vector_DD = torch.linalg.eigh(covariance_DD)
    scale_D = (value_D.clamp_min(0) / num_classes + l2).rsqrt()
    turned_ND = x_ND @ (vector_DD * scale_D)
    w_CD = torch.zeros(num_classes, x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device, requires_grad=True)
    b_C = torch.zeros(num_classes, dtype=x_ND.dtype, device=x_ND.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [w_CD, b_C], max_iter=MOST_ITERATIONS, tolerance_grad=tolerance, tolerance_change=0.0,
        history_size=10, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (
            share_N @ cross_entropy(turned_ND @ w_CD.T + b_C, label_N) + l2 / 2 * (w_CD * scale_D).square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (w_CD * scale_D).detach() @ vector_DD.T, b_C.detach()
