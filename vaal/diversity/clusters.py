"""A turn for every cluster: the round-robin of Cluster-Margin (Citovsky et al. 2021, arXiv 2107.14263, algorithm 1)."""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between


def round_robin(cluster_M: NDArray[np.int32], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice. Candidates come best first; `cluster_M` holds their clusters.

    In every turn each cluster that is not yet empty gives its first candidate left, the smallest cluster first (by its
    number of candidates; ties go to the cluster whose first candidate comes first). O(M log M) time, O(M) memory.

    Raises ValueError if b is not from 0 to M.
    """
    require_between("b", b, 0, len(cluster_M))
    _, first_K, label_M, size_K = np.unique(cluster_M, return_index=True, return_inverse=True, return_counts=True)
    place_K = np.empty(len(size_K), np.intp)
    place_K[np.lexsort((first_K, size_K))] = np.arange(len(size_K))
    # A candidate's turn is the number of those before it in its cluster.
    by_cluster_M = np.argsort(label_M, kind="stable")
    turn_M = np.empty(len(cluster_M), np.intp)
    turn_M[by_cluster_M] = np.arange(len(cluster_M)) - np.repeat(np.cumsum(size_K) - size_K, size_K)
    return np.lexsort((place_K[label_M], turn_M))[:b]
