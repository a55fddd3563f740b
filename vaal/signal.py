"""Is there a signal: how the discriminators and the VAE do on items that they did not train on.

The intervals are conditional on the trained networks: they cover how well these separate the pools, not how well
another training run would. With cross-fitted discriminators they are widened: the folds' AUCs share the half of the
labelled items that they compare, and DeLong's variance knows nothing of that.

Shape suffixes: N, M items, Z latent units.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaal.losses import kl_per_unit

CONFIDENCE = 0.95
SHARED_VARIANCE = 2.0
"""By how much the variance of the AUC of cross-fitted discriminators is larger than that of independent logits. With
logistic discriminators on labels drawn at random the standard deviation is 1.3 to 1.5 times as large, for 20 to 1,000
labelled items and 2 to 10 folds."""
MIN_HELD_OUT = 10
"""With fewer held-out items, or groups of items, of either pool the AUC's interval is [0, 1], and there is no lift."""
MIN_IN_LIFT = 10
"""Of a random sample, at least so many items of either pool are expected in the part of which the lift is told."""
MOST_IN_LIFT = 0.5
"""Largest such part of the pool: the lift of the whole pool is always 1."""
SATURATED_LOGIT = 7.0
"""Beyond it a probability is within 0.001 of 0 or 1, and the discriminator's gradient to the VAE vanishes."""
ACTIVE_VARIANCE = 0.01
"""A latent unit is active if the variance of its mean over items is larger (Burda et al. 2016, section 5.1.2)."""


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    value: float
    low: float
    high: float


Groups = tuple[Tensor, Tensor]
"""The number of the group of each labelled item (N,) and of each unlabelled one (M,), int64. The same number means the
same group. Without it each item is a group of its own."""


class Posterior(NamedTuple):
    """The VAE on N items: q(z|x), and the mean squared error per pixel of each item (pixels in [-1, 1])."""

    mean_NZ: Tensor
    logvar_NZ: Tensor
    squared_error_N: Tensor


class Diagnosis(NamedTuple):
    """Results on the held-out items.

    `lift` is that of the lowest `lift_share` of the pool, None where too few items are held out: see `lift_interval`.
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
    lift: Interval | None = None
    lift_share: float = 0.0
    num_groups: tuple[int, int] | None = None

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
    groups: Groups | None = None,
    picked_share: float = 0.0,
) -> Diagnosis:
    """The diagnosis from logits of discriminators that did not train on the item, and of the VAE if there is one.

    Args:
        is_cross_fitted: the logits are those of several discriminators, each trained on the items of the others.
        picked_share: the share of the unlabelled pool that a batch takes, 0 to 1, for the lift.

    Raises ValueError if a logit is NaN, or the posterior has no items or is not finite.
    """
    inflation = SHARED_VARIANCE if is_cross_fitted else 1.0
    pools = labelled_logit_N, unlabelled_logit_M
    logit, counts = torch.cat(pools), _num_groups(*pools, groups)
    saturation = float((logit.abs() > SATURATED_LOGIT).double().mean()) if len(logit) else 0.0
    share = min(MOST_IN_LIFT, max(picked_share, MIN_IN_LIFT / max(1, min(counts))))
    found = Diagnosis(
        auc_interval(*pools, inflation, groups), len(pools[0]), len(pools[1]), saturation,
        kl_Z=[], active_units=0, mean_squared_error=None,
        lift=lift_interval(*pools, share, inflation, groups), lift_share=share,
        num_groups=counts if groups else None,
    )  # fmt: skip
    if posterior is None:
        return found
    mean_NZ, logvar_NZ, squared_error_N = (part.double() for part in posterior)
    if not len(mean_NZ) or not all(torch.isfinite(part).all() for part in posterior):
        raise ValueError(f"the posterior of {len(mean_NZ)} items is empty or not finite")
    return found._replace(
        kl_Z=kl_per_unit(mean_NZ, logvar_NZ).tolist(),
        active_units=int((mean_NZ.var(dim=0, correction=0) > ACTIVE_VARIANCE).sum()),
        mean_squared_error=float(squared_error_N.mean()),
    )


def auc_interval(
    labelled_N: Tensor, unlabelled_M: Tensor, inflation: float = 1.0, groups: Groups | None = None
) -> Interval:
    """AUC = P(logit of a labelled item > logit of an unlabelled one) + P(they tie) / 2, with its CONFIDENCE interval.

    The interval is the hull of two. DeLong's (DeLong, DeLong, Clarke-Pearson 1988), on the logit scale, makes no
    assumption on the logits but is far too narrow near perfect separation, where it shrinks to a point. Newcombe's
    (2006, Statistics in Medicine 25, part 2, method 5: score interval on a modified Hanley-McNeil variance) is right
    there but wrong for pools of unequal spread. Items of a group are not independent: DeLong's variance is then that of
    Obuchowski (1997, Biometrics 53), and Newcombe's counts groups. With fewer than MIN_HELD_OUT groups of either pool
    the interval is [0, 1]. The AUC of an empty pool is 0.5. Variances count `inflation` times. O((N + M) log(N + M)).

    Raises ValueError if a logit is NaN.
    """
    num_labelled, num_unlabelled = len(labelled_N), len(unlabelled_M)
    num_nan = int(labelled_N.isnan().sum() + unlabelled_M.isnan().sum())
    if num_nan:
        raise ValueError(f"{num_nan} of {num_labelled + num_unlabelled} logits are NaN")
    if not num_labelled or not num_unlabelled:
        return Interval(0.5, 0.0, 1.0)
    above_N, above_M = _share_below(labelled_N, unlabelled_M), 1 - _share_below(unlabelled_M, labelled_N)
    auc = float(above_N.mean())
    num_groups = _num_groups(labelled_N, unlabelled_M, groups)
    if min(num_groups) < MIN_HELD_OUT:
        return Interval(auc, 0.0, 1.0)
    z = _deviations(inflation)
    low, high = _newcombe(auc, *num_groups, z)
    error = math.sqrt(_variance_of_sum(above_N - auc, above_M - auc, groups))
    if error > 0:
        centre, half = math.log(auc / (1 - auc)), z * error / (auc * (1 - auc))
        delong_low, delong_high = (1 / (1 + math.exp(-end)) for end in (centre - half, centre + half))
        low, high = min(low, delong_low), max(high, delong_high)
    return Interval(auc, low, high)


def lift_interval(
    labelled_N: Tensor, unlabelled_M: Tensor, share: float, inflation: float = 1.0, groups: Groups | None = None
) -> Interval | None:
    """How many times rarer labelled items are among the lowest logits than unlabelled ones; None with fewer than
    MIN_HELD_OUT groups of either pool.

    lift = P(an unlabelled item is at or below t) / P(a labelled one is), where `share` of the unlabelled items are at
    or below t. Random picks have 1. If a share r of the pool is of a kind without labels, and a part a of it and a part
    b of all other items are at or below t, the lift is (r a + (1 - r) b) / b.

    Half an item is added to each count, so that the estimate is finite. The CONFIDENCE interval joins Wilson's of the
    two shares on the logarithm (Zou and Donner 2008, Statistics in Medicine 27); its end is infinite where no labelled
    item is below t. The items of a group count for as many as vary independently. Variances count `inflation` times.
    """
    if min(_num_groups(labelled_N, unlabelled_M, groups)) < MIN_HELD_OUT:
        return None
    threshold = unlabelled_M.sort().values[max(1, math.ceil(share * len(unlabelled_M))) - 1]
    group_N, group_M = groups or (None, None)
    above = _log_share((unlabelled_M <= threshold).double(), group_M, inflation)
    below = _log_share((labelled_N <= threshold).double(), group_N, inflation)
    value = above.value - below.value
    low = value - math.hypot(above.value - above.low, below.high - below.value)
    high = value + math.hypot(above.high - above.value, below.value - below.low)
    return Interval(math.exp(value), math.exp(low), math.exp(high))


def _log_share(is_in_N: Tensor, group_N: Tensor | None, inflation: float) -> Interval:
    """The logarithm of the share of the items that are in, with half an item added, and of Wilson's interval."""
    num_items, share, z = len(is_in_N), float(is_in_N.mean()), _deviations(inflation)
    effective = num_items / _design_effect(is_in_N, group_N)
    centre = share + z**2 / (2 * effective)
    half = z * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    ends = ((centre + sign * half) / (1 + z**2 / effective) for sign in (-1, 1))
    low, high = (math.log(end) if end > 1e-12 else -math.inf for end in ends)
    return Interval(math.log((float(is_in_N.sum()) + 0.5) / (num_items + 0.5)), low, high)


