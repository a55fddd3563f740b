"""Gradient embeddings: the gradient of an item's loss by the weights of a linear head, an outer product never formed.

The loss counts the answer that the task learner predicts as true. With probabilities p and features h its gradient is
(p - onehot(predicted)) h^T (Ash et al. 2020, arXiv 1906.03671, section 3). The inner product of two of them is that of
their answers times that of their features, so N items take N (C + D) numbers instead of N C D.

Shape suffixes: N items, R and K some of them, C answers, D features.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_finite

Array = NDArray[np.float32]

BLOCK_VALUES = 2**20
"""Products held at a time."""
SLACK = np.float32(1e-5)
"""A squared distance of less than this share of the squared norm is below the rounding of float32, and counts as 0."""


class Gradients(NamedTuple):
    """N gradient embeddings: answers less what is predicted (N, C), features (N, D), squared norms (N,), float32."""

    answer_NC: Array
    feature_ND: Array
    squared_N: Array

    def some(self, places: "NDArray[np.intp] | list[int] | slice") -> "Gradients":
        return Gradients(self.answer_NC[places], self.feature_ND[places], self.squared_N[places])

    def products(self, others: "Gradients") -> Array:
        """Inner products (N, K) with K others."""
        product_NK: Array = self.answer_NC @ others.answer_NC.T
        product_NK *= self.feature_ND @ others.feature_ND.T
        return product_NK

    def squared_distances(self, others: "Gradients") -> Array:
        """Squared distances (N,) to the nearest of K others, from products: those within SLACK are 0."""
        nearest_N = np.empty(len(self.squared_N), np.float32)
        size = max(1, BLOCK_VALUES // len(others.squared_N))
        for begin in range(0, len(nearest_N), size):
            rows = self.some(slice(begin, begin + size))
            distance_RK = rows.products(others)
            distance_RK *= -2
            distance_RK += others.squared_N
            nearest_R = distance_RK.min(axis=1) + rows.squared_N
            nearest_N[begin : begin + size] = np.where(nearest_R <= SLACK * rows.squared_N, 0, nearest_R)
        return nearest_N


def gradients_of(name: str, answer_NC: Array, feature_ND: Array) -> Gradients:
    """The embeddings of N items; the arrays are not copied.

    Raises ValueError if the numbers of rows differ, or a value or a norm is not finite in float32.
    """
    if len(answer_NC) != len(feature_ND):
        raise ValueError(f"{len(answer_NC)} {name} answers for {len(feature_ND)} {name} features")
    require_finite(f"{name} answers", answer_NC)
    require_finite(f"{name} features", feature_ND)
    squared_N = np.einsum("nc,nc->n", answer_NC, answer_NC) * np.einsum("nd,nd->n", feature_ND, feature_ND)
    require_finite(f"{name} gradient norms", squared_N)
    return Gradients(answer_NC, feature_ND, squared_N)
