"""What the next labels are expected to gain: the interval by brute force, and how often it holds the truth."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from engine.report.forecast import _SHAPES, Round, forecast, forecast_text

LEARNED = [1000, 1500, 2000, 2500, 3000]


def rounds_of(wrong: list[int], judged: int) -> list[Round]:
    return [Round(size, judged - count, judged) for size, count in zip(LEARNED, wrong, strict=False)]


def by_brute_force(rounds: list[Round], labels: int, more: int) -> tuple[float, float]:
    """The lowest and highest gain of all curves whose likelihood is within the margin of the best one's."""
    size, right, judged = np.array(rounds, np.float64).T
    level, gain = np.linspace(0.001, 0.4, 300)[:, None, None], np.linspace(-0.02, 0.08, 101)[:, None]
    likely = []
    for shape in _SHAPES:
        now, then, curve = (
            -np.log(n) if shape == 0 else np.asarray(n, np.float64) ** -shape for n in (labels, labels + more, size)
        )
        share = level + gain * (curve - now) / (now - then)
        inside = (share > 0) & (share < 1)
        found = stats.binom.logpmf(judged - right, judged, np.clip(share, 1e-9, 1 - 1e-9)).sum(axis=-1)
        likely.append(np.where(inside.all(axis=-1), found, -np.inf).max(axis=0))
    inside = np.max(likely, axis=0) >= np.max(likely) - stats.chi2.ppf(0.95, 1) / 2
    return float(gain[inside].min()), float(gain[inside].max())


def test_the_interval_is_that_of_all_curves_that_go_with_the_rounds() -> None:
    rounds = rounds_of([90, 76, 68, 60, 55], 300)
    found = forecast(rounds, 3500, 500).gain
    assert found is not None
    assert found[1:3] == pytest.approx(by_brute_force(rounds, 3500, 500), abs=0.001)
    assert found.low < found.value < found.high
    assert found.total == 1500


CURVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a power law": lambda size: 0.3 * (size / 1000) ** -0.5,
    "one with a level": lambda size: 0.1 + 0.2 * (size / 1000) ** -0.7,
    "nothing is gained": lambda size: 0.12 + 0 * size,
    "steep": lambda size: 0.04 + 0.4 * (size / 1000) ** -1.0,
    "the logistic of the logarithm": lambda size: 1 / (1 + np.exp(1 + 0.5 * np.log(size / 1000))),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("num_rounds", "judged"), [(3, 25), (3, 200), (5, 50)])
def test_intervals_hold_the_gain_of_known_curves(name: str, num_rounds: int, judged: int) -> None:
    rng, wrong = np.random.default_rng(0), CURVES[name]
    size = np.array(LEARNED[:num_rounds], np.float64)
    labels = int(size[-1]) + 500
    now, then = wrong(np.array([labels, labels + 500.0]))
    held = 0
    for _ in range(60):
        count = rng.binomial(judged, wrong(size))
        found = forecast(rounds_of(count.tolist(), judged), labels, 500)
        # What cannot be told holds everything.
        held += found.gain is None or found.gain.low <= now - then <= found.gain.high
    # Of 95 % three standard deviations less.
    assert held >= 51


def test_rounds_that_scatter_have_a_wider_interval() -> None:
    smooth, rough = (
        forecast(rounds_of(wrong, 300), 3500, 500).gain for wrong in ([90, 76, 68, 60, 55], [90, 40, 99, 30, 90])
    )
    assert smooth is not None
    assert rough is not None
    assert rough.high - rough.low > 2 * (smooth.high - smooth.low)


def test_too_few_rounds_are_refused_whatever_their_labels() -> None:
    none = forecast([], 1000, 500)
    assert forecast_text(none) == "it takes 3 rounds with control labels to tell, and there is none"
    two = rounds_of([90, 76], 300)
    assert forecast_text(forecast([*two, two[0]], 2000, 500)).endswith("and there are 2")
    assert forecast([*two, Round(2000, 0, 0)], 2000, 500).gain is None
    # Of 199 labels nothing follows for what comes after 2,000.
    assert forecast([*two, Round(199, 100, 300)], 2000, 500).gain is None
    assert forecast([*two, Round(200, 100, 300)], 2000, 500).gain is not None


def test_too_few_labels_say_how_many_would_do() -> None:
    found = forecast(rounds_of([3, 2, 3], 6), 2500, 1000)
    assert found.gain is None
    assert found.needed is not None
    assert found.needed > 1000
    assert forecast_text(found) == (
        f"too few control labels to tell: about {found.needed:,} would show a gain of 1 point, there are 18"
    )
    # As many show it.
    scale = found.needed / 18
    more = [Round(size, round(3 * scale), round(6 * scale)) for size in LEARNED[:3]]
    seen = forecast(more, 2500, 1000).gain
    assert seen is not None
    assert (seen.high - seen.low) / 2 < 0.02


@pytest.mark.parametrize(
    ("wrong", "judged", "said"),
    [
        ([9000, 7600, 6800, 6000, 5500], 30_000, r"of accuracy on the pool \(1\.\d to 1\.\d\)$"),
        (
            [20, 21, 19, 20, 18],
            100,
            r"\(−\d\.\d to \d\.\d\): it may be nothing; of control labels about [\d,]+ would show",
        ),
        ([6000, 6001, 5999, 6000, 6000], 3_000_000, "more labels will hardly help$"),
        ([7000, 6600, 6300, 6000, 5900], 30_000, r"\(0\.\d to 0\.\d\): a point takes at least \d{3} labels$"),
        ([5500, 6000, 6800, 7600, 9000], 30_000, "the task learner got worse as labels came, look at its training$"),
    ],
)
def test_the_sentence_says_what_the_interval_says(wrong: list[int], judged: int, said: str) -> None:
    text = forecast_text(forecast(rounds_of(wrong, judged), 3500, 500))
    assert text.startswith("500 more labels, after 3,500, are expected to gain ")
    assert re.search(said, text), text
