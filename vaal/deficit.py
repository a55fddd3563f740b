"""Do the labels lack parts of the pool? The gate between completing the labels and refining what they know.

The pool is cut into clusters. The *deficit* is the share of a random sample of the same size that the labels lack. A
random sample has one too, by chance; what is above it is the *excess deficit*.

Shape suffixes: C clusters.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 200
"""Random samples with which the labels are compared."""
MOST_P = 0.025
LEAST_EXCESS = 0.02
"""The labels lack something if random samples have such a deficit in fewer than MOST_P of all cases, and the excess is
at least LEAST_EXCESS: less is real where labels are many, and not worth a round."""
LABELS_A_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS = 5, 4, 200


class Deficit(NamedTuple):
    """The deficit of the labels, the mean one of random samples, and the share of these that have at least as much."""

    value: float
    by_chance: float
    p: float

    @property
    def excess(self) -> float:
        return self.value - self.by_chance

    @property
    def speaks(self) -> bool:
        """Whether the labels lack parts of the pool."""
        return self.p < MOST_P and self.excess >= LEAST_EXCESS


def num_clusters(num_labelled: int) -> int:
    """Into how many clusters the pool is cut to compare this many labels with it."""
    return min(max(num_labelled // LABELS_A_CLUSTER, FEWEST_CLUSTERS), MOST_CLUSTERS)


def deficit_of(
    unlabelled_C: NDArray[np.int64], drawn_C: NDArray[np.int64], uncertain_C: NDArray[np.int64], seed: int
) -> Deficit:
    """How much of a random sample the labels lack.

    Args:
        unlabelled_C: unlabelled items of each cluster.
        drawn_C: labels of each cluster that were not picked for uncertainty; they are compared with random samples of
            the same size of all items but the uncertain ones.
        uncertain_C: labels that were. They are concentrated by design: they fill gaps, and make none.
        seed: of the random samples.

    The null distribution is the multivariate hypergeometric one, exact for any share of the pool that is labelled.
    O(NUM_DRAWS C) time. Without labels to compare nothing is lacking, and p is 1.

    Raises ValueError if a count is negative.
    """
    counts = [np.asarray(count_C, np.int64) for count_C in (unlabelled_C, drawn_C, uncertain_C)]
    if any((count_C < 0).any() for count_C in counts):
        raise ValueError("a count of items is negative")
    pool_C, labels_C, fill_C = counts
    size, all_C = int(labels_C.sum()), pool_C + labels_C
    if not size or not pool_C.sum():
        return Deficit(0.0, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    samples = rng.multivariate_hypergeometric(all_C, size, NUM_DRAWS, method="marginals")
    by_chance = _deficits(all_C - samples, samples, fill_C, size)
    value = float(_deficits(pool_C[None], labels_C[None], fill_C, size)[0])
    # The labels are one more sample under the null.
    return Deficit(value, float(by_chance.mean()), float((1 + (by_chance >= value).sum()) / (1 + NUM_DRAWS)))


def _deficits(
    rest_SC: NDArray[np.int64], sample_SC: NDArray[np.int64], fill_C: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    expected_SC = size * rest_SC / rest_SC.sum(axis=1, keepdims=True)
    lacking: NDArray[np.float64] = np.maximum(0.0, expected_SC - sample_SC - fill_C).sum(axis=1) / size
    return lacking
