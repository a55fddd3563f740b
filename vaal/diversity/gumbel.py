"""Stochastic batches by a score: softmax, power and soft-rank acquisition (Kirsch et al. 2023, TMLR, arXiv 2106.12059).

All three draw b candidates one after another without replacement, with the paper's coldness of 1: the largest of
"logarithm of the weight + Gumbel noise". An item's noise is a function of its `draw` alone, uniform on 64 bits, so the
batch does not depend on how the items are sharded or ordered. Ties go to the lowest index. float64 inside;
O(M log M) time, O(M) memory.
"""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between, require_finite


def gumbel_top_b(score_M: NDArray[np.float32], draw_M: NDArray[np.uint64], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice, drawn in proportion to exp(-score): softmax acquisition.

    It depends on the unit of the score: differences far below 1 are lost in the noise.

    Raises ValueError if b is not from 0 to M, or a score is not finite.
    """
    require_between("b of gumbel", b, 0, len(score_M))
    require_finite("scores", score_M)
    return np.argsort(score_M.astype(np.float64) + np.log(_waiting(draw_M)), kind="stable")[:b]


def power_top_b(worth_M: NDArray[np.float64], draw_M: NDArray[np.uint64], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice, drawn in proportion to their worth: power acquisition.

    It does not depend on the unit of the worth. Candidates that are worth 0 follow, in their order, when none is left.

    Raises ValueError if b is not from 0 to M, or a worth is negative or not finite.
    """
    require_between("b of power", b, 0, len(worth_M))
    require_worth(worth_M)
    with np.errstate(divide="ignore"):
        return np.argsort(_waiting(draw_M) / worth_M, kind="stable")[:b]


def soft_rank_top_b(draw_M: NDArray[np.uint64], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice, drawn in proportion to 1 / rank: soft-rank acquisition.

    Candidates come best first: the first has rank 1. Whatever the score's unit or shape, the batch is the same.

    Raises ValueError if b is not from 0 to M.
    """
    require_between("b of soft_rank", b, 0, len(draw_M))
    return np.argsort(_waiting(draw_M) * np.arange(1, len(draw_M) + 1), kind="stable")[:b]


def require_worth(worth_M: NDArray[np.float64]) -> None:
    """Raises ValueError if a worth is negative or not finite."""
    require_finite("worths", worth_M)
    if (worth_M < 0).any():
        raise ValueError(f"{int((worth_M < 0).sum())} of {len(worth_M)} worths are negative, least {worth_M.min()}")


def _waiting(draw_M: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Exponential times, exp(-Gumbel): divided by weights, the b shortest are a draw in proportion to these."""
    waiting_M: NDArray[np.float64] = -np.log(uniform(draw_M))
    return waiting_M


def uniform(draw_M: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in (0, 1) from each draw: the middle of one of 2**52 equal cells, exact in float64."""
    # With 53 bits the last middle, 1 - 2**-54, would round to 1.
    return ((draw_M >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def mixed(value_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on all bits."""
    value_N = value_N + np.uint64(0x9E3779B97F4A7C15)
    value_N = (value_N ^ (value_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_N = (value_N ^ (value_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_N ^ (value_N >> np.uint64(31))