def _deviations(inflation: float) -> float:
    """Half the width of the CONFIDENCE interval in standard errors, if variances count `inflation` times."""
    return math.sqrt(inflation) * float(torch.special.ndtri(torch.tensor((1 + CONFIDENCE) / 2, dtype=torch.float64)))


def _variance_of_sum(value_N: Tensor, value_M: Tensor, groups: Groups | None) -> float:
    """Variance of mean(value_N) + mean(value_M), centred values, where groups are independent and not their items."""
    group_N, group_M = groups or (None, None)
    own, others = _sums(value_N, group_N) / len(value_N), _sums(value_M, group_M) / len(value_M)
    variance = float((own**2).sum()) * len(own) / (len(own) - 1)
    variance += float((others**2).sum()) * len(others) / (len(others) - 1)
    if group_N is None or group_M is None:
        return variance
    # A group with items in both pools moves both means.
    numbers, numbers_others = np.unique(group_N.numpy()), np.unique(group_M.numpy())
    _, place, place_others = np.intersect1d(numbers, numbers_others, assume_unique=True, return_indices=True)
    both = float((own[place] * others[place_others]).sum())
    num_groups = len(own) + len(others) - len(place)
    return max(0.0, variance + 2 * both * num_groups / (num_groups - 1))


def _num_groups(labelled_N: Tensor, unlabelled_M: Tensor, groups: Groups | None) -> tuple[int, int]:
    """The number of groups of each pool; of items where each is its own."""
    numbers = [np.unique(group.numpy()) for group in groups] if groups else (labelled_N, unlabelled_M)
    return len(numbers[0]), len(numbers[1])


def _sums(value_N: Tensor, group_N: Tensor | None) -> Tensor:
    """The sum of the values of each group, in the order of the groups' numbers."""
    if group_N is None:
        return value_N
    numbers, place_N = np.unique(group_N.numpy(), return_inverse=True)
    return torch.zeros(len(numbers), dtype=value_N.dtype).index_add(0, torch.from_numpy(place_N), value_N)


def _design_effect(value_N: Tensor, group_N: Tensor | None) -> float:
    """How many times larger the variance of the mean is than if the items were independent; at least 1."""
    centred_N = value_N - value_N.mean()
    alone, together = float((centred_N**2).sum()), _sums(centred_N, group_N)
    if not alone:
        # Nothing is known of how items of a group vary: each group counts once.
        return len(value_N) / len(together)
    return max(1.0, float((together**2).sum()) / alone)


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
