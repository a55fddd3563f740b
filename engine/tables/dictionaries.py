"""Columns of texts that few different ones repeat: a number a row, and each text once."""

from collections.abc import Callable

import pyarrow as pa


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
