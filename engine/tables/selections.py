"""The files of a selection: the picks, the candidates with their fates, and figures for the report."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.tables.columns import required
from engine.tables.scores import SHARD_FIELD, scores_schema

SELECTION_SCHEMA = pa.schema(
    [
        *required(pa.int64(), "rank"),
        *required(pa.string(), "shard", "key", "item_id"),
        *required(pa.int64(), "offset", "size_bytes"),
        pa.field("logit", pa.float32()),
        *required(pa.string(), "arm", "reason"),
        pa.field("cluster", pa.int32()),
        *required(pa.int32(), "group_size"),
        pa.field("displaced_shard", pa.string()),
        pa.field("displaced_key", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("predicted", pa.int32()),
    ]
)
"""`score` is that which decided (`scored_by` in the manifest), and `logit` is null where VAAL was not asked.
`group_size` counts the pick and its duplicates among the candidates. `displaced_` names the candidate with the next
lower score that would have been picked by score alone; it is null for a pick that would be, too. `origin` is one of the
ORIGIN_ names. `predicted` is the number of the class that the task learner found most likely before the item had a
label; null without one."""
ORIGIN_INITIAL, ORIGIN_CONTROL, ORIGIN_QUERY = "initial", "control", "query"
ORIGIN_COMPLETION, ORIGIN_UNCERTAINTY = "completion", "uncertainty"
"""Why an item was labelled: at init; in the control arm; by any method without a name of its own here; to complete the
labels; because the task learner is not sure of it."""
CLUSTERS_FILE = "candidates/clusters.parquet"
CLUSTERS_SCHEMA = pa.schema(
    [
        *required(pa.int32(), "cluster"),
        *required(pa.int64(), "pool", "labels", "drawn", "filled", "picks"),
        *required(pa.float64(), "mean_weight"),
        pa.field("shard", pa.string()),
        pa.field("key", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("size_bytes", pa.int64()),
        pa.field("content_hash", pa.string()),
    ]
)
"""A row a cluster, those that lack most first, as `vaal.completion` says. `pool` counts what is in it, labelled or not,
`labels` what has a label, `picks` what was picked now; `drawn` and `filled` are as in `vaal.deficit.Coverage`. The mean
weight is of what can be picked, 0 where nothing can; the item is the nearest to the centre of that, null but for the
first clusters."""
CANDIDATES_FILE = "candidates/candidates.parquet"
"""In its own folder: files beside selection.parquet hold only picks."""
EXCLUDED_FILE = "candidates/excluded.parquet"
"""The images that select.exclude kept out, POSITIONS_SCHEMA; there is one where that option is set."""
HISTOGRAM_FILE = "candidates/scores.parquet"
SAMPLE_FILE = "candidates/sample.parquet"
"""A uniform random sample of the eligible items that were not picked, in the order of drawing."""
SAMPLE_SIZE = 48
SAMPLE_COLUMNS = ("shard", "key", "offset", "size_bytes", "content_hash", "score")
KINDS = ("bytes", "picture", "latent")
"""Kinds of duplicates: equal files, the same picture (by its perceptual hash), nearly equal latents. The first that
applies counts."""
PICKED, CONTROL, DUPLICATE, PASSED_OVER, GROUP_FULL = "picked", "control", "duplicate", "passed over", "group full"
"""Fates of a candidate. Group full: select.per_group picks of its group come before it."""


def row_schema(num_latents: int, others: Sequence[str] = ()) -> pa.Schema:
    """The columns of a scores file that choosing a batch needs, with `others` of those that not all files have. `score`
    is the column that decided."""
    wanted = ["key", "score", "offset", "size_bytes", "content_hash", "perceptual_hash", "latent"]
    scores = scores_schema(num_latents, ["score", *others])
    # Of what is no candidate a score that is dear is not known.
    fields = [scores.field(name).with_nullable(scores.field(name).nullable or name == "score") for name in wanted]
    return pa.schema([SHARD_FIELD, *fields, *(scores.field(name) for name in others)])


def candidates_schema(num_latents: int) -> pa.Schema:
    """The columns of CANDIDATES_FILE, rows in the order of consideration.

    For a duplicate, `duplicate` is its kind and `of_` locates the item that it duplicates: a candidate, a control pick,
    or an item that is labelled or out at a vendor.
    """
    scores = scores_schema(num_latents, ["score"])
    return pa.schema(
        [
            SHARD_FIELD,
            *(scores.field(name) for name in ("key", "offset", "size_bytes", "content_hash", "score", "latent")),
            pa.field("cluster", pa.int32()),
            *required(pa.string(), "fate"),
            pa.field("duplicate", pa.string()),
            pa.field("of_shard", pa.string()),
            pa.field("of_key", pa.string()),
            pa.field("of_offset", pa.int64()),
            pa.field("of_size_bytes", pa.int64()),
            pa.field("of_content_hash", pa.string()),
        ]
    )


def with_hash(table: pa.Table) -> pa.Table:
    """Rows of a selection, with a column content_hash of nulls where an older campaign did not keep it."""
    if "content_hash" in table.column_names:
        return table
    return table.append_column("content_hash", pa.nulls(len(table), pa.string()))


def place_of(table: pa.Table, shard: str, key: str) -> int:
    """The number of an item's row; -1 if it has none."""
    return int(pc.index(pc.and_(pc.equal(table["shard"], shard), pc.equal(table["key"], key)), True).as_py())


def row_of(table: pa.Table, shard: str, key: str) -> dict[str, Any]:
    """An item's row; empty if it has none."""
    place = place_of(table, shard, key)
    return {} if place < 0 else dict(table.slice(place, 1).to_pylist()[0])
