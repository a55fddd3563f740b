"""Orthogonal gradients: the batch whose gradient embeddings span the most that what is labelled does not span.

Greedy maximisation of log det of the kernel matrix of gradient embeddings, K = (A A^T) * (H H^T), by pivoted Cholesky:
each choice has the largest squared norm after projection off the span of those before it (Chen et al. 2018,
arXiv 1709.05135, algorithm 1, with the kernel of Ash et al. 2020, arXiv 1906.03671). K is never formed.

Shape suffixes: M candidates, L labelled, N items of either, C answers, D features, T pivots so far.
"""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between
from vaal.diversity import DIVERSIFIERS
from vaal.diversity.badge import plus_plus
from vaal.diversity.gradient_embeddings import Array, Gradients, gradients_of

MOST_PICKS = DIVERSIFIERS["gradient_matching"].most_picks or 0
"""A number for each pick is kept for every candidate."""
MOST_LABELLED = 512
"""Labelled gradients that count, at most: those that span the most, by the same algorithm."""
LEAST_LEFT = 1e-4
"""A gradient of which less than this share of the squared norm is left lies in the span, as far as float32 can tell."""


def gradient_matching(
    feature_MD: Array,
    answer_MC: Array,
    labelled_feature_LD: Array,
    labelled_answer_LC: Array,
    draw_M: NDArray[np.uint64],
    b: int,
) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice: each has the most of its gradient outside of the span of what
    is labelled and of the choices before it.

    Ties go to the lowest index. The span is everything after at most C D choices (D for one answer), labelled gradients
    included: from there on, choices are those of BADGE's k-means++ beside the ones made, by `draw_M`.

    O((L' + b) M (C + D + L' + b)) time, where L' = min(L, MOST_LABELLED); 4 M (L' + b) bytes beside the arguments.
    One core, 512 features, 10 classes: 1,000 of 100,000 in 40 s.

    Raises ValueError if b is not from 0 to M or is above MOST_PICKS, or a value is not finite.
    """
    require_between("b of gradient_matching", b, 0, min(len(feature_MD), MOST_PICKS))
    if b == 0:
        return np.empty(0, np.intp)
    gradients = gradients_of("candidate", answer_MC, feature_MD)
    labelled_gradients = gradients_of("labelled", labelled_answer_LC, labelled_feature_LD)
    num_labelled = min(len(labelled_feature_LD), MOST_LABELLED)
    labelled = _Residuals(labelled_gradients, num_labelled)
    candidates = _Residuals(gradients, num_labelled + b)
    for _ in range(num_labelled):
        if (place := labelled.largest()) is None:
            break
        pivot = labelled.pivot(place)
        labelled.project(*pivot)
        candidates.project(*pivot)
    chosen: list[int] = []
    while len(chosen) < b and (place := candidates.largest()) is not None:
        chosen.append(place)
        candidates.project(*candidates.pivot(place))
        candidates.left_N[place] = 0
    return plus_plus(gradients, chosen or [int(gradients.squared_N.argmax())], draw_M, b)


class _Residuals:
    """What is left (N,) float64 of the squared norms of N gradients after projections, and their rows (T, N) of the
    Cholesky factor, of at most `most` pivots."""

    def __init__(self, gradients: Gradients, most: int) -> None:
        self.gradients, self.num_pivots = gradients, 0
        self.left_N = gradients.squared_N.astype(np.float64)
        self.factor_TN = np.empty((most, len(self.left_N)), np.float32)

    def largest(self) -> int | None:
        """The place of the largest; None if nothing is left anywhere."""
        place = int(self.left_N.argmax())
        return place if self.left_N[place] > 0 else None

    def pivot(self, place: int) -> tuple[Gradients, Array, float]:
        """Its gradient, its row (T,) of the factor, and what is left of it."""
        factor_T = self.factor_TN[: self.num_pivots, place].copy()
        return self.gradients.some([place]), factor_T, float(self.left_N[place])

    def project(self, gradient: Gradients, factor_T: Array, left: float) -> None:
        """Take the part along a pivot away from all."""
        row_N = self.gradients.products(gradient)[:, 0]
        row_N -= factor_T @ self.factor_TN[: self.num_pivots]
        row_N /= np.float32(np.sqrt(left))
        self.factor_TN[self.num_pivots] = row_N
        self.num_pivots += 1
        self.left_N -= np.square(row_N, dtype=np.float64)
        self.left_N[self.left_N < LEAST_LEFT * self.gradients.squared_N] = 0
