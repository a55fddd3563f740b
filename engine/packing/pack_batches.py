"""What a pool knows of its packing, in POOL/packing/: the source, and a folder for each batch.

    source.json            the source and the options that decide its images
    000/plan.parquet       what the batch packs, shard by shard; written before any shard, and never changed
    000/records/           a file for each shard that is done, until the batch is complete
    000/items.parquet      what became of every image
    000/manifest.json      written last: the batch is complete

A shard is committed when its record exists, and the tar that the record names. The record is written first.
"""

import importlib.metadata
import json
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigError, InputError, StorageError, one_line
from engine.packing.entries import ITEMS_SCHEMA, PLAN_SCHEMA, Entry, Options
from engine.storage.documents import read_document
from engine.storage.location import Location

PACKING, SOURCE_FILE, PLAN_FILE, ITEMS_FILE, RECORDS = (
    "packing",
    "source.json",
    "plan.parquet",
    "items.parquet",
    "records",
)
READ_THREADS = 16
BUFFER_BYTES = 1 << 20
_RECORD_KEY = b"vaal.pack"


class ShardRecord(NamedTuple):
    """A shard that is done: its images, failures, size and SHA-256, and how many images have each format. One without
    an image has no tar."""

    shard: str
    images: int
    failures: int
    size_bytes: int
    sha256: str
    formats: dict[str, int]


class Batch(NamedTuple):
    """A batch of a pool, by its number."""

    pool: Location
    number: int

    @property
    def home(self) -> Location:
        return self.pool / PACKING / f"{self.number:03d}"

    @property
    def manifest(self) -> dict[str, Any]:
        """Of a complete batch."""
        return read_document(self.home / "manifest.json", dict[str, Any])

    @property
    def is_planned(self) -> bool:
        return (self.home / PLAN_FILE).exists()

    @property
    def is_complete(self) -> bool:
        return (self.home / "manifest.json").exists()


def require_mine(pool: Location, source: Location, kind: str, options: Options) -> None:
    """Raises ConfigError if the pool is another source's, or was packed with other options."""
    file = pool / PACKING / SOURCE_FILE
    if not file.exists():
        if tars := [name for name in pool.children() if name.endswith(".tar")]:
            why = f"holds {tars[0]}, which vaal pack did not make"
            raise ConfigError(f"{pool}: {why}; give a new folder, and both to vaal init: --pool may be repeated")
        return
    found = read_document(file, dict[str, Any])
    if found["source"] != source.url:
        fix = "give another POOL, and both to vaal init: --pool may be repeated"
        raise ConfigError(f"{pool}: holds shards of {found['source']}; {fix}")
    for name, value in {"kind": kind, **options.deciding()}.items():
        if (before := found.get(name, value)) != value:
            how = f"with {name}={before}, not {value}"
            if isinstance(before, bool):
                how = f"with {name}" if before else f"without {name}"
            raise ConfigError(f"{pool}: was packed {how}; do the same, or give another POOL")


def claim(pool: Location, source: Location, kind: str, options: Options) -> None:
    """Make the pool that of a source."""
    (pool / PACKING / SOURCE_FILE).write_json({"source": source.url, "kind": kind, **options.deciding()})


def batches_of(pool: Location) -> list[Batch]:
    """The batches of a pool that have a plan, in their order."""
    numbers = sorted(int(name) for name in (pool / PACKING).folders() if name.isdecimal())
    return [batch for batch in (Batch(pool, number) for number in numbers) if batch.is_planned]


class PlanWriter:
    """Writes a plan: `add` takes the entries of one shard after the other, and `commit` makes it the batch's.

    Args:
        file: an empty temporary file.
    """

    def __init__(self, batch: Batch, file: BinaryIO) -> None:
        self._batch, self._file, self.num_shards = batch, file, 0
        self._writer = pq.ParquetWriter(file, PLAN_SCHEMA, compression="zstd")

    def __enter__(self) -> "PlanWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        # Else Arrow tries once more, when the file is gone, and complains on standard error.
        self._writer.is_open = False

    def add(self, shard: str, entries: list[Entry]) -> None:
        rows = [{"shard": shard, **entry._asdict()} for entry in entries]
        with on_scratch_disk():
            self._writer.write_table(pa.Table.from_pylist(rows, PLAN_SCHEMA), row_group_size=len(rows))
        self.num_shards += 1

    def commit(self) -> None:
        with on_scratch_disk():
            self._writer.close()
            self._file.seek(0)
        (self._batch.home / PLAN_FILE).write_file(self._file)


def read_plan(batch: Batch) -> tuple[int, Iterator[pa.Table]]:
    """The number of shards of a plan, and the entries of each: PLAN_SCHEMA. Raises InputError if it is damaged."""
    place = batch.home / PLAN_FILE
    try:
        file = pq.ParquetFile(place.path, filesystem=place.filesystem)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{place}: cannot be read: {one_line(error)}; restore it from a copy") from error
    return file.num_row_groups, (file.read_row_group(number) for number in range(file.num_row_groups))


