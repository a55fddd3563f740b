"""Is there a signal: how the discriminators and the VAE do on items that they did not train on.

The intervals are conditional on the trained networks: they cover how well these separate the pools, not how well
another training run would. With cross-fitted discriminators they are widened: the folds' AUCs share the half of the
labelled items that they compare, and DeLong's variance knows nothing of that.

Shape suffixes: N, M items, Z latent units.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vaal.losses import kl_per_unit

CONFIDENCE = 0.95
SHARED_VARIANCE = 2.0
"""By how much the variance of the AUC of cross-fitted discriminators is larger than that of independent logits. With
logistic discriminators on labels drawn at random the standard deviation is 1.3 to 1.5 times as large, for 20 to 1,000
labelled items and 2 to 10 folds."""
MIN_HELD_OUT = 10
"""With fewer held-out items of either pool the AUC's interval is [0, 1]."""
SATURATED_LOGIT = 7.0
"""Beyond it a probability is within 0.001 of 0 or 1, and the discriminator's gradient to the VAE vanishes."""
ACTIVE_VARIANCE = 0.01
"""A latent unit is active if the variance of its mean over items is larger (Burda et al. 2016, section 5.1.2)."""


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    value: float
    low: float
    high: float


class Posterior(NamedTuple):
    """The VAE on N items: q(z|x), and the mean squared error per pixel of each item (pixels in [-1, 1])."""

    mean_NZ: Tensor
    logvar_NZ: Tensor
    squared_error_N: Tensor


class Diagnosis(NamedTuple):
    """Results on the held-out items.

    `saturation` is the share of items with |logit| above SATURATED_LOGIT. `kl_Z` is the KL of each latent unit in nats,
    averaged over items, and `mean_squared_error` is per pixel; without a VAE they are empty and None.
    """

    auc: Interval
    num_labelled: int
    num_unlabelled: int
    saturation: float
    kl_Z: list[float]
    active_units: int
    mean_squared_error: float | None

    @property
    def signal(self) -> Literal["present", "none"]:
        """Present if the whole interval of the AUC is above chance, 0.5."""
        return "present" if self.auc.low > 0.5 else "none"

    @property
    def is_collapsed(self) -> bool:
        """There is a VAE, and fewer than one in ten of its latent units are active."""
        return 10 * self.active_units < len(self.kl_Z)

    @property
    def is_saturated(self) -> bool:
        """More than half of the held-out items are beyond SATURATED_LOGIT."""
        return self.saturation > 0.5


def diagnose(
    labelled_logit_N: Tensor,
    unlabelled_logit_M: Tensor,
    posterior: Posterior | None,
    *,
    is_cross_fitted: bool = False,
) -> Diagnosis:
    """The diagnosis from logits of discriminators that did not train on the item, and of the VAE if there is one.

    `is_cross_fitted`: the logits are those of several discriminators, each trained on the items of the others.

    Raises ValueError if a logit is NaN, or the posterior has no items or is not finite.
    """
    auc = auc_interval(labelled_logit_N, unlabelled_logit_M, SHARED_VARIANCE if is_cross_fitted else 1.0)
    logit = torch.cat([labelled_logit_N, unlabelled_logit_M])
    saturation = float((logit.abs() > SATURATED_LOGIT).double().mean()) if len(logit) else 0.0
    held_out = auc, len(labelled_logit_N), len(unlabelled_logit_M), saturation
    if posterior is None:
        return Diagnosis(*held_out, kl_Z=[], active_units=0, mean_squared_error=None)
    mean_NZ, logvar_NZ, squared_error_N = (part.double() for part in posterior)
    if not len(mean_NZ) or not all(torch.isfinite(part).all() for part in posterior):
        raise ValueError(f"the posterior of {len(mean_NZ)} items is empty or not finite")
    return Diagnosis(
        *held_out,
        kl_Z=kl_per_unit(mean_NZ, logvar_NZ).tolist(),
        active_units=int((mean_NZ.var(dim=0, correction=0) > ACTIVE_VARIANCE).sum()),
        mean_squared_error=float(squared_error_N.mean()),
    )


def auc_interval(labelled_N: Tensor, unlabelled_M: Tensor, inflation: float = 1.0) -> Interval:
    """AUC = P(logit of a labelled item > logit of an unlabelled one) + P(they tie) / 2, with its CONFIDENCE interval.

    The interval is the hull of two. DeLong's (DeLong, DeLong, Clarke-Pearson 1988), on the logit scale, makes no
    assumption on the logits but is far too narrow near perfect separation, where it shrinks to a point. Newcombe's
    (2006, Statistics in Medicine 25, part 2, method 5: score interval on a modified Hanley-McNeil variance) is right
    there but wrong for pools of unequal spread. With fewer than MIN_HELD_OUT items of either pool it is [0, 1]. The AUC
    of an empty pool is 0.5. Variances count `inflation` times. O((N + M) log(N + M)).

    Raises ValueError if a logit is NaN.
    """
    num_labelled, num_unlabelled = len(labelled_N), len(unlabelled_M)
    num_nan = int(labelled_N.isnan().sum() + unlabelled_M.isnan().sum())
    if num_nan:
        raise ValueError(f"{num_nan} of {num_labelled + num_unlabelled} logits are NaN")
    if not num_labelled or not num_unlabelled:
        return Interval(0.5, 0.0, 1.0)
    below_N, below_M = _share_below(labelled_N, unlabelled_M), _share_below(unlabelled_M, labelled_N)
    auc = float(below_N.mean())
    if min(num_labelled, num_unlabelled) < MIN_HELD_OUT:
        return Interval(auc, 0.0, 1.0)
    z = math.sqrt(inflation) * float(torch.special.ndtri(torch.tensor((1 + CONFIDENCE) / 2, dtype=torch.float64)))
    low, high = _newcombe(auc, num_labelled, num_unlabelled, z)
    error = math.sqrt(float(below_N.var() / num_labelled + below_M.var() / num_unlabelled))
    if error > 0:
        centre, half = math.log(auc / (1 - auc)), z * error / (auc * (1 - auc))
        delong_low, delong_high = (1 / (1 + math.exp(-end)) for end in (centre - half, centre + half))
        low, high = min(low, delong_low), max(high, delong_high)
    return Interval(auc, low, high)


def _share_below(logit_N: Tensor, others_M: Tensor) -> Tensor:
    """Share of the others below each logit, ties counted half (N,) float64: DeLong's structural components."""
    # By sorting, as in Sun and Xu (2014).
    ordered_M = others_M.sort().values
    left_N = torch.searchsorted(ordered_M, logit_N.contiguous())
    right_N = torch.searchsorted(ordered_M, logit_N.contiguous(), right=True)
    return (left_N + right_N).double() / (2 * len(others_M))


def _newcombe(auc: float, num_labelled: int, num_unlabelled: int, z: float) -> tuple[float, float]:
    """The two values a at which |a - auc| is z standard errors of an estimate whose true value is a."""
    mean_others = (num_labelled + num_unlabelled) / 2 - 1

    def is_outside(a: float) -> bool:
        pairs = 1 + mean_others * ((1 - a) / (2 - a) + a / (1 + a))
        return (a - auc) ** 2 > z**2 * a * (1 - a) * pairs / (num_labelled * num_unlabelled)

    ends = []
    for outside in (0.0, 1.0):
        inside = auc
        for _ in range(60):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if is_outside(middle) else (outside, middle)
        ends.append(inside)
    return ends[0], ends[1]
