"""Shares and differences: the published intervals, how they are written, and how many cases say something."""

import pytest
from scipy import stats

from vaal.proportions import Share, difference, enough_for, few_text, reach_of, wilson


@pytest.mark.parametrize(("hits", "total"), [(0, 3), (3, 3), (1, 1), (5, 23), (81, 263), (500, 1000)])
def test_wilsons_interval_is_that_of_a_library(hits: int, total: int) -> None:
    expected = stats.binomtest(hits, total).proportion_ci(0.95, "wilson")
    assert wilson(hits, total) == pytest.approx((hits / total, expected.low, expected.high, total))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Share(0.1, -0.05, 0.25, 40), "10 points (−5 to 25): cannot be told apart"),
        (Share(-0.21, -0.33, 0.36, 60), "−21 points (−33 to 36): cannot be told apart"),
        (Share(-0.21, -0.33, -0.08, 60), "−21 points (−33 to −8)"),
        (Share(0.2, 0.01, 0.4, 60), "20 points (1 to 40)"),
        (Share(-0.002, -0.1, 0.1, 60), "0 points (−10 to 10): cannot be told apart"),
    ],
)
def test_a_difference_has_its_sign_and_says_where_it_may_be_none(share: Share, text: str) -> None:
    assert share.points_text == text


def test_a_share_is_written_with_its_interval() -> None:
    assert wilson(0, 3).text == "0% (0 to 56)"
    assert difference(wilson(20, 40), wilson(10, 40)).points_text == "25 points (4 to 43)"


def test_the_number_that_is_enough_is_the_least_one() -> None:
    enough = enough_for(0.1)
    assert enough == 93
    for hits in (enough // 2, enough // 2 + 1):
        assert wilson(hits, enough).high - hits / enough <= 0.1 + 0.01
    assert reach_of(enough) <= 0.1 < reach_of(enough - 1)
    middle = wilson(50, 100)
    assert reach_of(100) == pytest.approx((middle.high - middle.low) / 2)


def test_few_cases_are_said_to_be_few_with_the_number_that_is_enough() -> None:
    assert few_text(21, "control label") == ""
    assert few_text(3, "control pick") == (
        "3 control picks say next to nothing of the pool: a share of it, such as the accuracy, is known to ±37 points "
        "at worst, and ±10 points take 93"
    )
    assert few_text(1, "control pick").startswith("1 control pick says next")
    assert few_text(20, "control pick").startswith("20 control picks")
