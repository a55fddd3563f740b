"""The Parquet files of a scored shard: their columns, and the record of a committed shard."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.tables.columns import required
from vaal.duplicates.perceptual_hash import HASH_BYTES

(SHARD_FIELD,) = required(pa.string(), "shard")
ITEM_FIELDS = (
    *required(pa.string(), "key"),
    *required(pa.int64(), "offset", "size_bytes"),
    *required(pa.string(), "content_hash"),
    pa.field("perceptual_hash", pa.binary(HASH_BYTES)),
)
"""Columns of an item before it is scored."""
BAD_SCHEMA = pa.schema(
    [
        *required(pa.string(), "key"),
        *required(pa.int64(), "offset"),
        *required(pa.string(), "stage", "error", "message"),
        pa.field("content_hash", pa.string()),
    ]
)
QUARANTINE_SCHEMA = pa.schema([SHARD_FIELD, *BAD_SCHEMA])


WHOLE_COLUMNS = ("predicted", "cluster", "distance")
"""Columns of whole numbers: the most likely class of the task learner; the nearest centre, and the squared distance
from it in units of the centres' scale."""


def score_field(name: str) -> pa.Field:
    """A column of scores."""
    return pa.field(name, pa.int32() if name in WHOLE_COLUMNS else pa.float32(), nullable=False)


def scores_schema(num_latents: int, scores: Sequence[str] = ("logit",)) -> pa.Schema:
    """The columns of a scores file, rows in archive order. `scores` are those of acquisition functions, and of
    WHOLE_COLUMNS."""
    return pa.schema(
        [
            SHARD_FIELD,
            *ITEM_FIELDS,
            *(score_field(name) for name in scores),
            *required(pa.list_(pa.float16(), num_latents), "latent"),
        ]
    )


class ShardRecord(NamedTuple):
    """The counts and the scores file of a committed shard: `listed = scored + quarantined`.

    A shard that could not be read has a `failure`, and one quarantine row without a key for the whole shard.
    `unused_` counts the files that belong to no item, and names one.
    `errors` counts the quarantined items by "stage/error". `sha256` and `size_bytes` are those of the scores file;
    `footer_sha256` is that of its Parquet footer where its pages have checksums, so that a part of it can be verified.
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
    unused_files: int = 0
    unused_bytes: int = 0
    unused_example: str = ""
    footer_sha256: str = ""

    def entry(self) -> dict[str, Any]:
        """The shard's entry in the manifest, without what is as by default."""
        return {k: value for k, value in self._asdict().items() if value != self._field_defaults.get(k)}


FORGOTTEN, BY_PERSON = "Forgotten", "campaign"
"""Class of error and stage of items that a person decided to forget: they are not scored, and are no damage."""


def without_forgotten(errors: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """The numbers of damaged items by "stage/error", and how many items were forgotten."""
    name = f"{BY_PERSON}/{FORGOTTEN}"
    return {error: count for error, count in errors.items() if error != name}, errors.get(name, 0)


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


def pack(table: pa.Table, compression: str | None = None) -> bytes:
    """A table as an Arrow stream."""
    sink, options = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(content: bytes) -> pa.Table:
    """The table of an Arrow stream."""
    return pa.ipc.open_stream(content).read_all()


def latents_of(table: pa.Table, column: str = "latent") -> NDArray[np.float32]:
    """The column `latent`, or another one of lists, as (N, Z) float32."""
    num_latents = table.schema.field(column).type.list_size
    flat: NDArray[np.float16] = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(-1, num_latents)
