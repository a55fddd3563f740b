"""A data set of the field as shards, a table of its labels, and a list of its classes: what an experiment reads.

    FOLDER/PART-NNNNN.tar         images in a random order, as their files are; with their masks, where the set has some
    FOLDER/PART-oracle.parquet    shard, key, label, source
    FOLDER/classes.txt            a class a line
    FOLDER/groups.json            lists of classes that are taken for one another, where the set says so
    FOLDER/packing/               what was written, as `vaal pack` keeps it

The same files and seed give the same bytes. A run that was killed is completed by the same command, shard by shard.
"""

import hashlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.heartbeat import alone
from engine.campaign.stages import Run
from engine.config.input_options import ImageConfig
from engine.config.texts import did_you_mean, plural, some
from engine.datasets import DATA_SETS, DataSet
from engine.datasets.opened import TEST, TRAIN, VAL, Opened
from engine.errors import ConfigError, InputError
from engine.packing.entries import Entry, Sample
from engine.packing.fetching import ahead
from engine.packing.pack_batches import (
    PACKING,
    SOURCE_FILE,
    Batch,
    ShardRecord,
    committed,
    complete,
    discard,
    items_of,
)
from engine.packing.shard_writing import write_samples
from engine.pool.identity import content_hash
from engine.pool.items import read_shard
from engine.pool.manifest import shards_at
from engine.storage.documents import read_document
from engine.storage.location import Location
from engine.storage.placing import require_folder

IN_TEST = "AlsoHeldOut"
"""The error of an image of train whose file is in test or val too: an experiment refuses a pool that has any."""
_KIND = "data set "
"""What begins the kind of a source in packing/, which tells it from those of `vaal pack`."""
PARTS = {TRAIN: "train", VAL: "val", TEST: "the test set"}
"""For a reader: the test set of some data sets is what they call val."""
CLASSES_FILE, GROUPS_FILE = "classes.txt", "groups.json"


class Converted(NamedTuple):
    """What a folder holds: images and shards of each part, the number of its classes, the images of train that were
    left out, and whether this run wrote any of it."""

    images: dict[str, int]
    shards: dict[str, int]
    num_classes: int
    left_out: int
    changed: bool


class _Shard(NamedTuple):
    name: str
    part: str
    entries: list[Entry]


def convert(name: str, source: Location, folder: Location, seed: int, run: Run) -> Converted:
    """Convert a data set, a row of DATA_SETS; complete what a run that was killed began.

    Args:
        seed: of the order of the images, and of the split where there is no official one.

    Raises:
        ConfigError: there is no such data set, or the folder holds something else.
        InputError: the source is missing, incomplete or wrong.
        StorageError: the folder's storage refused a write.
        BusyError: another run is at work in the folder.
    """
    if name not in DATA_SETS:
        close = did_you_mean(name.lower(), DATA_SETS)
        raise ConfigError(f"{name}: no data set that is known; give one of {', '.join(DATA_SETS)}{close}")
    require_folder(folder)
    if folder.url == source.url or folder.url.startswith(f"{source.url}/"):
        raise ConfigError(f"{folder}: inside of {source}, which is converted; give a folder elsewhere")
    row = DATA_SETS[name]
    opened: Opened = pkgutil.resolve_name(row.reader)(source, seed)
    _examine(opened, row, source, run)
    shards = _planned(opened, row, seed)
    with alone(folder, "dataset"):
        batch = Batch(folder, 0)
        _claim(batch, name, source, seed, shards, run)
        changed = not _is_whole(batch)
        if changed:
            _write(batch, shards, opened, run)
        return _finished(batch, opened, changed, run)


def _examine(opened: Opened, row: DataSet, source: Location, run: Run) -> None:
    """Log what a person should know of the images. Raises InputError for a part without any, and two with one key."""
    for line in opened.left_out:
        run.log(f"warning: {line}")
    if bare := [part for part, entries in opened.parts.items() if not entries]:
        raise InputError(f"{source}: no image of {PARTS[bare[0]]} in it; unpack the whole data set")
    for part, entries in opened.parts.items():
        if (count := len(entries)) != (expected := (opened.counts or row.counts)[part]):
            why = f"{plural(count, 'image')} of {PARTS[part]}, and the official files have {expected:,}"
            run.log(f"warning: {source} has {why}")
        _require_own_keys(entries, source)


def _require_own_keys(entries: list[Entry], source: Location) -> None:
    others = dict[str, str]()
    for entry in entries:
        if entry.key and (other := others.setdefault(entry.key, entry.source)) != entry.source:
            why = f"has the key {entry.key!r}, and so has {source / other}: a dot in a name becomes _"
            raise InputError(f"{source / entry.source}: {why}; rename one of the two, and its mask")


def _planned(opened: Opened, row: DataSet, seed: int) -> list[_Shard]:
    """All shards: first those of the parts that train must not share an image with."""
    found = []
    for part in (TEST, VAL, TRAIN):
        entries = sorted(opened.parts.get(part, ()), key=lambda entry: entry.source)
        order = np.random.default_rng(seed).permutation(len(entries))
        # A key without the class in it: ties between scores are broken by key.
        mixed = [
            entries[n]._replace(key=entries[n].key or f"{part}-{place:07d}") for place, n in enumerate(order.tolist())
        ]
        for begin in range(0, len(mixed), row.shard_images):
            name = f"{part}-{begin // row.shard_images:05d}.tar"
            found.append(_Shard(name, part, mixed[begin : begin + row.shard_images]))
    return found


