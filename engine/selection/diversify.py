"""A round's choice among the candidates, by every value of select.diversity."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.pool.identity import draw_of
from vaal.diversity.clusters import round_robin
from vaal.diversity.facility import two_round_cover
from vaal.diversity.gumbel import gumbel_top_b
from vaal.diversity.k_center import k_center_greedy

MOST_CLUSTERS = 1024
MOST_FITTED = 262_144
"""Candidates the k-means is fitted to; where there are more, this many are drawn."""
ASSIGNED_AT_ONCE = 65_536
PART_ITEMS = 65_536
"""Candidates in a part of the two-round facility location, at most."""


class Choice(NamedTuple):
    """picked_B (b,) intp: indices of candidates in order of choice. `objective`: of facility location alone."""

    picked_B: NDArray[np.intp]
    objective: float | None = None


class _Question(NamedTuple):
    candidates: pa.Table
    taken: pa.Table
    cluster_M: NDArray[np.int32]
    b: int
    seed: int


def choose(
    method: str, candidates: pa.Table, taken: pa.Table, cluster_M: NDArray[np.int32], b: int, seed: int
) -> Choice:
    """The choice of b candidates by one of METHODS.

    `candidates`: shard, key, logit and latent, in the order of (logit, shard, key). `taken`: the latents of what is
    labelled or out at a vendor, or a sample of them. `cluster_M`: the candidates' clusters, which `clusters` alone
    reads. The choice is the same for any number of threads.

    Raises:
        KeyError: there is no such method.
        ValueError: b is not from 0 to the number of candidates, or above what `facility` is good for; or a logit or a
            latent is not finite.
    """
    answer = METHODS[method]
    if not 0 <= b <= len(candidates):
        raise ValueError(f"b must be from 0 to the {len(candidates)} candidates, got {b}")
    if b == 0:
        return Choice(np.empty(0, np.intp))
    with _one_thread():
        return answer(_Question(candidates, taken, cluster_M, b, seed))


def latents_of(table: pa.Table) -> NDArray[np.float32]:
    """The column `latent` as (N, Z) float32."""
    num_latents = table.schema.field("latent").type.list_size
    flat: NDArray[np.float16] = table["latent"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, num_latents)


def cluster(latent_MZ: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """The k-means cluster of each candidate, (M,), numbered by their first members.

    k is min(MOST_CLUSTERS, ceil(sqrt(M))), or the number of distinct points where that is less. Bit for bit the same
    for a seed and any number of threads. O(min(M, MOST_FITTED) k Z) time an iteration and O(M k Z) to assign, O(M)
    memory beside the fitted candidates.

    Raises:
        ValueError: a latent is not finite.
    """
    from sklearn.cluster import MiniBatchKMeans

    num_candidates = len(latent_MZ)
    if not num_candidates:
        return np.empty(0, np.int32)
    random = np.random.default_rng(seed)
    # Adding 0 makes -0 into 0, so that points which are equal have equal bytes.
    fitted = latent_MZ + np.float32(0)
    if num_candidates > MOST_FITTED:
        fitted = fitted[np.sort(random.choice(num_candidates, MOST_FITTED, replace=False))]
    num_distinct = len(np.unique(np.ascontiguousarray(fitted).view(f"V{fitted.itemsize * fitted.shape[1]}")))
    num_clusters = min(MOST_CLUSTERS, math.isqrt(num_candidates - 1) + 1, num_distinct)
    with _one_thread():
        means = MiniBatchKMeans(num_clusters, random_state=seed % 2**32, batch_size=8192, max_iter=20, n_init=1)
        means.fit(fitted)
        blocks = [
            means.predict(latent_MZ[begin : begin + ASSIGNED_AT_ONCE])
            for begin in range(0, num_candidates, ASSIGNED_AT_ONCE)
        ]
    _, first_K, inverse_M = np.unique(np.concatenate(blocks), return_index=True, return_inverse=True)
    number_K = np.empty(len(first_K), np.int32)
    number_K[np.argsort(first_K)] = np.arange(len(first_K))
    return number_K[inverse_M]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for BLAS, OpenMP and torch: sums split otherwise by their number, and differ in the last bits."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        yield


def _none(question: _Question) -> Choice:
    return Choice(np.arange(question.b))


def _gumbel(question: _Question) -> Choice:
    names = (question.candidates[name].to_pylist() for name in ("shard", "key"))
    draws = [draw_of(shard, key, question.seed) for shard, key in zip(*names, strict=True)]
    return Choice(gumbel_top_b(question.candidates["logit"].to_numpy(), np.array(draws, np.uint64), question.b))


def _clusters(question: _Question) -> Choice:
    return Choice(round_robin(question.cluster_M, question.b))


def _k_center(question: _Question) -> Choice:
    return Choice(k_center_greedy(latents_of(question.candidates), latents_of(question.taken), question.b))


def _facility(question: _Question) -> Choice:
    latent_MZ = latents_of(question.candidates)
    num_parts = -(-len(latent_MZ) // PART_ITEMS)
    cover = two_round_cover(latent_MZ, latents_of(question.taken), question.b, question.seed, num_parts)
    return Choice(cover.picked_B, cover.objective)


def _mini_batches(question: _Question) -> Choice:
    import torch

    from vaal.diversity.mini_batches import choose_in_mini_batches

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        picked = choose_in_mini_batches(
            question.candidates["logit"].to_numpy(),
            latents_of(question.candidates),
            latents_of(question.taken),
            question.b,
            question.seed,
        )
    finally:
        torch.set_num_threads(num_threads)
    return Choice(picked)


METHODS: dict[str, Callable[[_Question], Choice]] = {
    "none": _none,
    "gumbel": _gumbel,
    "clusters": _clusters,
    "k_center": _k_center,
    "facility": _facility,
    "mini_batches": _mini_batches,
}
"""By the value of select.diversity."""
