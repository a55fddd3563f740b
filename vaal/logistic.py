"""Logistic regression with an L2 penalty: convex, so that data and penalty alone decide the weights.

Shape suffixes: N items, B items of a block, D inputs, E inputs and a one for the bias, K regressions, C logits (one for
two classes).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ITERATIONS = 300
SMALLEST_GRADIENT = 1e-6
HISTORY = 10
"""Steps from which L-BFGS takes the curvature."""
BLOCK_ITEMS = 2048
"""Items whose logits are held at a time; the inputs of a block stay in a processor's cache."""
SMALLEST_STEP = 1e-8


class Logistic:
    """Logistic regressions of the same items with different weights, such as 0 for a fold, fitted side by side.

    Each minimises its weighted mean cross-entropy in nats plus l2 / 2 times the squared weights; the bias is free. With
    two classes a regression has one output, the logit of class 1; else one output a class. Weights are (K, C, E), in
    coordinates of the inputs that are centred and turned until their covariance is diagonal: there L-BFGS needs few
    steps. Deterministic, on the device of the inputs and in their dtype.
    """

    def __init__(self, x_ND: Tensor, label_N: Tensor, num_classes: int, weight_N: Tensor | None = None) -> None:
        """Take the items.

        Args:
            x_ND: inputs, floating point.
            label_N: classes, int64, from 0 to num_classes - 1. A class may have no items: its logit is then low.
            weight_N: weight of each item, 0 or more; equal if not given. Only their ratios count. Those of the items
                that are fitted to, or nearly, for the coordinates to be good ones.

        Raises ValueError if there is no item, fewer than two classes, a weight sum of 0, or an input that is not
        finite.
        """
        if not len(x_ND) or num_classes < 2:
            raise ValueError(f"{len(x_ND)} items of {num_classes} classes have no logistic regression")
        if not torch.isfinite(x_ND).all():
            raise ValueError("an input of the logistic regression is not finite")
        x_ND, dtype = x_ND.detach().double(), x_ND.dtype
        self.weight_N = torch.ones_like(x_ND[:, 0]) if weight_N is None else weight_N.to(x_ND)
        share_N = self.weight_N / self._sum(self.weight_N)
        self.num_logits = 1 if num_classes == 2 else num_classes
        self.label_N = label_N.to(x_ND.device)
        self.mean_D = share_N @ x_ND
        x_ND = x_ND - self.mean_D
        self.variance_D, self.turn_DD = torch.linalg.eigh(x_ND.T @ (share_N[:, None] * x_ND))
        self.x_NE = F.pad((x_ND @ self.turn_DD).to(dtype), (0, 1), value=1.0)

    def fit(
        self, l2: float, weight_NK: Tensor | None = None, *, tolerance: float, start_KCE: Tensor | None = None
    ) -> Tensor:
        """The weights (K, C, E) of the regressions.

        Args:
            l2: above 0, so that the minimum is finite where classes can be separated.
            weight_NK: weight of each item in each regression; without it, one regression with the weights above.
            tolerance: largest entry of the gradient at which a fit ends, in nats per unit of a whitened input.
            start_KCE: weights to start from, such as those of another penalty. They save time and decide nothing.

        Raises ValueError if l2 is 0 or less, or the weights of a regression sum to 0.
        """
        if l2 <= 0:
            raise ValueError(f"l2={l2:g} gives no logistic regression; it is above 0")
        weight_NK = self.weight_N[:, None] if weight_NK is None else weight_NK.to(self.weight_N)
        problem = _Problem(self, (weight_NK / self._sum(weight_NK)).to(self.x_NE), l2)
        if start_KCE is None:
            start_KCE = self.x_NE.new_zeros(weight_NK.shape[1], self.num_logits, self.x_NE.shape[1])
        return _minimum(problem, start_KCE / problem.scale_E, tolerance) * problem.scale_E

    def logits(self, weight_CE: Tensor, place: Tensor) -> Tensor:
        """The logits (N, C) of the items at some places (a mask or numbers) by one regression."""
        return self.x_NE[place] @ weight_CE.T

    @torch.inference_mode(mode=False)
    def layer(self, weight_CE: Tensor) -> nn.Linear:
        """One regression as a layer on the inputs as they were given."""
        weight_CD = weight_CE[:, :-1].double() @ self.turn_DD.T
        return linear(weight_CD, weight_CE[:, -1].double() - weight_CD @ self.mean_D, self.x_NE.dtype)

    @staticmethod
    def _sum(weight: Tensor) -> Tensor:
        total = weight.sum(dim=0)
        if not (total > 0).all():
            raise ValueError("the weights of a logistic regression sum to 0")
        return total


