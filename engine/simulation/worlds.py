"""The world of an experiment: all items with vectors or pixels and true labels, read once.

Shape suffixes: N items, D components of a vector, S image side in pixels, C channels.
"""

import hashlib
from collections import Counter
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from engine.errors import InputError
from engine.pool.mask_source import MaskSource
from engine.simulation.annotators import matrices_of
from engine.simulation.experiment import Experiment
from engine.simulation.experiment_parts import OraclePart, PoolPart, TestPart
from engine.simulation.pixel_pools import read_images
from engine.simulation.source_files import place_of, places_of, table_of
from engine.storage.location import Location
from engine.tables.rows import read_rows
from engine.tables.values import class_of, plain

DIGITS_SHARD_ITEMS = 225
MASK = "mask"
"""The one class of items that have masks."""


class Items(NamedTuple):
    """N items: shard and key (N,) of text, vectors (N, D) float32, pixels (N, S, S, C) uint8 of S x S images, the
    number of the true class (N,) int64, and the files of the true masks (N,) of bytes. D or S is 0 where there are no
    vectors or no pixels; a mask is empty, and with masks all items have one class, where there are none or some."""

    shard_N: NDArray[np.object_]
    key_N: NDArray[np.object_]
    vector_ND: NDArray[np.float32]
    pixel_NSSC: NDArray[np.uint8]
    label_N: NDArray[np.int64]
    mask_N: NDArray[np.object_]

    def take(self, place: NDArray[np.intp]) -> "Items":
        return Items(*(column[place] for column in cast("Any", self)))

    def names(self) -> list[tuple[str, str]]:
        """(shard, key) of every item."""
        return list(zip(self.shard_N.tolist(), self.key_N.tolist(), strict=True))


class World(NamedTuple):
    """All items that the pool is drawn from, those of a test set of its own, None without one; the classes' names in
    the order of their numbers; groups of classes that the oracle takes for one another; annotators' confusion matrices
    (A, K, K), None without; how masks are read, where there are some; and the SHA-256 of every file that was read."""

    items: Items
    test: Items | None
    classes: list[str]
    confusions: list[list[str]]
    said_AKK: NDArray[np.float64] | None
    masks: MaskSource | None
    files: dict[str, str]

    @property
    def learned(self) -> list[str]:
        """The classes that a task model learns, in the order of their numbers."""
        return list(self.masks.classes) if self.masks else self.classes


def load(experiment: Experiment) -> World:
    """Read the files of an experiment.

    Raises:
        InputError: a file is missing or is not what it should be, an item has no label, embeddings differ in length, or
            an item of the test set is in the pool too.
    """
    source, files, masks = experiment.oracle.labels, dict[str, str](), experiment.masks
    confusions = read_confusions(experiment.oracle.confusions, files)
    if experiment.pool.digits:
        items, classes, content = _digits()
        return World(items, None, classes, confusions, None, None, {**files, "digits": content})
    (pool, marks), test = _seen(experiment, experiment.pool, files), None
    if masks:
        test, test_marks = _seen(experiment, experiment.test, files) if experiment.test.is_own else (None, [])
        if test is not None:
            _require_apart(experiment, test, set(marks), test_marks)
        return World(pool, test, [MASK], [], None, masks, files)
    labels = test_labels = _labels(source, "oracle.labels", files)
    if experiment.test.is_own:
        test, test_marks = _seen(experiment, experiment.test, files)
        test_labels = _labels(experiment.test.labels, "test.labels", files) if experiment.test.labels else labels
        if test.vector_ND.shape[1] != pool.vector_ND.shape[1]:
            lengths = f"{test.vector_ND.shape[1]} components, and those of the pool {pool.vector_ND.shape[1]}"
            raise InputError(f"{experiment.test.embeddings}: embeddings of {lengths}; use one encoder for both")
        _require_apart(experiment, test, set(marks), test_marks)
    names = sorted(set(labels.values()) | set(test_labels.values()))
    number = {name: place for place, name in enumerate(names)}
    items = _with_labels(pool, labels, number, source, "[pool]")
    test = test and _with_labels(test, test_labels, number, experiment.test.labels or source, "[test]")
    said_AKK = _matrices(experiment.oracle, names, files)
    return World(items, test, names, confusions, said_AKK, None, files)


