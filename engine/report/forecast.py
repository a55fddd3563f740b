"""What the next labels are expected to gain, by how often the task learner was wrong about the control arm, round by
round, and the curves of learning that go with it.

Shape suffixes: R rounds, S shapes of curves, G gains.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.proportions import CONFIDENCE, Share

Array = NDArray[np.float64]
LEAST_ROUNDS = 3
"""Rounds with different numbers of labels: two of them lie on every curve."""
LEAST_PART = 0.1
"""Rounds that learned from less than this part of the labels that there are now are left out: where so few labels are,
curves are of other shapes."""
WIDEST = 0.1
"""An interval that reaches farther than this on both sides of 0 tells nothing."""
WORTH = 0.01
"""A gain of this is worth seeing: one point."""
FAR = 10
"""More than this many times the labels that there are is too far to say how many."""
_SHAPES = (0.0, 0.5, 1.0, 2.0)
"""Exponents of the curves; 0 is the logarithm."""
_STEPS, _HALVINGS = 101, 40


class Round(NamedTuple):
    """How many labels the task learner of a round learned from, and of how many labels of the control arm it was right
    about how many before it saw them."""

    learned: int
    right: int
    judged: int


class Forecast(NamedTuple):
    """What `more` labels are expected to gain on those that there are, as a share of the pool; None where `why` says
    why it cannot be told. `judged` labels of the control arm were used, and about `needed` would show a gain of WORTH.
    """

    labels: int
    more: int
    gain: Share | None
    why: str
    judged: int
    needed: int | None


def forecast(rounds: list[Round], labels: int, more: int) -> Forecast:
    """What the next `more` labels are expected to gain, of `labels` that there are.

    The share that is wrong after L labels is e + s (L^-b - labels^-b), a power law with any level, with b of _SHAPES
    and ln for b = 0 (Viering and Loog, IEEE TPAMI 45, 2023). The interval is that of the profile likelihood over level
    and shape: all gains of such curves that go with the rounds. Where the rounds scatter more than binomial counts do,
    it is as much wider. The value is the mean of the shapes' best ones by their likelihood. `more` is at least 1.
    """
    used = [one for one in rounds if one.judged and one.learned >= max(1, LEAST_PART * labels)]
    judged, sizes = sum(one.judged for one in used), len({one.learned for one in used})
    if sizes < LEAST_ROUNDS:
        why = f"it takes {LEAST_ROUNDS} rounds with control labels to tell, and there {_rounds(sizes)}"
        return Forecast(labels, more, None, why, judged, None)
    found = _fitted(used, labels, more, judged)
    # The interval of counts narrows with the root of their number.
    needed = math.ceil(judged * ((found.high - found.low) / 2 / WORTH) ** 2)
    if found.low < -WIDEST and found.high > WIDEST:
        return Forecast(labels, more, None, "too few control labels to tell", judged, needed)
    return Forecast(labels, more, found, "", judged, needed)


def _rounds(count: int) -> str:
    return "is none" if not count else f"{'is' if count == 1 else 'are'} {count}"


def _fitted(rounds: list[Round], labels: int, more: int, judged: int) -> Share:
    from scipy import stats

    learned_R, right_R, judged_R = np.array(rounds, np.float64).T
    wrong_R = judged_R - right_R
    # In units of the gain: wrong = level + gain * unit, whatever the shape.
    now, then = (_curves(np.array([float(size)]), labels) for size in (labels, labels + more))
    unit_SR = (_curves(learned_R, labels) - now) / (now - then)
    # No gain is larger: by some shape no share of a round may leave 0 to 1.
    most = 1 / float(np.abs(unit_SR).max(axis=1).min())
    gain_G, margin = np.linspace(-most, most, 4 * _STEPS + 1), stats.chi2.ppf(CONFIDENCE, 1) / 2
    for _ in range(3):
        likely_SG, level_SG = _profile(unit_SR, wrong_R, right_R, gain_G)
        shape, place = np.unravel_index(likely_SG.argmax(), likely_SG.shape)
        wrong = np.clip(level_SG[shape, place] + gain_G[place] * unit_SR[shape], 1e-9, 1 - 1e-9)
        chi_square = float(((wrong_R - judged_R * wrong) ** 2 / (judged_R * wrong * (1 - wrong))).sum())
        spread = max(1.0, chi_square / max(1, len(rounds) - 2))
        best = likely_SG.max()
        inside = np.flatnonzero(likely_SG.max(axis=0) >= best - spread * margin)
        low, high, step = gain_G[inside[0]], gain_G[inside[-1]], gain_G[1] - gain_G[0]
        weight_S = np.exp(likely_SG.max(axis=1) - best)
        value = float(weight_S @ gain_G[likely_SG.argmax(axis=1)] / weight_S.sum())
        # Again, where it matters and finer.
        gain_G = np.linspace(low - step, high + step, _STEPS)
    return Share(value, float(low), float(high), judged)


def _curves(size_R: Array, labels: int) -> Array:
    """The curves (S, R) at these numbers of labels."""
    ratio_R = size_R / labels
    return np.stack([-np.log(ratio_R) if shape == 0 else ratio_R**-shape for shape in _SHAPES])


def _profile(unit_SR: Array, wrong_R: Array, right_R: Array, gain_G: Array) -> tuple[Array, Array]:
    """The largest log likelihood (S, G) of each shape and gain over the level, and that level; minus infinity where no
    level keeps all shares within 0 and 1. In the level it is concave: its slope is halved down to 0."""
    from scipy import special

    rise_SGR = gain_G[None, :, None] * unit_SR[:, None, :]
    low_SG, high_SG = np.maximum(0, -rise_SGR.min(axis=2)), np.minimum(1, 1 - rise_SGR.max(axis=2))
    is_none_SG = low_SG >= high_SG
    for _ in range(_HALVINGS):
        level_SG = (low_SG + high_SG) / 2
        share_SGR = np.clip(level_SG[:, :, None] + rise_SGR, 1e-12, 1 - 1e-12)
        is_rising_SG = (wrong_R / share_SGR - right_R / (1 - share_SGR)).sum(axis=2) > 0
        low_SG, high_SG = np.where(is_rising_SG, level_SG, low_SG), np.where(is_rising_SG, high_SG, level_SG)
    share_SGR = np.clip(level_SG[:, :, None] + rise_SGR, 1e-12, 1 - 1e-12)
    likely_SG = (special.xlogy(wrong_R, share_SGR) + special.xlogy(right_R, 1 - share_SGR)).sum(axis=2)
    return np.where(is_none_SG, -np.inf, likely_SG), level_SG


def forecast_text(found: Forecast) -> str:
    """A forecast as a sentence, without its full stop."""
    is_short = found.needed is not None and found.needed > found.judged
    enough = f"about {found.needed:,} would show a gain of 1 point, there are {found.judged:,}" if is_short else ""
    if found.gain is None:
        return ": ".join(filter(None, (found.why, enough)))
    low, high = found.gain.low, found.gain.high
    what = (
        f"{found.more:,} more labels, after {found.labels:,}, are expected to gain {_points(found.gain.value)} points"
    )
    text = f"{what} of accuracy on the pool ({_points(low)} to {_points(high)})"
    if high < 0:
        return f"{text}: the task learner got worse as labels came, look at its training"
    if high < WORTH:
        # Curves of learning flatten: a straight line is the best that can be.
        least = math.ceil(found.more * WORTH / max(high, 1e-9))
        is_far = least > FAR * found.labels
        return f"{text}: " + ("more labels will hardly help" if is_far else f"a point takes at least {least:,} labels")
    if low > 0:
        return text
    return f"{text}: it may be nothing" + (f"; of control labels {enough}" if enough else "")


def _points(share: float) -> str:
    # Without a sign where it is written as 0.
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")
