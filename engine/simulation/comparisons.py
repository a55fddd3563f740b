"""Paired comparisons of learning curves over seeds. Nothing here knows what the curves are of.

Shape suffixes: S seeds, K points of a curve (numbers of labels, ascending), R resamples.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
LEAST_SEEDS = 6
"""With fewer, no exact test of paired differences comes below LEVEL: 2 of the 2^5 patterns of signs are 0.06."""
MOST_EXACT = 16
"""Up to so many seeds all patterns of signs are tried; beyond, NUM_SIGNS random ones."""
NUM_SIGNS = 20_000
NUM_RESAMPLES = 4999
MOST_SEEDS_NEEDED = 10_000
ROUNDING = 1e-12
"""Two accuracies that differ by less are equal."""
LEAST_GAIN = 1e-9
"""A gain of accuracy below this is none."""
Curves = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean or another estimate and the ends of its CONFIDENCE interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference: its mean and interval, the p of the sign-flip test, the p after Holm's correction, whether
    it is shown, and the number of seeds with which one of this size would be (None: more than MOST_SEEDS_NEEDED)."""

    mean: Interval
    p: float
    p_holm: float
    is_shown: bool
    seeds_needed: int | None


class Saving(NamedTuple):
    """Labels saved at equal accuracy: what share of the reference's gain is meant, the accuracy, the labels that the
    reference bought for it, and the share of them saved. The ends are minus infinity where the accuracy was not reached
    with the labels there were; `not_reached` is the share of resamples in which it was not. The value is then minus
    infinity or a number. None: the reference gained nothing."""

    share_of_gain: float
    accuracy: float
    bought: float
    saved: Interval
    not_reached: float


def area(num_labels_K: NDArray[np.float64], curve_SK: Curves) -> NDArray[np.float64]:
    """The mean height of each curve over the range of labels (S,), by trapezoids; of a single point its height."""
    if len(num_labels_K) == 1:
        return curve_SK[:, 0]
    length = float(num_labels_K[-1] - num_labels_K[0])
    return np.asarray(np.trapezoid(curve_SK, num_labels_K, axis=-1) / length)


def differences(gap_by_name: dict[str, NDArray[np.float64]]) -> dict[str, Difference]:
    """Paired differences (S,) by name, as a family: their p are corrected together (Holm 1979)."""
    tests = {name: sign_flip(gap_S) for name, gap_S in gap_by_name.items()}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    found = {}
    for name, gap_S in gap_by_name.items():
        mean = mean_interval(gap_S)
        is_clear = mean.low > 0 or mean.high < 0
        is_shown = bool(len(gap_S) >= LEAST_SEEDS and corrected[name] < LEVEL and is_clear)
        needed = None if is_shown else seeds_needed(gap_S, len(gap_by_name))
        found[name] = Difference(mean, tests[name], corrected[name], is_shown, needed)
    return found


def mean_interval(gap_S: NDArray[np.float64]) -> Interval:
    """The mean of paired differences, with its BCa bootstrap interval over seeds (Efron 1987), and of fewer than
    LEAST_SEEDS, whose resamples are too much alike, Student's.

    Where all differences are equal the interval is a point.
    """
    mean, size = float(gap_S.mean()), len(gap_S)
    if size < 2 or np.ptp(gap_S) <= 1e-12:
        return Interval(mean, mean, mean)
    t = float(stats.t.ppf(1 - LEVEL / 2, size - 1))
    if size < LEAST_SEEDS:
        half = t * float(gap_S.std(ddof=1)) / math.sqrt(size)
        return Interval(mean, mean - half, mean + half)
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        (gap_S,), np.mean, n_resamples=NUM_RESAMPLES, confidence_level=CONFIDENCE, method="BCa", rng=rng
    ).confidence_interval
    # A small sample's interval is too narrow by the factor that Student's t knows of.
    widen = t / stats.norm.ppf(1 - LEVEL / 2) * math.sqrt(size / (size - 1))
    return Interval(mean, mean - widen * (mean - float(found.low)), mean + widen * (float(found.high) - mean))


def sign_flip(gap_S: NDArray[np.float64]) -> float:
    """The two-sided p of a mean of paired differences if each is as likely as its negative: exact up to MOST_EXACT
    seeds."""
    size = len(gap_S)
    if size <= MOST_EXACT:
        sign_RS = np.array(list(itertools.product((1.0, -1.0), repeat=size)))
    else:
        sign_RS = np.random.default_rng(0).choice((1.0, -1.0), (NUM_SIGNS, size))
        sign_RS[0] = 1
    means_R, mean = np.abs(sign_RS @ gap_S), abs(float(gap_S.sum()))
    return float((means_R >= mean - 1e-9 * max(1.0, mean)).mean())


def holm(p: Sequence[float]) -> list[float]:
    """The p of a family of tests after the correction of Holm (1979, Scandinavian Journal of Statistics 6)."""
    corrected, least = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = least
    return corrected


