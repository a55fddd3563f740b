"""The choice among the candidates by a diversity method; and the clusters of the candidates.

Both use one thread for BLAS, OpenMP and torch: the number of threads changes how sums are split, and so the last bits.
"""

import math
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from engine.campaign.labels import identities
from engine.pool.identity import draws_of
from engine.tables.scores import latents_of
from vaal.diversity import DIVERSIFIERS, Choice

Floats = NDArray[np.float32]
MOST_CLUSTERS = 1024
MOST_FITTED = 262_144
"""Candidates to which the k-means is fitted, at most; a random sample where there are more."""
ASSIGNED_AT_ONCE = 65_536


class Material(NamedTuple):
    """What a batch is chosen from: the candidates, with shard, key, score and latent, in the order of the ranking; the
    latents of what is labelled or out at a vendor, or a sample of them; the candidates' clusters; latents of a random
    sample of the unlabelled pool; where candidates were scored again, what is taken and was too, and the function that
    makes answers of features; and the score of an image that is worth nothing."""

    candidates: pa.Table
    taken: pa.Table
    cluster_M: NDArray[np.int32]
    sample: pa.Table
    taken_again: pa.Table | None = None
    answers: Callable[[Floats], Floats] | None = None
    worthless: float | None = None


def choose(method: str, material: Material, b: int, seed: int) -> Choice:
    """The choice of b candidates by a row of `vaal.diversity.DIVERSIFIERS`, the same for any number of threads.

    Raises:
        KeyError: there is no such method.
        ValueError: b is not from 0 to the number of candidates, or is above the method's limit; or a score or a latent
            is not finite.
    """
    row, candidates = DIVERSIFIERS[method], material.candidates
    if not 0 <= b <= len(candidates):
        raise ValueError(f"b must be from 0 to the {len(candidates)} candidates, got {b}")
    if b == 0:
        return Choice(np.empty(0, np.intp))
    values: dict[str, Callable[[], Any]] = {
        "score_M": lambda: candidates["score"].to_numpy(),
        "logit_M": lambda: candidates["score"].to_numpy(),
        "worth_M": lambda: worth_of(candidates["score"].to_numpy(), material.worthless),
        "latent_MZ": lambda: latents_of(candidates),
        "draw_M": lambda: draws_of(identities(candidates), seed),
        "cluster_M": lambda: material.cluster_M,
        "taken_LZ": lambda: latents_of(material.taken),
        "sample_RZ": lambda: latents_of(material.sample),
        "predicted_M": lambda: candidates["predicted"].to_numpy(),
        "feature_MD": lambda: latents_of(candidates, "feature"),
        "answer_MC": lambda: _answers(material, candidates),
        "labelled_feature_LD": lambda: latents_of(material.taken_again, "feature"),
        "labelled_answer_LC": lambda: _answers(material, material.taken_again),
        "b": lambda: b,
        "seed": lambda: seed,
    }
    with threadpool_limits(1):
        chosen = pkgutil.resolve_name(row.function)(*(values[name]() for name in row.needs))
    return chosen if isinstance(chosen, Choice) else Choice(chosen)


def worth_of(score_M: Floats, worthless: float | None) -> NDArray[np.float64]:
    """How much images are worth (M,), at least 0, by their scores: what is lacking to the score of an image that is
    worth nothing; of labelled-logits, which have none, the odds of an image not to be labelled."""
    if worthless is None:
        return np.exp(-np.clip(score_M.astype(np.float64), -700, 700))
    return np.maximum(0.0, worthless - score_M.astype(np.float64))


def _answers(material: Material, table: pa.Table) -> Floats:
    assert material.answers is not None
    return material.answers(latents_of(table, "feature"))


def cluster(latent_MZ: NDArray[np.float32], seed: int) -> NDArray[np.int32]:
    """The k-means cluster of each candidate, (M,), numbered by their first members.

    k is min(MOST_CLUSTERS, ceil(sqrt(M))), or the number of distinct points where that is less. Bit for bit the same
    for a seed and any number of threads. O(min(M, MOST_FITTED) k Z) time an iteration and O(M k Z) to assign, O(M)
    memory beside the fitted candidates.

    Raises ValueError if a latent is not finite.
    """
    from sklearn.cluster import MiniBatchKMeans

    num_candidates = len(latent_MZ)
    if not num_candidates:
        return np.empty(0, np.int32)
    random = np.random.default_rng(seed)
    # Adding 0 turns -0 into 0, so that equal points have equal bytes.
    fitted = latent_MZ + np.float32(0)
    if num_candidates > MOST_FITTED:
        fitted = fitted[np.sort(random.choice(num_candidates, MOST_FITTED, replace=False))]
    num_distinct = len(np.unique(np.ascontiguousarray(fitted).view(f"V{fitted.itemsize * fitted.shape[1]}")))
    num_clusters = min(MOST_CLUSTERS, math.isqrt(num_candidates - 1) + 1, num_distinct)
    with threadpool_limits(1):
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
