"""One shard: the bytes of its images, as they are, in a tar that is the same whenever the images are."""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from engine.packing import fetching, image_tables, videos
from engine.packing.entries import FOLDER, ITEMS_SCHEMA, LIST, TABLE, VIDEO, Entry, Options, Sample
from engine.packing.pack_batches import Batch, ShardRecord, on_scratch_disk, scratch_file, write_record
from engine.pool.formats import format_of
from engine.storage.location import Location
from engine.tables.scores import to_table

Reader = Callable[[list[Entry], Location, Options], Iterator[Sample]]
END = bytes(2 * tarfile.BLOCKSIZE)
READERS: dict[str, Reader] = {
    FOLDER: fetching.samples,
    LIST: fetching.samples,
    TABLE: image_tables.samples,
    VIDEO: videos.samples,
}


class ShardTask(NamedTuple):
    """A shard to be written. `entries` is its part of the plan, `base` the folder that the paths of its sources are
    below, and `kind` a key of READERS."""

    batch: Batch
    shard: str
    entries: pa.Table
    kind: str
    base: Location
    options: Options


def write_shard(task: ShardTask) -> ShardRecord:
    """Read the images of a shard and write it, whole or not at all, and its record before it.

    Raises:
        InputError: the source does not answer, or has changed.
        StorageError: the pool's storage, or the scratch disk, refused a write.
    """
    return write_samples(task.batch, task.shard, map(_checked, _samples(task)))


def write_samples(batch: Batch, shard: str, samples: Iterable[Sample]) -> ShardRecord:
    """Write a shard of samples, whole or not at all, and its record before it. Those with an error are recorded only.

    Raises StorageError if the pool's storage, or the scratch disk, refused a write.
    """
    rows, formats, keys = list[tuple[Any, ...]](), Counter[str](), set[str]()
    digest = hashlib.sha256()
    with scratch_file() as draft:
        for sample in samples:
            if not sample.error:
                if sample.key in keys:
                    raise RuntimeError(f"{shard}: key {sample.key!r} twice; nothing is written, please report this")
                keys.add(sample.key)
                formats[_add(draft, digest, sample)] += 1
            place, label = ("", None) if sample.error else (shard, sample.label)
            rows.append((place, sample.key, sample.source, label, sample.error, sample.message))
        _write(draft, digest, END)
        with on_scratch_disk():
            draft.flush()
        images, size_bytes = sum(formats.values()), draft.tell()
        facts = (size_bytes, digest.hexdigest()) if images else (0, "")
        record = ShardRecord(shard, images, len(rows) - images, *facts, dict(sorted(formats.items())))
        write_record(batch, record, to_table(rows, ITEMS_SCHEMA))
        if images:
            draft.seek(0)
            (batch.pool / shard).write_file(draft)
        return record


def _samples(task: ShardTask) -> Iterator[Sample]:
    rows = task.entries.drop_columns("shard").to_pylist()
    entries = [Entry(**{**row, "companions": tuple(row["companions"])}) for row in rows]
    return READERS[task.kind](entries, task.base, task.options)


def _checked(sample: Sample) -> Sample:
    """The sample, or its failure: of what is no image by its first bytes."""
    if sample.error or format_of(sample.data[:16]):
        return sample
    if not sample.data:
        return sample._replace(error="Empty", message="an empty file")
    why = "not an image of a format that is read: JPEG, PNG, WebP, GIF, BMP or TIFF"
    return sample._replace(data=b"", error="NotAnImage", message=why)


def _add(draft: BinaryIO, digest: "hashlib._Hash", sample: Sample) -> str:
    """Add an image and its companions. Returns the suffix of the image, which is that of its format."""
    kind = format_of(sample.data[:16])
    assert kind
    suffix = kind.suffixes[0]
    for name, data in ((suffix, sample.data), *sample.companions):
        # Time and owner are 0: the same images give the same bytes.
        info = tarfile.TarInfo(f"{sample.key}.{name}")
        info.size = len(data)
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        # In one piece: TarFile.addfile takes three times as long for small images.
        _write(draft, digest, b"".join((header, data, bytes(-len(data) % tarfile.BLOCKSIZE))))
    return suffix


def _write(draft: BinaryIO, digest: "hashlib._Hash", content: bytes) -> None:
    digest.update(content)
    with on_scratch_disk():
        draft.write(content)
