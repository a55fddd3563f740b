"""The Parquet files of a scored shard: their columns, and the record of what was committed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vaal.duplicates.perceptual_hash import HASH_BYTES

SHARD_FIELD = pa.field("shard", pa.string(), nullable=False)
ITEM_FIELDS = (
    pa.field("key", pa.string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("size_bytes", pa.int64(), nullable=False),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("perceptual_hash", pa.binary(HASH_BYTES)),
)
"""What is known of an item before it is scored."""
BAD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
QUARANTINE_SCHEMA = pa.schema([SHARD_FIELD, *BAD_SCHEMA])


def scores_schema(num_latents: int, others: Sequence[str] = ()) -> pa.Schema:
    """The columns of a scores file, rows in archive order. `others` are the columns of further acquisitions."""
    return pa.schema(
        [
            SHARD_FIELD,
            *ITEM_FIELDS,
            *(pa.field(name, pa.float32(), nullable=False) for name in ("logit", *others)),
            pa.field("latent", pa.list_(pa.float16(), num_latents), nullable=False),
        ]
    )


class ShardRecord(NamedTuple):
    """What was committed of a shard: `listed = scored + quarantined`.

    A shard that could not be read has a `failure`, and its one quarantine row, without a key, stands for all of it.
    `errors` counts the quarantined items by "stage/error". `sha256` and `size_bytes` are those of the scores file.
    """

    shard: str
    file: str
    listed: int
    scored: int
    quarantined: int
    sha256: str
    size_bytes: int
    failure: str = ""
    errors: dict[str, int] = {}  # noqa: RUF012 - never written to

    def entry(self) -> dict[str, Any]:
        """The shard's entry in the manifest; what is empty is left out."""
        return {key: value for key, value in self._asdict().items() if value not in ("", {})}


def records_of(entries: Iterable[Any]) -> list[ShardRecord]:
    """The records of a manifest's entries."""
    return [ShardRecord(**entry) for entry in entries]


def count_errors(records: Iterable[ShardRecord]) -> Counter[str]:
    """Quarantined items of all these shards by "stage/error"."""
    errors: Counter[str] = Counter()
    for record in records:
        errors.update(record.errors)
    return errors


def to_table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, as tuples in the schema's order, as a table."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(schema)
    return pa.table(columns, schema=schema)


def pack(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(content: bytes) -> pa.Table:
    """What `pack` packed."""
    return pa.ipc.open_stream(content).read_all()


def latents_of(table: pa.Table) -> NDArray[np.float32]:
    """The column `latent` as (N, Z) float32."""
    num_latents = table.schema.field("latent").type.list_size
    flat: NDArray[np.float16] = table["latent"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, num_latents)
