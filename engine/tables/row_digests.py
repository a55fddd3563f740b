"""A digest of the rows of a table, in whatever order they are."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

_BLOCK = 65_536


def digest_of_rows(table: pa.Table) -> str:
    """SHA-256 of the sorted rows as texts, hexadecimal: columns are separated by tabs, rows by lines, and a null is the
    word None."""
    columns = (pc.fill_null(column.cast(pa.string()), "None") for column in table.columns)
    lines = pc.binary_join_element_wise(*columns, "\t")
    lines, digest = lines.take(pc.sort_indices(lines)), hashlib.sha256()
    for begin in range(0, len(lines), _BLOCK):
        text = "\n".join(lines.slice(begin, _BLOCK).to_pylist())
        digest.update((f"\n{text}" if begin else text).encode())
    return digest.hexdigest()
