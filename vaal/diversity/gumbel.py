"""Gumbel top-b: sampling a batch by its score (Kirsch et al. 2023, TMLR, arXiv 2106.12059, softmax acquisition)."""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between, require_finite


def gumbel_top_b(logit_M: NDArray[np.float32], draw_M: NDArray[np.uint64], b: int) -> NDArray[np.intp]:
    """Indices (b,) of the candidates with the largest -logit + Gumbel noise, the largest first.

    This draws b candidates one after another without replacement, each with a probability proportional to exp(-logit)
    among those left: the paper's softmax acquisition with coldness 1 and score -logit. An item's noise is a function of
    its `draw` alone, uniform on 64 bits, so the batch does not depend on how the items are sharded or ordered. Ties go
    to the lowest index. float64 inside; O(M log M) time, O(M) memory.

    Raises ValueError if b is not from 0 to M, or a logit is not finite.
    """
    require_between("b", b, 0, len(logit_M))
    require_finite("logits", logit_M)
    noise_M = -np.log(-np.log(uniform(draw_M)))
    return np.argsort(logit_M.astype(np.float64) - noise_M, kind="stable")[:b]


def uniform(draw_M: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in (0, 1) from each draw: the middle of one of 2**52 equal cells, exact in float64."""
    # With 53 bits the last middle, 1 - 2**-54, would round to 1.
    return ((draw_M >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
