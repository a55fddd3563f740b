"""Do the labels lack parts of the pool? The gate between completing the labels and refining what they know.

Two questions on the clusters of the pool. *Can it be chance?* The energy distance of the labels from the rest of the
pool is compared with that of random samples of the same size, which gives a p-value that is exact at any size. *Is it
worth a round?* The *deficit* is the share of a random sample of that size that the labels lack, over a few coarse
clusters. Random samples have one too, by chance; what is above it is the *excess deficit*.

Labels that were picked for uncertainty are concentrated by design: they fill gaps in the deficit, and make none.

Shape suffixes: C clusters, G coarse clusters, S random samples, Z latent units.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 400
"""Random samples with which the labels are compared."""
MOST_P = 0.025
LEAST_EXCESS = 0.02
"""The labels lack something if random samples are as far from the pool in fewer than MOST_P of all cases, and the
excess is at least LEAST_EXCESS: less is real where labels are many, and not worth a round."""
LABELS_A_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS = 5, 4, 200
MOST_COMPARED = 2000
"""Clusters between which all distances are held, at most; more are joined."""
MOST_EXACT = 10**9
"""Items of a pool from which samples are drawn without replacement."""
Counts = NDArray[np.int64]


class Coverage(NamedTuple):
    """How the items of the C clusters are labelled, int64: unlabelled; labelled, but not for uncertainty; and those
    that are labelled for uncertainty, or are out to be labelled."""

    unlabelled_C: Counts
    drawn_C: Counts
    filled_C: Counts


class Deficit(NamedTuple):
    """The deficit of the labels, the mean one of random samples, and the share of these that are at least as far from
    the pool. `num_clusters` are the coarse ones."""

    value: float
    by_chance: float
    p: float
    num_clusters: int

    @property
    def excess(self) -> float:
        return self.value - self.by_chance

    @property
    def speaks(self) -> bool:
        """Whether the labels lack parts of the pool."""
        return self.p < MOST_P and self.excess >= LEAST_EXCESS


def num_coarse(num_labelled: int) -> int:
    """Into how many coarse clusters the pool is cut to compare this many labels with it."""
    return min(max(num_labelled // LABELS_A_CLUSTER, FEWEST_CLUSTERS), MOST_CLUSTERS)


def deficit_of(coverage: Coverage, centre_CZ: NDArray[np.float32], seed: int) -> Deficit:
    """How much of a random sample the labels lack, and whether that can be chance.

    The labels that were not picked for uncertainty are compared with random samples of the same size of all items: the
    others were picked from what these had left. The null distribution is the multivariate hypergeometric one, exact for
    any share of the pool that is labelled. O(NUM_DRAWS C min(C, MOST_COMPARED)) time. Without labels to compare nothing
    is lacking, and p is 1.

    Args:
        centre_CZ: the clusters' centres, whole numbers as `vaal.centres` has them.
        seed: of the random samples and the coarse clusters.

    Raises ValueError if a count is negative.
    """
    counts = [np.asarray(count_C, np.int64) for count_C in coverage]
    if any((count_C < 0).any() for count_C in counts):
        raise ValueError("a count of items is negative")
    free_C, labels_C, fill_C = counts
    size, all_C = int(labels_C.sum()), free_C + labels_C + fill_C
    if not 0 < size < all_C.sum():
        return Deficit(0.0, 0.0, 1.0, 0)
    samples = _random_samples(all_C, size, seed)
    # The labels are one more sample under the null.
    labels_SC = np.concatenate([labels_C[None], samples])
    far_S = _energies(labels_SC, all_C, centre_CZ, seed)
    coarse_C = _coarse(centre_CZ, all_C, num_coarse(size), seed)
    rest_SG, sample_SG, fill_1G = (_summed(part, coarse_C) for part in (all_C - labels_SC, labels_SC, fill_C[None]))
    lacking_S = _deficits(rest_SG, sample_SG, fill_1G, size)
    # Distances of equal samples differ by rounding alone.
    p = float((far_S >= far_S[0] * (1 - 1e-9)).sum() / len(far_S))
    return Deficit(float(lacking_S[0]), float(lacking_S[1:].mean()), p, int(coarse_C.max()) + 1)


def _random_samples(all_C: Counts, size: int, seed: int) -> Counts:
    """How many items of each cluster are in each of NUM_DRAWS random samples, (S, C)."""
    rng, total = np.random.default_rng(seed), int(all_C.sum())
    if total < MOST_EXACT:
        return rng.multivariate_hypergeometric(all_C, size, NUM_DRAWS, method="marginals")
    # So many items are hardly fewer without the sample, and numpy counts no further.
    return np.minimum(rng.multinomial(size, all_C / total, NUM_DRAWS), all_C)


def _deficits(rest_SG: Counts, sample_SG: Counts, fill_1G: Counts, size: int) -> NDArray[np.float64]:
    expected_SG = size * rest_SG / rest_SG.sum(axis=1, keepdims=True)
    lacking: NDArray[np.float64] = np.maximum(0.0, expected_SG - sample_SG - fill_1G).sum(axis=1) / size
    return lacking


def _energies(labels_SC: Counts, all_C: Counts, centre_CZ: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """The energy distance of each sample from the rest (Szekely and Rizzo 2013, Journal of Statistical Planning and
    Inference 143), where an item is at its cluster's centre: (S,), from 0."""
    if len(centre_CZ) > MOST_COMPARED:
        import torch

        from vaal.centres import nearest

        few = np.sort(np.random.default_rng([seed, 1]).permutation(len(centre_CZ))[:MOST_COMPARED])
        joined_C = nearest(torch.from_numpy(centre_CZ), torch.from_numpy(centre_CZ[few]))[0].numpy()
        labels_SC, all_C, centre_CZ = _summed(labels_SC, joined_C), _summed(all_C[None], joined_C)[0], centre_CZ[few]
        labels_SC, all_C = _padded(labels_SC, len(few)), _padded(all_C[None], len(few))[0]
    rest_SC = all_C - labels_SC
    gap_SC = labels_SC / labels_SC.sum(axis=1, keepdims=True) - rest_SC / rest_SC.sum(axis=1, keepdims=True)
    centre = centre_CZ.astype(np.float64)
    norm_C = (centre**2).sum(axis=1)
    distance_CC = np.sqrt(np.maximum(0.0, norm_C[:, None] + norm_C - 2 * centre @ centre.T))
    far_S: NDArray[np.float64] = -((gap_SC @ distance_CC) * gap_SC).sum(axis=1)
    return far_S


def _coarse(centre_CZ: NDArray[np.float32], count_C: Counts, num_clusters: int, seed: int) -> NDArray[np.int32]:
    """The coarse cluster of each cluster, (C,)."""
    import torch

    from vaal.centres import k_means, nearest

    centres = torch.from_numpy(centre_CZ)
    coarse_C: NDArray[np.int32] = nearest(centres, k_means(centres, num_clusters, seed, count_C, 10))[0].numpy()
    return coarse_C


def _summed(count_SC: Counts, group_C: NDArray[np.int32]) -> Counts:
    """The counts of groups of clusters."""
    sum_GS = np.zeros((int(group_C.max()) + 1, len(count_SC)), np.int64)
    np.add.at(sum_GS, group_C, count_SC.T)
    return np.ascontiguousarray(sum_GS.T)


def _padded(count_SC: Counts, num_clusters: int) -> Counts:
    return np.pad(count_SC, ((0, 0), (0, num_clusters - count_SC.shape[1])))
