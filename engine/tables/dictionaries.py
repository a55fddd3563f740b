"""Columns of texts that few different ones repeat: a number a row, and each text once."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def encoded(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A column of whatever type of text or number another program gave it, as it is in memory by the field."""
    if column.type == field.type or not pa.types.is_dictionary(field.type):
        return column.cast(field.type)
    return column.cast(pa.string()).dictionary_encode()


def as_read_by(read: Callable[[str], str], column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts of a dictionary as a reader of cells has them: null where it reads nothing."""
    whole = column.unify_dictionaries()
    texts = whole.chunks[0].dictionary if whole.num_chunks else pa.array([], pa.string())
    here = pa.array([read(text or "") or None for text in texts.to_pylist()], pa.string())
    if here.equals(texts):
        return whole
    return pa.chunked_array([here.take(chunk.indices) for chunk in whole.chunks], pa.string()).dictionary_encode()


def coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """The different texts of a column without nulls, in no order, and which of them each row has (N,)."""
    whole = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = whole.unify_dictionaries().chunks
    if not chunks:
        return [], np.empty(0, np.int32)
    code_N = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    # A dictionary may have texts that no row has.
    used = np.flatnonzero(np.bincount(code_N, minlength=1))
    rank = np.zeros(int(used.max(initial=0)) + 1, np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    texts: list[str] = chunks[-1].dictionary.take(pa.array(used)).to_pylist() if len(code_N) else []
    return texts, rank[code_N]