def _digits() -> tuple[Items, list[str], str]:
    """The items, their classes, and a hash of what they are."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    place_N = np.arange(len(order))
    shard_N = np.array([f"digits-{n // DIGITS_SHARD_ITEMS:05d}.tar" for n in place_N], object)
    key_N = np.array([f"{n % DIGITS_SHARD_ITEMS:06d}" for n in place_N], object)
    vector_ND = bunch.data[order].astype(np.float32)
    label_N: NDArray[np.int64] = bunch.target[order].astype(np.int64)
    none, no_masks = np.zeros((len(order), 0, 0, 0), np.uint8), np.full(len(order), b"", object)
    items = Items(shard_N, key_N, vector_ND, none, label_N, no_masks)
    return items, [str(n) for n in range(10)], hashlib.sha256(vector_ND.tobytes()).hexdigest()


def _read(location: Location, files: dict[str, str]) -> bytes:
    """A file. `files` gets its hash."""
    content = location.read_bytes()
    files[location.url] = hashlib.sha256(content).hexdigest()
    return content


def read_confusions(given: list[list[str]] | str, files: dict[str, str]) -> list[list[str]]:
    """Groups of names of classes, or those of a JSON file. `files` gets its hash.

    Raises InputError if the file is missing or holds something else.
    """
    if not isinstance(given, str):
        return given
    location = place_of(given, "oracle.confusions")
    content = _read(location, files)
    try:
        return TypeAdapter(list[list[str]]).validate_json(content)
    except ValidationError as error:
        why = 'not a JSON list of lists of names of classes: [["cat", "dog"]]'
        raise InputError(f"{location}: {why}; correct it, or give the lists in oracle.confusions") from error


def _matrices(oracle: OraclePart, classes: list[str], files: dict[str, str]) -> NDArray[np.float64] | None:
    """The confusion matrices of annotators, None without. `files` gets their file's hash."""
    if not oracle.matrices:
        return None
    location = place_of(oracle.matrices, "oracle.matrices")
    content = _read(location, files)
    try:
        return matrices_of(content, classes, oracle.annotators)
    except ValueError as error:
        raise InputError(f"{location}: {error}") from error


def _seen(experiment: Experiment, part: PoolPart | TestPart, files: dict[str, str]) -> tuple[Items, list[Any]]:
    """The items of these files, without labels, and by what the same one is known elsewhere: the hash of its image, or
    its name. `files` gets the hashes of the files. Where there are shards, embeddings without an image are ignored.

    Raises InputError for an image without an embedding, where there are some.
    """
    section, images = "pool" if part is experiment.pool else "test", None
    if part.shards:
        images = read_images(part.shards, experiment.image, files, experiment.masks, f"{section}.shards")
    names, vector_ND = images.names if images else [], np.zeros((len(images.names) if images else 0, 0), np.float32)
    if part.embeddings:
        shard_N, key_N, vector_ND = _embeddings(
            part.embeddings, f"{section}.embeddings", experiment.pool.components, files
        )
        place = {name: number for number, name in enumerate(zip(shard_N, key_N, strict=True))}
        names = names or list(place)
        if holes := [name for name in names if name not in place]:
            why = f"{len(holes):,} images have no embedding, for example {'/'.join(holes[0])}"
            raise InputError(f"{section}.embeddings={part.embeddings}: {why}; make them, or leave out embeddings")
        vector_ND = vector_ND[[place[name] for name in names]]
    shard_N, key_N = (np.array(column, object) for column in zip(*names, strict=True))
    pixel_NSSC = images.pixel_NSSC if images else np.zeros((len(names), 0, 0, 0), np.uint8)
    mask_N = np.array(images.masks if images else [b""] * len(names), object)
    items = Items(shard_N, key_N, vector_ND, pixel_NSSC, np.zeros(len(names), np.int64), mask_N)
    return items, images.hashes if images else names