def fit_logistic(
    x_ND: Tensor, label_N: Tensor, num_classes: int, l2: float, weight_N: Tensor | None = None,
    tolerance: float = SMALLEST_GRADIENT,
) -> nn.Linear:  # fmt: skip
    """The linear layer of one regression of all items, see `Logistic`. Float64 inside; it has the dtype of `x_ND`."""
    found = Logistic(x_ND.double(), label_N, num_classes, weight_N)
    return found.layer(found.fit(l2, tolerance=tolerance)[0]).to(x_ND.dtype)


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


class _Problem:
    """The losses of K regressions and their gradients. Weights are in units of `scale_E`, in which the curvature is
    about 1 everywhere."""

    def __init__(self, items: Logistic, share_NK: Tensor, l2: float) -> None:
        self.x_NE, self.label_N, self.share_NK = items.x_NE, items.label_N, share_NK
        # Of a logit the curvature is p (1 - p).
        curvature = 1 / 4 if items.num_logits == 1 else 1 / items.num_logits
        scale_D = (curvature * items.variance_D.clamp_min(0) + l2).rsqrt()
        self.scale_E = F.pad(scale_D, (0, 1), value=curvature**-0.5).to(self.x_NE)
        self.penalty_E = F.pad(l2 * scale_D.square(), (0, 1)).to(self.x_NE)

    def at(self, weight_KCE: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (K,), float64, and the gradients (K, C, E)."""
        loss_K = 0.5 * (self.penalty_E * weight_KCE.square()).sum(dim=(1, 2)).double()
        scaled_KCE = weight_KCE * self.scale_E
        slope_LE = torch.zeros_like(scaled_KCE).flatten(0, 1)
        for begin in range(0, len(self.x_NE), BLOCK_ITEMS):
            rows = slice(begin, begin + BLOCK_ITEMS)
            logit_BKC = (self.x_NE[rows] @ scaled_KCE.flatten(0, 1).T).view(-1, *weight_KCE.shape[:2])
            part_K, residual_BKC = _loss_and_residual(logit_BKC, self.label_N[rows], self.share_NK[rows])
            loss_K += part_K.double()
            slope_LE += residual_BKC.flatten(1).T @ self.x_NE[rows]
        return loss_K, slope_LE.view_as(scaled_KCE) * self.scale_E + self.penalty_E * weight_KCE


def _loss_and_residual(logit_BKC: Tensor, label_B: Tensor, share_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of a block (K,), and its derivative by each logit (B, K, C)."""
    if logit_BKC.shape[2] == 1:
        sign_B1 = torch.where(label_B > 0, -1.0, 1.0).to(logit_BKC)[:, None]
        wrong_BK = sign_B1 * logit_BKC[:, :, 0]
        return (share_BK * F.softplus(wrong_BK)).sum(dim=0), (share_BK * sign_B1 * wrong_BK.sigmoid())[:, :, None]
    log_sum_BK = logit_BKC.logsumexp(dim=2)
    label_BK1 = label_B[:, None, None].expand(-1, logit_BKC.shape[1], 1)
    loss_BK = log_sum_BK - logit_BKC.gather(2, label_BK1)[:, :, 0]
    residual_BKC = (logit_BKC - log_sum_BK[:, :, None]).exp_().mul_(share_BK[:, :, None])
    return (share_BK * loss_BK).sum(dim=0), residual_BKC.scatter_add_(2, label_BK1, -share_BK[:, :, None])


class _Step(NamedTuple):
    """A step of L-BFGS: the change of weights and of gradients (K, C, E), and 1 over their product (K,)."""

    moved_KCE: Tensor
    turned_KCE: Tensor
    factor_K: Tensor


def _minimum(problem: _Problem, weight_KCE: Tensor, tolerance: float) -> Tensor:
    """Where the losses are least, by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4), every
    regression with its own curvature and step, as if it were alone."""
    loss_K, slope_KCE = problem.at(weight_KCE)
    steps, size_K = list[_Step](), torch.ones_like(loss_K).to(weight_KCE)
    is_stuck_K = torch.zeros_like(loss_K, dtype=torch.bool)
    for _ in range(MOST_ITERATIONS):
        is_open_K = (slope_KCE.abs().amax(dim=(1, 2)) > tolerance) & ~is_stuck_K
        if not is_open_K.any():
            break
        direction_KCE = -_by_inverse(slope_KCE, steps, size_K) * is_open_K[:, None, None]
        fall_K, step_K = _product(slope_KCE, direction_KCE), torch.ones_like(size_K)
        while True:
            next_KCE = weight_KCE + step_K[:, None, None] * direction_KCE
            next_loss_K, next_slope_KCE = problem.at(next_KCE)
            # Halved until the loss falls (Armijo); differences below the rounding of the losses count as a fall.
            rounding_K = 4 * torch.finfo(weight_KCE.dtype).eps * loss_K.abs()
            is_over_K = next_loss_K > loss_K + 1e-4 * step_K * fall_K + rounding_K
            if not is_over_K.any() or float(step_K.min()) < SMALLEST_STEP:
                break
            step_K = torch.where(is_over_K, step_K / 2, step_K)
        # Rounding hides where the loss would still fall: such a regression stands still, and the others go on.
        is_stuck_K |= is_over_K
        next_KCE = torch.where(is_over_K[:, None, None], weight_KCE, next_KCE)
        next_slope_KCE = torch.where(is_over_K[:, None, None], slope_KCE, next_slope_KCE)
        next_loss_K = torch.where(is_over_K, loss_K, next_loss_K)
        moved_KCE, turned_KCE = next_KCE - weight_KCE, next_slope_KCE - slope_KCE
        product_K, square_K = _product(moved_KCE, turned_KCE), _product(turned_KCE, turned_KCE)
        # Of a regression that stands still, and where rounding hides the curvature, the step says nothing.
        is_known_K = product_K > 1e-10 * square_K
        size_K = torch.where(is_known_K, product_K / square_K, size_K)
        steps.append(_Step(moved_KCE, turned_KCE, torch.where(is_known_K, 1 / product_K, 0.0)))
        del steps[:-HISTORY]
        weight_KCE, loss_K, slope_KCE = next_KCE, next_loss_K, next_slope_KCE
    return weight_KCE


def _by_inverse(slope_KCE: Tensor, steps: list[_Step], size_K: Tensor) -> Tensor:
    """The gradient by the inverse curvature that the last steps show."""
    left_KCE, taken = slope_KCE, list[Tensor]()
    for step in reversed(steps):
        taken.append(step.factor_K * _product(step.moved_KCE, left_KCE))
        left_KCE = left_KCE - taken[-1][:, None, None] * step.turned_KCE
    found_KCE = size_K[:, None, None] * left_KCE
    for step, taken_K in zip(steps, reversed(taken), strict=True):
        back_K = step.factor_K * _product(step.turned_KCE, found_KCE)
        found_KCE = found_KCE + (taken_K - back_K)[:, None, None] * step.moved_KCE
    return found_KCE


def _product(one_KCE: Tensor, other_KCE: Tensor) -> Tensor:
    return (one_KCE * other_KCE).sum(dim=(1, 2))