def write_record(batch: Batch, record: ShardRecord, rows: pa.Table) -> None:
    """Write what became of a shard's images (ITEMS_SCHEMA), with the record."""
    text = json.dumps(record._asdict()).encode()
    (batch.home / RECORDS / f"{record.shard}.parquet").write_table(rows.replace_schema_metadata({_RECORD_KEY: text}))


def committed(batch: Batch) -> dict[str, ShardRecord]:
    """The records of the shards of a batch that are committed, by name."""
    folder, tars = batch.home / RECORDS, batch.pool.children()
    names = [name for name in folder.children() if name.endswith(".parquet")]
    with ThreadPoolExecutor(READ_THREADS) as threads:
        records = list(threads.map(lambda name: _recall(folder / name), names))
    return {record.shard: record for record in records if record and _is_there(record, tars)}


def discard(batch: Batch, shards: Collection[str]) -> int:
    """Remove shards of a batch that is not complete, and their records. Returns the number of shards that were
    there."""
    tars, records = batch.pool.children(), (batch.home / RECORDS).children()
    gone = [shard for shard in shards if shard in tars]
    # A record without its shard is none: see `committed`.
    for shard in gone:
        (batch.pool / shard).delete()
    for shard in shards:
        if f"{shard}.parquet" in records:
            (batch.home / RECORDS / f"{shard}.parquet").delete()
    return len(gone)


def _recall(file: Location) -> ShardRecord | None:
    """A record; None where the file is none."""
    try:
        return _record_in(pq.read_schema(pa.BufferReader(file.read_bytes())))
    except (KeyError, TypeError, ValueError, pa.ArrowException):
        return None


def _record_in(schema: pa.Schema) -> ShardRecord:
    """Raises KeyError, TypeError or ValueError for a table without a record."""
    return ShardRecord(**json.loads((schema.metadata or {})[_RECORD_KEY]))


def _is_there(record: ShardRecord, tars: dict[str, int]) -> bool:
    return tars.get(record.shard) == record.size_bytes if record.images else record.shard not in tars


def complete(batch: Batch, records: list[ShardRecord], facts: dict[str, Any]) -> None:
    """Write the batch's items, and then its manifest; remove the records of its shards.

    Raises StorageError if a record is not the one that is known: a process of a run that was killed still wrote.
    """
    items = batch.home / ITEMS_FILE
    with scratch_file() as draft:
        with on_scratch_disk(), pq.ParquetWriter(draft, ITEMS_SCHEMA, compression="zstd") as writer:
            for record in records:
                table = (batch.home / RECORDS / f"{record.shard}.parquet").read_table()
                if _record_in(table.schema) != record:
                    why = "was written again meanwhile, by a process of a run that was killed"
                    raise StorageError(f"{batch.pool / record.shard}: {why}; run the same command again")
                writer.write_table(table.replace_schema_metadata().cast(ITEMS_SCHEMA))
        draft.seek(0)
        sha256 = items.write_file(draft)
    formats: dict[str, int] = {}
    for record in records:
        for name, count in record.formats.items():
            formats[name] = formats.get(name, 0) + count
    manifest = {
        **facts,
        "planned": len(records),
        "images": sum(record.images for record in records),
        "failures": sum(record.failures for record in records),
        "shards": {record.shard: [record.size_bytes, record.sha256] for record in records if record.images},
        "formats": dict(sorted(formats.items())),
        "items_sha256": sha256,
        "code_version": importlib.metadata.version("vaal"),
    }
    (batch.home / "manifest.json").write_json(manifest)
    tidy(batch)


def tidy(batch: Batch) -> None:
    """Remove the records of a complete batch, whose items and manifest say what they said."""
    (batch.home / RECORDS).remove()


def items_of(batch: Batch) -> Iterator[pa.Table]:
    """What became of the images of a complete batch, in parts: ITEMS_SCHEMA. Raises InputError if it is damaged."""
    place = batch.home / ITEMS_FILE
    try:
        with pq.ParquetFile(place.path, filesystem=place.filesystem) as file:
            yield from (pa.Table.from_batches([part]) for part in file.iter_batches())
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{place}: cannot be read: {one_line(error)}; restore it from a copy") from error


@contextmanager
def scratch_file() -> Iterator[BinaryIO]:
    """A temporary file, which is gone afterwards."""
    with on_scratch_disk():
        file = cast("BinaryIO", tempfile.TemporaryFile(buffering=BUFFER_BYTES))  # noqa: SIM115
    try:
        yield file
    finally:
        # After a write that failed, what is left in its buffer fails once more.
        with suppress(OSError):
            file.close()


@contextmanager
def on_scratch_disk() -> Iterator[None]:
    """Names the folder of temporary files in an error of theirs."""
    try:
        yield
    except OSError as error:
        why = error.strerror or one_line(error)
        fix = "free space there, or export TMPDIR=FOLDER, and run again"
        raise StorageError(f"{tempfile.gettempdir()}: cannot be written: {why}; {fix}") from error
