"""A turn for every cluster: the round-robin of Cluster-Margin (Citovsky et al. 2021, arXiv 2107.14263, algorithm 1)."""

import numpy as np
from numpy.typing import NDArray


def round_robin(cluster_M: NDArray[np.int32], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates, which come best first, in the order of choice; `cluster_M` is the cluster of each.

    In every turn each cluster that is not yet empty gives the first candidate it has left, the smallest cluster first
    (by its size among the candidates; ties: the one whose first candidate comes first). O(M log M) time, O(M) memory.

    Raises:
        ValueError: b is not from 0 to M.
    """
    num_candidates = len(cluster_M)
    if not 0 <= b <= num_candidates:
        raise ValueError(f"b must be from 0 to the {num_candidates} candidates, got {b}")
    _, first_K, label_M, size_K = np.unique(cluster_M, return_index=True, return_inverse=True, return_counts=True)
    place_K = np.empty(len(size_K), np.intp)
    place_K[np.lexsort((first_K, size_K))] = np.arange(len(size_K))
    # A candidate's turn is the number of those before it in its cluster.
    by_cluster_M = np.argsort(label_M, kind="stable")
    turn_M = np.empty(num_candidates, np.intp)
    turn_M[by_cluster_M] = np.arange(num_candidates) - np.repeat(np.cumsum(size_K) - size_K, size_K)
    return np.lexsort((place_K[label_M], turn_M))[:b]
