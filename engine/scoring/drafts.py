"""The Parquet files in which a shard's scores are committed, and the shard's record.

A shard is committed when its scores file exists. The file is written after the quarantine file, whole or not at all,
and only if every listed item is either scored or quarantined.
"""

import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError, StorageError, UnreadableError, one_line
from engine.storage.location import Location
from engine.tables.score_reader import footer_sha256
from engine.tables.scores import (
    BAD_SCHEMA,
    ITEM_FIELDS,
    QUARANTINE_SCHEMA,
    ShardRecord,
    scores_schema,
    to_table,
    unpack,
)

ROW_GROUP_ITEMS = 16_384
# Keys and hashes are all different: a dictionary of them doubles the time and takes space. Columns without compression
# do not compress, and a selection reads uncompressed logits three times as fast.
WRITER_OPTIONS: dict[str, Any] = {
    "compression": {name: "zstd" for name in ("shard", "key", "offset", "size_bytes", "content_hash")},
    "use_dictionary": ["shard"],
    "write_page_checksum": True,
}
DRAFT_BYTES = 8 << 20
"""A larger draft is on disk and not in memory."""
_RECORD_KEY = b"vaal.ledger"


class Draft:
    """A shard's files while its chunks arrive in any order. A chunk waits only for those before it.

    Memory is bounded by a row group and `DRAFT_BYTES`, for a shard of any size.
    """

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self._waiting: dict[int, dict[str, Any]] = {}
        self._next, self._listed, self._failure = 0, -1, ""
        self._unused: dict[str, Any] = {}
        self._tables, self._bad = list[pa.Table](), list[pa.Table]()
        self._num_held = self._num_scored = 0
        self._file = cast("BinaryIO", tempfile.SpooledTemporaryFile(DRAFT_BYTES))  # noqa: SIM115
        self._writer: pq.ParquetWriter | None = None

    @property
    def is_whole(self) -> bool:
        return self._listed >= 0

    def add(self, row: dict[str, Any]) -> bool:
        """Add a chunk's row, as `Scorer.score_chunk` makes it. Returns False for a chunk that was added before."""
        if row["chunk"] < self._next or row["chunk"] in self._waiting:
            return False
        self._waiting[row["chunk"]] = row
        while (row := self._waiting.pop(self._next, {})) and not self.is_whole:
            self._next += 1
            self._append(row)
        return True

    def _append(self, row: dict[str, Any]) -> None:
        self._listed, self._failure = row["listed"], row["failure"]
        self._unused = {name: row[name] for name in ("unused_files", "unused_bytes", "unused_example") if name in row}
        scored = unpack(row["scored"])
        self._tables.append(scored)
        self._num_held += len(scored)
        self._num_scored += len(scored)
        if row["bad"]:
            self._bad.append(unpack(row["bad"]))
        while self._num_held >= ROW_GROUP_ITEMS:
            self._write(ROW_GROUP_ITEMS)

    def _write(self, count: int) -> None:
        """Move the first `count` rows from memory to the draft, as a row group."""
        held = pa.concat_tables(self._tables)
        rows, rest = held.slice(0, count), held.slice(count)
        self._tables, self._num_held = [rest], len(rest)
        scores = rows.schema.names[len(ITEM_FIELDS) : rows.schema.get_field_index("latent")]
        schema = scores_schema(rows.schema.field("latent").type.list_size, scores)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, schema, write_statistics=["key", *scores], **WRITER_OPTIONS)
        columns = [rows[name].combine_chunks() for name in schema.names[1:]]
        table = pa.table([pa.repeat(self.shard, len(rows)), *columns], schema=schema)
        with self._on_scratch_disk():
            self._writer.write_table(table, ROW_GROUP_ITEMS)

    def commit(self, scores: Location, quarantine: Location, file: str) -> ShardRecord:
        """Write the shard's files under this name into these folders.

        Raises:
            RuntimeError: items were lost or doubled; nothing is written.
            StorageError: the storage refused.
        """
        if self._failure:
            self._fail()
        bad = pa.concat_tables([BAD_SCHEMA.empty_table(), *self._bad])
        if self._listed != self._num_scored + len(bad):
            raise RuntimeError(
                f"{self.shard}: listed {self._listed}, scored {self._num_scored}, quarantined {len(bad)}; nothing of "
                "the shard is committed, please report this"
            )
        classes = zip(bad["stage"].to_pylist(), bad["error"].to_pylist(), strict=True)
        errors = dict(sorted(Counter(f"{stage}/{error}" for stage, error in classes).items()))
        counts = self._listed, self._num_scored, len(bad)
        record = ShardRecord(self.shard, file, *counts, "", 0, self._failure, errors, **self._unused)
        if self._num_held or self._writer is None:
            self._write(self._num_held)
        assert self._writer is not None
        self._writer.add_key_value_metadata({_RECORD_KEY: json.dumps(record.entry()).encode()})
        with self._on_scratch_disk():
            self._writer.close()
            self._file.flush()
        size_bytes = self._file.tell()
        footer = footer_sha256(self._file, size_bytes)
        if len(bad):
            table = pa.table([pa.repeat(self.shard, len(bad)), *bad.columns], schema=QUARANTINE_SCHEMA)
            (quarantine / file).write_table(table)
        self._file.seek(0)
        sha256 = (scores / file).write_file(self._file)
        self._file.close()
        return record._replace(sha256=sha256, size_bytes=size_bytes, footer_sha256=footer)

    @contextmanager
    def _on_scratch_disk(self) -> Iterator[None]:
        """Names the folder of temporary files in an error of theirs."""
        try:
            yield
        except OSError as error:
            # Otherwise what is left in its buffer is reported once more when the file is let go.
            with suppress(OSError):
                self._file.close()
            fix = "free space there, or export TMPDIR=FOLDER, and run again"
            why = error.strerror or one_line(error)
            raise StorageError(f"{tempfile.gettempdir()}: cannot be written: {why}; {fix}") from error

    def _fail(self) -> None:
        """Discard everything of a shard that could not be read to its end."""
        self._tables = [self._tables[-1].slice(0, 0)]
        self._file.seek(0)
        self._file.truncate()
        self._writer, self._num_held, self._num_scored, self._listed = None, 0, 0, 1
        self._bad = [to_table([("", 0, "read", "ShardFailed", self._failure, None)], BAD_SCHEMA)]


def recall(folder: Location, file: str) -> ShardRecord | None:
    """The record of a scores file that an earlier run committed; None where it is damaged or gone.

    Raises UnreadableError if the storage refused: the file may be whole.
    """
    try:
        content = (folder / file).read_bytes()
        entry = json.loads(pq.read_metadata(pa.BufferReader(content)).metadata[_RECORD_KEY])
    except UnreadableError:
        raise
    except (InputError, OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None
    found = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return ShardRecord(**{**entry, **found, "footer_sha256": footer_sha256(io.BytesIO(content), len(content))})