def _claim(batch: Batch, name: str, source: Location, seed: int, shards: list[_Shard], run: Run) -> None:
    """Make the folder that of a data set. Of one that a run began, and that is of other files now, the shards that
    these change go. Raises ConfigError if the folder holds anything else."""
    folder, plan = batch.pool, {shard.name: hashlib.sha256(json.dumps(shard).encode()).hexdigest() for shard in shards}
    facts = {"source": source.url, "kind": f"{_KIND}{name}", "seed": seed, "plan": plan}
    file = folder / PACKING / SOURCE_FILE
    if not file.exists():
        if tars := [child for child in folder.children() if child.endswith(".tar")]:
            raise ConfigError(f"{folder}: holds {tars[0]}, which vaal dataset did not make; give a new folder")
        file.write_json(facts)
        return
    found = read_document(file, dict[str, Any])
    kind = found["kind"]
    if kind != facts["kind"]:
        held = kind.removeprefix(_KIND) if kind.startswith(_KIND) else f"what vaal pack made of {found['source']}"
        raise ConfigError(f"{folder}: holds {held}; give another folder for {name}")
    if found["seed"] != seed:
        raise ConfigError(f"{folder}: was made with --seed {found['seed']}; give that, or another folder")
    if (before := found["plan"]) == plan:
        return
    if batch.is_complete or not isinstance(before, dict):
        why = f"was made of other files than those that are in {source} now, or by an earlier version"
        raise ConfigError(f"{folder}: {why}; give another folder, or remove this one")
    changed = {shard for shard in before if before[shard] != plan.get(shard)}
    if any(not shard.startswith(f"{TRAIN}-") for shard in changed):
        # An image of train is left out if it is one of theirs.
        changed |= {shard for shard in before if shard.startswith(f"{TRAIN}-")}
    if gone := discard(batch, changed):
        run.log(f"files of {source} have changed since this was begun; shards that are written again: {gone:,}")
    file.write_json(facts)


def _is_whole(batch: Batch) -> bool:
    if not batch.is_complete:
        return False
    tars = batch.pool.children()
    return all(tars.get(name) == size for name, (size, _) in batch.manifest["shards"].items())


def _write(batch: Batch, shards: list[_Shard], opened: Opened, run: Run) -> None:
    """Write the shards that are missing, and complete the batch."""
    done, held_out = committed(batch), set[str]()
    if done:
        run.log(f"{len(done):,} of {plural(len(shards), 'shard')} are written already")
    total = sum(len(shard.entries) for shard in shards)
    records, images = list[ShardRecord](), 0
    for shard in shards:
        if shard.name in done:
            records.append(done[shard.name])
            if shard.part != TRAIN:
                held_out |= _hashes(batch.pool / shard.name)
        else:
            records.append(write_samples(batch, shard.name, _samples(shard, opened, held_out)))
        images += len(shard.entries)
        run.on_progress(images / total, f"{images:,} of {total:,} images, {len(records):,} shards")
    complete(batch, records, {})


def _samples(shard: _Shard, opened: Opened, held_out: set[str]) -> Iterator[Sample]:
    """The samples of a shard. One of train that is held out too has an error; `held_out` gets the hashes of others."""
    for sample in ahead(shard.entries, opened.read, is_slow=opened.is_remote):
        mark = content_hash(sample.data)
        if shard.part != TRAIN:
            held_out.add(mark)
        elif mark in held_out:
            yield sample._replace(
                data=b"", companions=(), error=IN_TEST, message="the same file is in the test set or val"
            )
            continue
        yield sample


def _hashes(tar: Location) -> set[str]:
    (shard,) = shards_at([tar], tar.url.rpartition("/")[0])
    return {content_hash(item.data) for item in read_shard(shard, ImageConfig())}


def _finished(batch: Batch, opened: Opened, changed: bool, run: Run) -> Converted:
    """Write what follows from the items of a complete batch."""
    folder, items = batch.pool, pa.concat_tables(items_of(batch))
    images, shards = dict[str, int](), dict[str, int]()
    for part in opened.parts:
        rows = items.filter(pc.starts_with(items["shard"], f"{part}-")).select(["shard", "key", "label", "source"])
        images[part], shards[part] = len(rows), len(rows["shard"].unique())
        (folder / f"{part}-oracle.parquet").write_table(rows)
        labels = {*rows["label"].unique().to_pylist()}
        # Of a set of masks no label is a class.
        is_of_classes = opened.parts[part][0].label in opened.classes
        if is_of_classes and (bare := [name for name in opened.classes if name not in labels]):
            run.log(f"warning: {folder} has no image of {PARTS[part]} for {plural(len(bare), 'class')}: {some(bare)}")
    (folder / CLASSES_FILE).write_bytes("".join(f"{name}\n" for name in opened.classes).encode())
    if opened.groups:
        (folder / GROUPS_FILE).write_bytes((json.dumps(opened.groups, indent=1) + "\n").encode())
    return Converted(
        images, shards, len(opened.classes), int(pc.sum(pc.equal(items["error"], IN_TEST)).as_py()), changed
    )