def least_p(num_seeds: int, num_tests: int) -> float:
    """The smallest corrected p that so many seeds can give in a family of so many tests."""
    return min(1.0, max(1, num_tests) * 2.0 ** (1 - num_seeds))


def least_seeds(num_tests: int) -> int:
    """The fewest seeds with which anything can be shown in a family of so many tests."""
    return next(n for n in itertools.count(LEAST_SEEDS) if least_p(n, num_tests) < LEVEL)


def seeds_needed(gap_S: NDArray[np.float64], num_tests: int) -> int | None:
    """The number of seeds with which a mean difference of this size and spread is shown in POWER of all cases, by a
    paired t test at LEVEL / num_tests. None: more than MOST_SEEDS_NEEDED."""
    mean, spread = abs(float(gap_S.mean())), float(gap_S.std(ddof=1)) if len(gap_S) > 1 else 0.0
    least = least_seeds(num_tests)
    if not mean or not spread:
        return None if not mean else least
    z = stats.norm.ppf(1 - LEVEL / (2 * max(1, num_tests))) + stats.norm.ppf(POWER)
    # The last term stands for the t distribution's heavier tails.
    needed = math.ceil((z * spread / mean) ** 2 + stats.norm.ppf(1 - LEVEL / (2 * max(1, num_tests))) ** 2 / 2)
    needed = max(needed, least, len(gap_S) + 1)
    return needed if needed <= MOST_SEEDS_NEEDED else None


def band(curve_SK: Curves) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean curve (K,) and half the width (K,) of a band that covers the whole true mean curve in CONFIDENCE of all
    cases: simultaneous over the points, by Student's t and Bonferroni's correction. Of one seed it is infinite."""
    mean_K, (size, num_points) = curve_SK.mean(axis=0), curve_SK.shape
    if size < 2:
        return mean_K, np.full(num_points, np.inf)
    error_K = curve_SK.std(axis=0, ddof=1) / math.sqrt(size)
    return mean_K, stats.t.ppf(1 - LEVEL / (2 * num_points), size - 1) * error_K


def savings(
    num_labels_K: NDArray[np.float64], curve_SK: Curves, reference_SK: Curves, shares: Sequence[float] = (1, 0.75, 0.5)
) -> list[Saving | None]:
    """Labels saved at equal accuracy: at these shares of what the reference gained.

    Mean curves are made monotone (isotonic regression) and read by straight lines between their points, never beyond
    the last one. The interval is the percentile bootstrap over paired seeds.
    """
    size = len(curve_SK)
    place_RS = np.random.default_rng(0).integers(size, size=(999, size))
    pairs = [(curve_SK[place_S].mean(axis=0), reference_SK[place_S].mean(axis=0)) for place_S in place_RS]
    own, reference = curve_SK.mean(axis=0), reference_SK.mean(axis=0)
    found: list[Saving | None] = []
    for share in shares:
        goal = _saved(num_labels_K, own, reference, share)
        if goal is None:
            found.append(None)
            continue
        saved, accuracy, bought = goal
        drawn = [one[0] for pair in pairs if (one := _saved(num_labels_K, *pair, share))]
        low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], method="nearest") if drawn else (-np.inf, np.inf)
        missed = sum(value == -np.inf for value in drawn) / max(1, len(drawn))
        found.append(Saving(share, accuracy, bought, Interval(saved, float(low), float(high)), missed))
    return found


def _saved(
    num_labels_K: NDArray[np.float64], own_K: Curves, reference_K: Curves, share: float
) -> tuple[float, float, float] | None:
    """The share of the bought labels that is saved, minus infinity where the accuracy is not reached; the accuracy; the
    labels that the reference bought for it. None where the reference gains nothing."""
    own_K, reference_K = isotonic(own_K), isotonic(reference_K)
    gain = float(reference_K[-1] - reference_K[0])
    # Means that differ by rounding alone are no gain.
    if gain <= LEAST_GAIN:
        return None
    accuracy = float(reference_K[0]) + share * gain
    bought = _first_at(num_labels_K, reference_K, accuracy) - float(num_labels_K[0])
    reached = _first_at(num_labels_K, own_K, accuracy) - float(num_labels_K[0])
    return (1 - reached / bought if math.isfinite(reached) else -np.inf), accuracy, bought


def _first_at(num_labels_K: NDArray[np.float64], curve_K: Curves, height: float) -> float:
    """Where a rising curve first has this height; infinite where it never has."""
    place = int(np.searchsorted(curve_K, height - ROUNDING))
    if place == len(curve_K):
        return np.inf
    if place == 0:
        return float(num_labels_K[0])
    low, high = curve_K[place - 1], curve_K[place]
    return float(np.interp(height, [low, high], num_labels_K[place - 1 : place + 1]))


def isotonic(value_K: Curves) -> Curves:
    """The rising curve that is nearest in squares, by pooling adjacent violators."""
    blocks: list[tuple[float, int]] = []
    for value in value_K.tolist():
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return np.repeat([value for value, _ in blocks], [count for _, count in blocks])
