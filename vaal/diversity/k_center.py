"""Core-set selection by k-center: farthest-first traversal (Gonzalez 1985; Sener and Savarese 2018, algorithm 1)."""

import numpy as np
from numpy.typing import NDArray

BLOCK_ITEMS = 8192
"""Candidates whose differences to a center are held at a time."""


def k_center_greedy(latent_MZ: NDArray[np.float32], centers_LZ: NDArray[np.float32], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates, each in turn the farthest from all centers and all chosen before, in that order.

    The largest distance of a candidate to its nearest center or choice is at most twice what the best b choices reach.
    Distances are Euclidean, float32, taken from differences and so exact for near-duplicates; ties go to the lowest
    index. Without centers the first candidate is chosen first. O((L + b) M Z) time, O(M + BLOCK_ITEMS Z) memory.

    Raises:
        ValueError: b is not from 1 to M, or a latent is not finite.
    """
    if not 1 <= b <= len(latent_MZ):
        raise ValueError(f"b must be from 1 to the {len(latent_MZ)} candidates, got {b}")
    for name, latents in (("candidate", latent_MZ), ("center", centers_LZ)):
        num_bad = int((~np.isfinite(latents)).any(axis=1).sum())
        if num_bad:
            raise ValueError(f"{num_bad} of {len(latents)} {name} latents are not finite")
    squared_M = np.full(len(latent_MZ), np.inf, np.float32)
    for center_Z in centers_LZ:
        _approach(squared_M, latent_MZ, center_Z)
    chosen: list[int] = []
    for _ in range(b):
        chosen.append(int(squared_M.argmax()))
        _approach(squared_M, latent_MZ, latent_MZ[chosen[-1]])
        # Below every distance: among duplicates of what is chosen, none is chosen twice.
        squared_M[chosen[-1]] = -1
    return np.array(chosen, np.intp)


def _approach(squared_M: NDArray[np.float32], latent_MZ: NDArray[np.float32], center_Z: NDArray[np.float32]) -> None:
    """Lower the squared distances to those from a new center."""
    for begin in range(0, len(latent_MZ), BLOCK_ITEMS):
        block = slice(begin, begin + BLOCK_ITEMS)
        difference = latent_MZ[block] - center_Z
        np.minimum(squared_M[block], np.einsum("mz,mz->m", difference, difference), out=squared_M[block])
