"""The files of a selection: what was picked, the candidates and what became of each, and what the report shows."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.tables.scores import SHARD_FIELD, scores_schema

SELECTION_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("cluster", pa.int32()),
        pa.field("group_size", pa.int32(), nullable=False),
        pa.field("displaced_shard", pa.string()),
        pa.field("displaced_key", pa.string()),
    ]
)
"""`group_size` counts the pick and the candidates that are its duplicates. What it displaced is the candidate with the
next lower logit that would have been picked by its logit alone, null for a pick that would be picked so too."""
CANDIDATES_FILE = "candidates/candidates.parquet"
"""In a folder of its own: all that is beside selection.parquet is picked."""
HISTOGRAM_FILE = "candidates/histogram.parquet"
SAMPLE_FILE = "candidates/sample.parquet"
"""A uniform random sample of what could have been picked and was not, in the order of drawing."""
SAMPLE_SIZE = 48
SAMPLE_COLUMNS = ("shard", "key", "offset", "size_bytes", "logit")
KINDS = ("bytes", "picture", "latent")
"""Of duplicates: the same file, the same picture (by its perceptual hash), nearly the same latent. The first that
applies counts."""
PICKED, CONTROL, DUPLICATE, PASSED_OVER = "picked", "control", "duplicate", "passed over"
"""What becomes of a candidate."""


def row_schema(num_latents: int) -> pa.Schema:
    """The columns of a scores file with which a batch is chosen."""
    wanted = ["key", "logit", "offset", "size_bytes", "content_hash", "perceptual_hash", "latent"]
    scores = scores_schema(num_latents)
    return pa.schema([SHARD_FIELD, *(scores.field(name) for name in wanted)])


def candidates_schema(num_latents: int) -> pa.Schema:
    """The columns of CANDIDATES_FILE, rows in the order in which they come into question.

    Of a duplicate, `duplicate` is its kind, and `of_` says what it is one of: a candidate, a control pick, or an item
    that is labelled or out at a vendor.
    """
    scores = scores_schema(num_latents)
    return pa.schema(
        [
            SHARD_FIELD,
            *(scores.field(name) for name in ("key", "offset", "size_bytes", "logit", "latent")),
            pa.field("cluster", pa.int32()),
            pa.field("fate", pa.string(), nullable=False),
            pa.field("duplicate", pa.string()),
            pa.field("of_shard", pa.string()),
            pa.field("of_key", pa.string()),
            pa.field("of_offset", pa.int64()),
            pa.field("of_size_bytes", pa.int64()),
        ]
    )


def place_of(table: pa.Table, shard: str, key: str) -> int:
    """The number of an item's row; -1 where it has none."""
    return int(pc.index(pc.and_(pc.equal(table["shard"], shard), pc.equal(table["key"], key)), True).as_py())


def row_of(table: pa.Table, shard: str, key: str) -> dict[str, Any]:
    """An item's row; empty where it has none."""
    place = place_of(table, shard, key)
    return {} if place < 0 else dict(table.slice(place, 1).to_pylist()[0])
