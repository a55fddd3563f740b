"""Hashes of 128 bits, which files have as 32 hex digits: in memory they are bytes, which is less than half as much."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUM_BYTES = 16
DIGEST = pa.binary(NUM_BYTES)
_BLOCK = 1 << 20
NO_HASH = "0" * 2 * NUM_BYTES


def packed(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Hex texts (N,) as bytes, DIGEST; a null stays one. Raises ValueError for a text that is no such hash."""
    texts = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    fixed = pc.fill_null(texts, NO_HASH).cast(pa.binary()).cast(pa.binary(2 * NUM_BYTES))
    begin = fixed.offset * 2 * NUM_BYTES
    digits = memoryview(fixed.buffers()[1] or b"")[begin : begin + len(fixed) * 2 * NUM_BYTES]
    content = bytes.fromhex(str(digits, "ascii"))
    if len(content) != len(fixed) * NUM_BYTES:
        # Spaces between digits are none.
        raise ValueError("a hash is 32 hex digits")
    found = pa.Array.from_buffers(DIGEST, len(fixed), [None, pa.py_buffer(content)])
    return pc.if_else(texts.is_valid(), found, pa.scalar(None, DIGEST)) if texts.null_count else found


def unpacked(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """DIGEST (N,) as hex texts; a null stays one."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    # The texts of 2^26 hashes are more than one array holds.
    blocks = (chunk.slice(begin, _BLOCK) for chunk in chunks for begin in range(0, len(chunk), _BLOCK))
    return pa.chunked_array([_unpacked(block) for block in blocks], pa.string())


def _unpacked(whole: pa.Array) -> pa.Array:
    begin = whole.offset * NUM_BYTES
    content = memoryview(whole.buffers()[1] or b"")[begin : begin + len(whole) * NUM_BYTES]
    offset_N = np.arange(len(whole) + 1, dtype=np.int32) * (2 * NUM_BYTES)
    buffers = [None, pa.py_buffer(offset_N), pa.py_buffer(content.hex().encode())]
    found = pa.Array.from_buffers(pa.string(), len(whole), buffers)
    return pc.if_else(whole.is_valid(), found, pa.scalar(None, pa.string())) if whole.null_count else found