def _embeddings(
    pattern: str, key: str, components: int, files: dict[str, str]
) -> tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.float32]]:
    """Shard, key and vector of every row of these files, of which `files` gets the hashes."""
    tables: list[tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]] = []
    for location in places_of(pattern, key):
        content = _read(location, files)
        table = table_of(content, ("shard", "key", "embedding"), location)
        names, rows = [table["shard"], table["key"]], _of_one_length(table["embedding"].combine_chunks(), location)
        length = rows.type.list_size
        vector_ND = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, length)
        if not np.isfinite(vector_ND).all():
            row = int(np.flatnonzero(~np.isfinite(vector_ND).all(axis=1))[0])
            item = f"{names[0][row]}/{names[1][row]}"
            raise InputError(f"{location}: the embedding of {item} has a value that is not finite; make it again")
        if tables and tables[0][2].shape[1] != length:
            lengths = f"{length} components, and those of another file {tables[0][2].shape[1]}"
            raise InputError(f"{location}: embeddings of {lengths}; use one encoder for all")
        tables.append((*(np.array(name.to_pylist(), object) for name in names), vector_ND))
    shard_N, key_N, vector_ND = (np.concatenate(column) for column in zip(*tables, strict=True))
    if len(set(zip(shard_N, key_N, strict=True))) < len(shard_N):
        raise InputError(f"{key}={pattern}: an item has two rows; keep one")
    return shard_N, key_N, vector_ND[:, :components]


def _of_one_length(rows: pa.Array, location: Location) -> pa.FixedSizeListArray:
    """Lists of numbers as lists of a fixed size. Raises InputError for anything else."""
    rows = rows.storage if isinstance(rows, pa.ExtensionArray) else rows
    is_list = isinstance(rows.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType)
    kind = rows.type.value_type if is_list else pa.null()
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{location}: the column embedding is of {rows.type}; give lists of numbers")
    lengths = pc.unique(pc.list_value_length(rows)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        found = ", ".join(sorted("null" if length is None else str(length) for length in lengths[:5])) or "none"
        why = f"the lists of the column embedding have lengths {found}"
        raise InputError(f"{location}: {why}; give every row a vector, all of one length")
    return rows.cast(pa.list_(rows.type.value_type, lengths[0]))


def _labels(pattern: str, key: str, files: dict[str, str]) -> dict[tuple[str, str], str]:
    location = place_of(pattern, key)
    content = _read(location, files)
    if location.name.endswith(".parquet"):
        table = table_of(content, ("shard", "key", "label"), location)
        columns = (table[name].to_pylist() for name in ("shard", "key", "label"))
        rows = [(s, k, plain(class_of(v, f"{location}: {s}/{k}"))) for s, k, v in zip(*columns, strict=True)]
    else:
        lines = read_rows(location, ("shard", "key"), ("label",))
        cells = [(str(r["shard"]), str(r["key"]), r.get("label"), f"{location}: line {r['line']}") for r in lines]
        rows = [(shard, key, plain(class_of(cell, where))) for shard, key, cell, where in cells]
    found = {(shard, key): label or "" for shard, key, label in rows}
    if len(found) < len(rows):
        (shard, key), count = Counter(row[:2] for row in rows).most_common(1)[0]
        raise InputError(f"{location}: item {shard}/{key} has {count} rows; leave one for each item")
    return found


def _require_apart(experiment: Experiment, test: Items, marks: set[Any], test_marks: list[Any]) -> None:
    if both := sorted(name for name, mark in zip(test.names(), test_marks, strict=True) if mark in marks):
        why = f"{len(both):,} of its items are in the pool too, for example {'/'.join(both[0])}"
        source = experiment.test.shards or experiment.test.embeddings
        raise InputError(f"{source}: {why}; take them out of one of the two")


def _with_labels(
    items: Items, labels: dict[tuple[str, str], str], number: dict[str, int], source: str, section: str
) -> Items:
    found = [labels.get(name) or "" for name in items.names()]
    if holes := [place for place, label in enumerate(found) if not label]:
        item = f"{items.shard_N[holes[0]]}/{items.key_N[holes[0]]}"
        why = f"{len(holes):,} of the {len(found):,} items of {section} have no label, for example {item}"
        raise InputError(f"{source}: {why}; label them, or give the file that labels these shards")
    return items._replace(label_N=np.array([number[label] for label in found], np.int64))
