"""The share of what a task learner gets right, with an interval.

Shape suffixes: N items, U groups of them that are independent of one another.
"""

import math

import torch
from torch import Tensor

from vaal.signal import Interval

Z = 1.959964
"""Half the width of a 95 % interval, in standard errors."""


def share_of(right_N: Tensor, total_N: Tensor, group_N: Tensor | None = None) -> Interval:
    """The share of all that is right, and its 95 % interval: Wilson's, for as many independent answers as the spread
    over the groups says (Korn and Graubard, Survey Methodology 24, 1998).

    Args:
        right_N: how much of each item is right, and total_N out of how much; of an image 0 or 1 of 1, of a mask pixels.
        group_N: numbers of the groups, int64; without it each item is one.

    Raises ValueError if there is nothing.
    """
    if not total_N.sum() > 0:
        raise ValueError("no item has an answer")
    place_N = torch.arange(len(total_N)) if group_N is None else torch.unique(group_N, return_inverse=True)[1]
    zero_U = torch.zeros(int(place_N.max()) + 1, dtype=torch.float64)
    right_U, total_U = (zero_U.index_add(0, place_N, part.double()) for part in (right_N, total_N))
    number, all_of = len(zero_U), float(total_U.sum())
    share = float(right_U.sum()) / all_of
    error = float((right_U - share * total_U).square().sum()) * number / max(1, number - 1) / all_of**2
    independent = share * (1 - share) / error if number > 1 and error > 0 else float(number)
    factor = 1 + Z**2 / independent
    middle = (share + Z**2 / (2 * independent)) / factor
    half = Z * math.sqrt(share * (1 - share) / independent + Z**2 / (4 * independent**2)) / factor
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
