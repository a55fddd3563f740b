"""Uniform random samples of items, drawn by their places among those that can be picked, without a list of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.selection.sources import Draws

SPARE_DRAWS = 16


class ControlDraws(NamedTuple):
    """Draws for the control arm, the stratum of each, and the number of picks in each stratum. There are more draws
    than picks, because a draw may be a duplicate."""

    draws: Draws
    strata: list[str]
    quotas: dict[str, int]


def draw(eligible_F: NDArray[np.int64], size: int, rng: np.random.Generator) -> Draws:
    """`size` items in random order, without replacement, all equally likely.

    Args:
        eligible_F: (F,) int64, the number of items in each source.

    Raises ValueError if size is more than there are.
    """
    ends_F = eligible_F.cumsum()
    place_N = distinct(int(eligible_F.sum()), size, rng)
    source_N = np.searchsorted(ends_F, place_N, side="right")
    return Draws(source_N.astype(np.int64), place_N - (ends_F - eligible_F)[source_N])


def draw_control(
    eligible_F: NDArray[np.int64], stratum_F: Sequence[str], size: int, rng: np.random.Generator, spare: int = 1
) -> ControlDraws:
    """Draws for `size` control picks: from each stratum in proportion to what can be picked in it, and `spare` times as
    many as duplicates call for.

    Raises ValueError if size is more than there are.
    """
    found, number_F = np.unique(np.array(stratum_F, np.str_), return_inverse=True)
    names = found.tolist()
    members = np.split(np.argsort(number_F, kind="stable"), np.bincount(number_F).cumsum()[:-1])
    totals = [int(eligible_F[places].sum()) for places in members]
    quotas = dict(zip(names, proportional(totals, size), strict=True))
    parts, strata = list[Draws](), list[str]()
    for name, places, total in zip(names, members, totals, strict=True):
        num_draws = min(total, spare * (2 * quotas[name] + SPARE_DRAWS)) if quotas[name] else 0
        drawn = draw(eligible_F[places], num_draws, rng)
        parts.append(Draws(places[drawn.source_N], drawn.at_N))
        strata += [name] * num_draws
    draws = Draws(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return ControlDraws(draws, strata, quotas)


def distinct(total: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`size` of the numbers 0 to total - 1 in random order, each such sequence equally likely. O(size) memory.

    Raises ValueError if size is not from 0 to total.
    """
    if not 0 <= size <= total:
        raise ValueError(f"size must be from 0 to {total}, got {size}")
    # Where more than half are wanted, the others are drawn: else the last numbers would take very many draws.
    wanted = min(size, total - size)
    chosen = np.empty(0, np.int64)
    while len(chosen) < wanted:
        chosen = np.unique(np.concatenate([chosen, rng.integers(total, size=wanted - len(chosen))]))
    if wanted < size:
        is_chosen = np.ones(total, np.bool_)
        is_chosen[chosen] = False
        chosen = np.flatnonzero(is_chosen)
    return rng.permutation(chosen)


def proportional(totals: Sequence[int], size: int) -> list[int]:
    """`size` divided in proportion to the totals. The largest remainders are rounded up, the first of equal ones.

    Raises ValueError if size is more than the totals' sum.
    """
    whole = sum(totals)
    if size > whole:
        raise ValueError(f"size must be at most {whole}, got {size}")
    # In integers: the totals of a web-scale pool times a budget are beyond the exact range of a float.
    shares = [divmod(size * total, whole) if whole else (0, 0) for total in totals]
    left = size - sum(share for share, _ in shares)
    largest = sorted(range(len(totals)), key=lambda place: (-shares[place][1], place))[:left]
    return [share + (place in largest) for place, (share, _) in enumerate(shares)]
