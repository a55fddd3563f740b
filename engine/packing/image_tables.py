"""Images in the rows of Parquet files, as Hugging Face writes data sets: image is a struct of bytes and path."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError, one_line
from engine.packing.entries import MAX_BYTES, MOST_SHARD_BYTES, Entry, Options, OtherFiles, Sample, key_of
from engine.packing.known_sources import KnownSources
from engine.packing.walking import base_of, folders_of
from engine.storage.location import Location
from engine.tables.values import plain, text_of

BATCH_ROWS = 64
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


class Columns(NamedTuple):
    """The column of the images, whether it is a struct, that of the labels or "", and the classes by their numbers."""

    image: str
    is_struct: bool
    label: str
    names: list[str]


def columns_of(schema: pa.Schema, label_column: str, where: str) -> Columns | None:
    """The columns of a table of images; None if none has the bytes of images.

    Raises InputError if several have, or there is no column `label_column`.
    """
    found = {field.name: _has_bytes(field.type) for field in schema}
    images = [name for name, kind in found.items() if kind]
    if not images:
        return None
    structs = [name for name in images if found[name] == "struct"]
    if len(structs or images) > 1:
        raise InputError(f"{where}: the columns {', '.join(structs or images)} have bytes of images; keep one of them")
    image = (structs or images)[0]
    label = label_column or ("label" if "label" in found else "")
    if label and label not in found:
        others = ", ".join(name for name in found if name != image)
        raise InputError(f"{where}: no column {label!r}; --label-column names one of {others or 'none'}")
    return Columns(image, found[image] == "struct", label, _class_names(schema, label))


def _has_bytes(kind: pa.DataType) -> str:
    if any(is_kind(kind) for is_kind in _BINARY):
        return "binary"
    is_image = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return "struct" if is_image and any(is_kind(kind.field("bytes").type) for is_kind in _BINARY) else ""


def _class_names(schema: pa.Schema, label: str) -> list[str]:
    """The names that Hugging Face's datasets keep beside a column of class numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def opened(place: Location) -> pq.ParquetFile:
    """A Parquet file. Raises InputError if it cannot be read."""
    try:
        return pq.ParquetFile(place.path, filesystem=place.filesystem)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{place}: not a readable Parquet file: {one_line(error)}; get the whole file") from error


def entries(source: Location, options: Options, known: KnownSources, others: OtherFiles) -> Iterator[Entry]:
    """Runs of rows of the Parquet files that are not known, file by file. A run takes at most about a shard's bytes.

    Raises InputError if a file cannot be read, or has no images.
    """
    base = base_of(source)
    for folder in folders_of(source):
        for name in folder.files:
            path = folder.below(name)
            if not name.lower().endswith(".parquet"):
                others.skipped[f".{name.rpartition('.')[2].lower()}"] += 1
            elif path not in known:
                yield from _runs(base / path, path, options)


def _runs(place: Location, path: str, options: Options) -> Iterator[Entry]:
    with opened(place) as file:
        columns, metadata = columns_of(file.schema_arrow, options.label_column, str(place)), file.metadata
        if columns is None:
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"{place}: no column has the bytes of images, only {names}; see: vaal pack --help")
        begin = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            each = max(1, group.total_byte_size // max(1, group.num_rows))
            most = min(options.shard_images, max(1, MOST_SHARD_BYTES // each))
            for first in range(begin, begin + group.num_rows, most):
                end = min(first + most, begin + group.num_rows)
                yield Entry(key_of(path), path, each * (end - first), None, first, end)
            begin += group.num_rows


def samples(entries: list[Entry], base: Location, options: Options) -> Iterator[Sample]:
    """The images of runs of rows, in their order. Raises InputError if a file cannot be read."""
    for entry in entries:
        place = base / entry.source
        with opened(place) as file:
            columns = columns_of(file.schema_arrow, options.label_column, str(place))
            if columns is None or file.metadata.num_rows < entry.end:
                raise InputError(f"{place}: has changed since it was planned; restore it, or pack into another POOL")
            to_sample = partial(_sample, entry, columns, str(place))
            try:
                for row in _rows(file, entry, columns):
                    yield to_sample(*row)
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{place}: cannot be read: {one_line(error)}; get the whole file") from error


def _rows(file: pq.ParquetFile, entry: Entry, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    """The number, image and label of each row of a run."""
    wanted, first = [columns.image, *filter(None, [columns.label])], 0
    for number in range(file.metadata.num_row_groups):
        group_rows = file.metadata.row_group(number).num_rows
        if first < entry.end and first + group_rows > entry.begin:
            row = first
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[number], columns=wanted):
                begin, end = max(entry.begin - row, 0), min(entry.end - row, len(batch))
                if begin < end:
                    part = batch.slice(begin, end - begin)
                    labels = part[columns.label] if columns.label else pa.nulls(len(part))
                    numbers = range(row + begin, row + end)
                    yield from zip(numbers, part[columns.image].to_pylist(), labels.to_pylist(), strict=True)
                row += len(batch)
        first += group_rows


def _sample(entry: Entry, columns: Columns, place: str, number: int, image: Any, label: Any) -> Sample:
    key = f"{entry.key}/{number:08d}"
    data = image["bytes"] if columns.is_struct and image is not None else image
    if not data:
        where = f", only the path {image['path']!r}" if columns.is_struct and image and image.get("path") else ""
        return Sample(key, entry.source, b"", error="Missing", message=f"row {number} has no bytes of an image{where}")
    if len(data) > MAX_BYTES:
        return Sample(key, entry.source, b"", error="TooManyBytes", message=f"{len(data):,} bytes")
    if columns.names and isinstance(label, int):
        # -1 is how data sets mark that there is no label.
        name = columns.names[label] if 0 <= label < len(columns.names) else None
        return Sample(key, entry.source, data, name)
    return Sample(key, entry.source, data, plain(text_of(label, f"{place}: row {number}: {columns.label}")) or None)
