"""Duplicates among the candidates of a batch, and of what is labelled or out already: each picture is paid for once."""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.tables.scores import latents_of
from engine.tables.selections import KINDS
from vaal.duplicates.leaders import cosine_leaders, hamming_leaders
from vaal.duplicates.likeness import Likeness, Pictures, judge_likeness
from vaal.duplicates.perceptual_hash import HASH_BYTES, MAX_DISTANCE, MIRROR_MASK, Hashes

Mode = Literal["off", "exact", "near"]


class Duplicates(NamedTuple):
    """N items: leader (N,), the kept item that stands for each, itself where it is kept, and from N on a row of what is
    known by its bytes alone; kind (N,), None where kept."""

    leader_N: NDArray[np.intp]
    kind_N: NDArray[np.object_]


def find_duplicates(
    items: pa.Table,
    num_fixed: int,
    mode: Mode,
    cosine: float | None,
    known: pa.ChunkedArray | None = None,
) -> Duplicates:
    """Keep only the first item of each group of duplicates.

    Items are in order of priority. The first `num_fixed` are always kept, because they are taken already. An item is
    dropped when it duplicates an earlier kept one: first by its bytes, then among what is left by its picture (not if
    mode is "exact"), then by a cosine of the latents of at least `cosine` (not if that is None). When a later kind
    drops the leader of an item, the new leader leads both; that one and the item need not be duplicates of each other
    by any kind alone.

    If mode is not "off", an item with the bytes of a known image is dropped, and so is what it leads: an image is its
    bytes, also where it has another key by now, or is gone from its shard.

    Args:
        items: content_hash (string), perceptual_hash (binary of HASH_BYTES, null: the picture has none) and latent
            (fixed-size list of float16).
        known: the content hashes of everything that is labelled or out, also of what has no scores.
    """
    leader_N, kind_N = np.arange(len(items)), np.full(len(items), None, np.object_)
    for kind in kinds_of(mode, cosine):
        left = np.flatnonzero(leader_N == np.arange(len(items)))
        found = _leaders(kind, items if len(left) == len(items) else items.take(left), num_fixed, cosine)
        step = np.arange(len(items))
        step[left] = left[found]
        kind_N[left[found != np.arange(len(left))]] = kind
        leader_N = step[leader_N]
    if known is not None and mode != "off":
        # The last: what an item with known bytes leads is a duplicate of the known image.
        step = np.arange(len(items))
        place_N = pc.index_in(items["content_hash"], known.combine_chunks()).fill_null(-1).to_numpy()
        is_known = (place_N >= 0) & (leader_N == step) & (step >= num_fixed)
        step[is_known] = len(items) + place_N[is_known]
        kind_N[is_known] = "bytes"
        leader_N = step[leader_N]
    return Duplicates(leader_N, kind_N)


def kinds_of(mode: Mode, cosine: float | None) -> tuple[str, ...]:
    """The kinds of duplicates that count, the first one first."""
    return KINDS[: {"off": 0, "exact": 1, "near": 2 if cosine is None else 3}[mode]]


def first_like(kind: str, taken: pa.Table, items: pa.Table, cosine: float | None) -> NDArray[np.intp]:
    """The first of the taken rows that each item is like by one kind of duplicates (N,), -1 for none."""
    both, num_taken = pa.concat_tables([taken.select(items.column_names), items]), len(taken)
    leader_N = _leaders(kind, both, num_taken, cosine, only_fixed=True)[num_taken:]
    return np.where(leader_N < num_taken, leader_N, -1)


def _leaders(
    kind: str, items: pa.Table, num_fixed: int, cosine: float | None, *, only_fixed: bool = False
) -> NDArray[np.intp]:
    """The leader of each item by one kind. The first `num_fixed` items are never dropped, so they stay the first; with
    `only_fixed` no others need lead."""
    if kind == "bytes":
        code_N = items["content_hash"].combine_chunks().dictionary_encode().indices.to_numpy()
        # Codes count up in the order in which hashes appear.
        leader_N: NDArray[np.intp] = np.unique(code_N, return_index=True)[1][code_N]
        leader_N[:num_fixed] = np.arange(num_fixed)
        return leader_N
    if kind == "picture":
        return hamming_leaders(
            *_hashes(items["perceptual_hash"]), MAX_DISTANCE, num_fixed, MIRROR_MASK, only_fixed=only_fixed
        )
    assert cosine is not None
    return cosine_leaders(latents_of(items), cosine, num_fixed, only_fixed=only_fixed)


def likeness_of(pool: pa.Table, cosine: float) -> Likeness:
    """Whether near latents mean like pictures: columns perceptual_hash and latent of a random sample of the pool."""
    return judge_likeness(Pictures(latents_of(pool), Hashes(*_hashes(pool["perceptual_hash"]))), cosine)


def _hashes(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Hashes (N, HASH_BYTES), zero where an item has none; and which items have one (N,)."""
    hashes = column.combine_chunks().fill_null(bytes(HASH_BYTES))
    begin = hashes.offset * HASH_BYTES
    flat = np.frombuffer(hashes.buffers()[1], np.uint8)[begin : begin + len(hashes) * HASH_BYTES]
    return flat.reshape(-1, HASH_BYTES), column.is_valid().to_numpy()
