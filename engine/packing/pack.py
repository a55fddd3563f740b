"""Images from anywhere into WebDataset shards, exactly once: planned first, then packed shard by shard on Ray.

What is new in the source since the last time is a batch, and gets shards of its own; older shards stay as they are. A
batch whose run was killed is completed by the next run, from the same plan, to the same shards.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import pyarrow.compute as pc
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from engine.campaign.heartbeat import alone
from engine.campaign.stages import Run
from engine.cluster import reach
from engine.cluster.ray_session import LOCAL, count_devices, ray_session
from engine.cluster.waiting import Need, wait_for, watched
from engine.config.texts import plural
from engine.errors import ConfigError, InputError, VaalError
from engine.packing import folders, image_tables, lists, videos
from engine.packing.entries import (
    FOLDER,
    LIST,
    MOST_SHARD_BYTES,
    TABLE,
    UNKNOWN_BYTES,
    VIDEO,
    Entry,
    Options,
    OtherFiles,
)
from engine.packing.known_sources import KnownSources
from engine.packing.pack_batches import (
    PACKING,
    SOURCE_FILE,
    Batch,
    PlanWriter,
    ShardRecord,
    batches_of,
    claim,
    committed,
    complete,
    items_of,
    read_plan,
    require_mine,
    scratch_file,
    tidy,
)
from engine.packing.shard_writing import ShardTask, write_shard
from engine.packing.walking import base_of, folders_of
from engine.storage.location import Location
from engine.storage.placing import require_folder
from engine.tables.row_stream import FORMS

Planner = Callable[[Location, Options, KnownSources, OtherFiles], Iterator[Entry]]
PLANNERS: dict[str, Planner] = {
    FOLDER: folders.entries,
    LIST: lists.entries,
    TABLE: image_tables.entries,
    VIDEO: videos.entries,
}
SHARDS_WITHOUT_RAY = 4
"""So many shards are written sooner than Ray starts."""
TASKS_PER_CPU = 2
_NEED = Need("pack", 1, 0.0, 0.0)
LIST_SUFFIXES = frozenset(FORMS)


class Packed(NamedTuple):
    """What a run did: its shards, images and failures; and the files of its source by suffix that go with an image, and
    that are left out. A run that completes another one does not list the source."""

    shards: list[str]
    images: int
    failures: int
    companions: dict[str, int]
    skipped: dict[str, int]
    was_interrupted: bool
    seconds: float


def kind_of(source: Location, options: Options) -> str:
    """The kind of a source. Raises InputError if there is no such source, and ConfigError for options that do not fit
    it."""
    suffix = lists.suffix_of(source)
    if options.every:
        kind = VIDEO
    elif suffix == "parquet":
        first = next((f"{folder.path}/{name}" for folder in folders_of(source) for name in folder.files), "")
        if not first:
            raise InputError(f"{source}: no file matches; correct the pattern")
        with image_tables.opened(base_of(source) / first.strip("/")) as file:
            found = image_tables.columns_of(file.schema_arrow, options.label_column, str(source))
        kind = TABLE if found else LIST
    else:
        kind = LIST if suffix in LIST_SUFFIXES and source.info().is_file else FOLDER
    if options.has_class_folders and kind != FOLDER:
        raise ConfigError(f"--classes-from-folders: {source} is no folder of images; leave it out")
    if options.label_column and kind in (FOLDER, VIDEO):
        raise ConfigError(f"--label-column: only a list or a Parquet file has columns; leave it out for {source}")
    if kind == VIDEO:
        videos.require_library()
    return kind


def pack(source: Location, pool: Location, options: Options, run: Run) -> Packed:
    """Pack what is new in a source into a pool; where a run before was interrupted, complete what it planned.

    Raises:
        ConfigError: the pool is another source's, or options do not fit.
        InputError: the source is missing, empty or malformed, or does not answer.
        StorageError: the pool's storage refused a write.
        BusyError: another run is at work in the pool.
    """
    begun = time.monotonic()
    require_folder(pool)
    if source.url == pool.url or pool.url.startswith(f"{source.url}/"):
        raise ConfigError(f"{pool}: inside of {source}, which is packed into it; give a folder elsewhere")
    kind = kind_of(source, options)
    with alone(pool, "pack"):
        require_mine(pool, source, kind, options)
        others, batches = OtherFiles(Counter(), Counter()), batches_of(pool)
        unfinished = next((batch for batch in batches if not batch.is_complete), None)
        if unfinished:
            run.log("an interrupted run is completed as it was planned; run again to pack what is new since")
            batch = unfinished
        else:
            if batches:
                tidy(batches[-1])
            batch = Batch(pool, len(batches))
            if not _plan(batch, batches, (source, kind, options), others, run):
                return Packed([], 0, 0, *_by_number(others), False, time.monotonic() - begun)
        records = _complete(batch, (kind, base_of(source), options), run)
    shards = [record.shard for record in records if record.images]
    images, failures = (sum(counts) for counts in zip(*(record[1:3] for record in records), strict=True))
    seconds = time.monotonic() - begun
    return Packed(shards, images, failures, *_by_number(others), unfinished is not None, seconds)


def _by_number(others: OtherFiles) -> tuple[dict[str, int], dict[str, int]]:
    """The suffixes of both kinds, the most frequent first."""
    return dict(others.companions.most_common()), dict(others.skipped.most_common())


def _plan(
    batch: Batch, before: list[Batch], source: tuple[Location, str, Options], others: OtherFiles, run: Run
) -> int:
    """Plan a batch of what is new. Returns the number of its shards; without any nothing is written.

    Raises InputError if there never was an image.
    """
    place, kind, options = source
    known, number = KnownSources(), 0
    for earlier in before:
        for items in items_of(earlier):
            packed = items.filter(pc.not_equal(items["shard"], ""))
            known.add(packed["source"].unique().to_pylist())
        number += earlier.manifest["planned"]
    found = 0
    with scratch_file() as draft, PlanWriter(batch, draft) as writer:
        for entries in _dealt(PLANNERS[kind](place, options, known, others), options.shard_images):
            writer.add(f"shard-{number + writer.num_shards:06d}.tar", entries)
            found += len(entries)
            run.on_progress(0.0, f"listing: {found:,} found")
        if found:
            claim(batch.pool, place, kind, options)
            writer.commit()
            run.log(f"{plural(found, _UNITS[kind])} to pack, in {plural(writer.num_shards, 'shard')}")
        elif not before:
            raise InputError(f"{place}: {_nothing(kind, others.skipped, place)}")
    return writer.num_shards


_UNITS = {FOLDER: "image", LIST: "image", TABLE: "run of rows", VIDEO: "run of frames"}


def _nothing(kind: str, skipped: Counter[str], place: Location) -> str:
    """Why a source has nothing to pack, and what to do."""
    others = ", ".join(f"{count:,} x {name}" for name, count in skipped.most_common(5))
    if kind == LIST:
        return "the list has no rows; give one with paths or URLs of images"
    if kind == FOLDER and skipped[".tar"]:
        fix = f"if it is a pool already: vaal init CAMPAIGN --pool '{place}/*.tar'"
        return f"no images in it, but {others}; {fix}"
    what = f"no {'videos' if kind == VIDEO else 'Parquet files' if kind == TABLE else 'images'} in it"
    if kind == FOLDER and skipped[".parquet"]:
        return f"{what}, but {others}; give the Parquet files: '{place}/**/*.parquet'"
    if kind == FOLDER and any(videos.is_video_name(name) for name in skipped):
        return f"{what}, but {others}; for a frame every second of each video: --every 1"
    return f"{what}" + (f", but {others}" if others else "") + "; correct the path"


def _dealt(entries: Iterator[Entry], most: int) -> Iterator[list[Entry]]:
    """The entries of each shard: as many in a row as its limits admit."""
    current, images, size = list[Entry](), 0, 0
    for entry in entries:
        more_bytes = entry.size_bytes if entry.size_bytes >= 0 else UNKNOWN_BYTES
        more = entry.end - entry.begin if entry.end >= 0 else max(1, more_bytes // UNKNOWN_BYTES)
        if current and (images + more > most or size + more_bytes > MOST_SHARD_BYTES):
            yield current
            current, images, size = [], 0, 0
        current.append(entry)
        images, size = images + more, size + more_bytes
    if current:
        yield current


def _complete(batch: Batch, how: tuple[str, Location, Options], run: Run) -> list[ShardRecord]:
    """Write the shards of a batch that are missing, and complete it. Returns the records of all, in their order."""
    done = committed(batch)
    total, tables = read_plan(batch)
    if done:
        run.log(f"{len(done):,} of {plural(total, 'shard')} are packed already")
    names = list[str]()

    def tasks() -> Iterator[ShardTask]:
        for table in tables:
            names.append(table["shard"][0].as_py())
            if names[-1] not in done:
                yield ShardTask(batch, names[-1], table, *how)

    left, begun, fresh = total - len(done), time.monotonic(), 0
    is_small = left <= (SHARDS_WITHOUT_RAY if run.address == LOCAL else 0)
    written = map(write_shard, tasks()) if is_small else _on_ray(tasks(), batch, run)
    for record in written:
        done[record.shard] = record
        fresh += record.images
        speed = fresh / max(1e-9, time.monotonic() - begun)
        words = f"{fresh:,} images, {speed:,.0f} a second, {len(done):,} of {total:,} shards"
        run.on_progress(len(done) / total, words)
    records = [done[name] for name in names]
    complete(batch, records, {"kind": how[0], "base": how[1].url})
    return records


def _read_by(task: ShardTask) -> list[str]:
    """The folder that every node must be able to read, for its kind of source: of a list that of its first path."""
    first = task.entries["source"][0].as_py()
    if task.kind != LIST:
        return [task.base.url]
    return [first.rpartition("/")[0]] if first.startswith("/") else []


def _on_ray(tasks: Iterator[ShardTask], batch: Batch, run: Run) -> Iterator[ShardRecord]:
    """The records of tasks in any order, as Ray's workers complete them."""
    first = next(tasks, None)
    if first is None:
        return
    with ray_session(run.address):
        wait_for(_NEED, run.address, run.log, run.measure)
        reads = (f"{batch.pool}/{PACKING}/{SOURCE_FILE}", *_read_by(first))
        reach.require_reach(reach.Need(batch.pool.url, reads), run.address)
        write: Any = ray.remote(num_cpus=1)(write_shard)
        most, running = TASKS_PER_CPU * count_devices("cpu"), list[Any]()
        try:
            with watched(_NEED, run.address, run.log, run.measure):
                for task in chain([first], tasks):
                    running.append(write.remote(task))
                    if len(running) >= most:
                        yield _next(running)
                while running:
                    yield _next(running)
        except WorkerCrashedError as error:
            why = "a worker died while it packed a shard, perhaps for lack of memory"
            raise VaalError(f"{batch.pool}: {why}; run the same command again") from error
        except RayTaskError as error:
            if isinstance(error.cause, VaalError):
                raise error.cause from error
            raise


def _next(running: list[Any]) -> ShardRecord:
    """The record of the task that is done first, which is taken from those that run."""
    (ready,), running[:] = ray.wait(running, num_returns=1)
    record: ShardRecord = ray.get(ready)
    return record
