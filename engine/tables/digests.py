"""Hashes of 128 bits, which files have as 32 hex digits: in memory they are bytes, which is less than half as much."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NUM_BYTES = 16
DIGEST = pa.binary(NUM_BYTES)
_BLOCK = 1 << 17
NO_HASH = "0" * 2 * NUM_BYTES


def packed(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Hex texts (N,) as bytes, DIGEST; a null stays one. Raises ValueError for a text that is no such hash."""
    texts = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # In blocks: on the way there are four copies of the texts.
    content = b"".join(_bytes_of(texts.slice(begin, _BLOCK)) for begin in range(0, len(texts), _BLOCK))
    found = pa.Array.from_buffers(DIGEST, len(texts), [None, pa.py_buffer(content)])
    return pc.if_else(texts.is_valid(), found, pa.scalar(None, DIGEST)) if texts.null_count else found


def _bytes_of(texts: pa.Array) -> bytes:
    fixed = pc.fill_null(texts, NO_HASH).cast(pa.binary()).cast(pa.binary(2 * NUM_BYTES))
    begin = fixed.offset * 2 * NUM_BYTES
    digits = memoryview(fixed.buffers()[1] or b"")[begin : begin + len(fixed) * 2 * NUM_BYTES]
    content = bytes.fromhex(str(digits, "ascii"))
    if len(content) != len(fixed) * NUM_BYTES:
        # Spaces between digits are none.
        raise ValueError("a hash is 32 hex digits")
    return content


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


def digest_of(parts: Iterable[pa.Array]) -> str:
    """SHA-256 of all different ones of arrays of DIGEST without nulls: their texts, sorted, a line each."""
    # Words of 8 bytes: their order is that of the texts.
    words_N2 = np.concatenate([np.empty((0, 2), np.uint64), *map(_words, parts)])
    order = np.lexsort((words_N2[:, 1], words_N2[:, 0]))
    digest = hashlib.sha256()
    for begin in range(0, len(order), _BLOCK):
        # With the one before, where there is one.
        here = words_N2[order[max(begin - 1, 0) : begin + _BLOCK]]
        new = here[np.append(begin == 0, (here[1:] != here[:-1]).any(axis=1))]
        lines = np.full((len(new), 1 + 2 * NUM_BYTES), ord("\n"), np.uint8)
        lines[:, 1:] = np.frombuffer(new.astype(">u8").tobytes().hex().encode(), np.uint8).reshape(-1, 2 * NUM_BYTES)
        digest.update(lines.tobytes()[int(begin == 0) :])
    return digest.hexdigest()


def _words(hashes: pa.Array) -> NDArray[np.uint64]:
    words = np.frombuffer(hashes.buffers()[1] or b"", ">u8").reshape(-1, 2)
    return words[hashes.offset : hashes.offset + len(hashes)].astype(np.uint64)
