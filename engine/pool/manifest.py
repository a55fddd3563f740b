"""The shard manifest: the shards of the pool, with marks that show when one has changed."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import fs

from engine.cluster.allocation import give_back_freed_memory
from engine.errors import ConfigError, InputError, advised, one_line
from engine.pool.shard import Shard, mark_of
from engine.pool.shards import SHARDS_SCHEMA, Shards
from engine.storage.globs import matches_of, names_in_utf8
from engine.storage.location import Location, masked
from engine.storage.retries import retried
from engine.tables.by_shard import places_of_texts

LIST_THREADS, MARK_THREADS, AT_ONCE = 16, 64, 4096
MOST_SINGLE = 8
"""Shards of a folder that are looked up one by one, at most."""
FILE, CHANGES = "pool/shards.parquet", "pool/changes"
_FACTS = b"vaal.pool"


class PoolFacts(NamedTuple):
    """What pool/shards.parquet says beside its rows: the number of the newest file in pool/changes/ that it follows
    from, 0 for none; and the globs below the root that shards were added by, which are looked at like those of init."""

    version: int = 0
    patterns: tuple[str, ...] = ()


def expand(patterns: Sequence[str], asked: str = "--pool", *, may_be_none: bool = False) -> list[Location]:
    """Shard locations from paths, URLs, globs and brace ranges, sorted; `asked` names where they were given. With
    `may_be_none` a pattern may match nothing.

    Raises:
        InputError: a pattern matches nothing or something that is no tar, or gives a shard that was given before.
        ConfigError: a pattern has a brace without its partner.
    """
    import braceexpand

    found: list[Location] = []
    for pattern in patterns:
        try:
            plain = [Location.of(text) for text in braceexpand.braceexpand(pattern)]
        except ValueError as error:
            raise ConfigError(
                f"{asked} {masked(pattern)}: a brace without its partner; escape it: '\\{{' or '\\}}'"
            ) from error
        matched = [match for location in plain for match in _glob(location, asked)]
        if not matched and not may_be_none:
            raise InputError(f"{asked} {pattern}: no shard matches; check the path, or quote the pattern")
        found.extend(matched)
    for location, count in Counter(found).items():
        if count > 1:
            raise InputError(f"{asked}: {location} is listed {count} times; list each shard once")
    _require_different_files(found, asked)
    return sorted(found, key=str)


def _glob(location: Location, asked: str) -> list[Location]:
    matches = matches_of(location)
    others = [match for match in matches if not match.url.lower().endswith(".tar") and match != location]
    if others:
        raise InputError(
            f"{asked} {location}: {len(others)} of {len(matches)} matches are no .tar, first {others[0]}; give "
            f"'{posixpath.dirname(location.url)}/*.tar', or name the shards without * and ?"
        )
    return matches


def _require_different_files(locations: list[Location], asked: str) -> None:
    """Raises InputError if two local paths lead to one file, by a link: its images would be in the pool twice."""
    found: dict[tuple[int, int], Location] = {}
    for location in locations:
        if location.is_local and Path(location.path).is_file():
            status = Path(location.path).stat()
            first = found.setdefault((status.st_dev, status.st_ino), location)
            if first != location:
                raise InputError(f"{asked}: {first} and {location} are the same file, by a link; list it once")


def list_shards(patterns: list[str], root: str, asked: str = "--pool") -> tuple[Shards, str]:
    """The pool's shards, sorted by name, and its root: `root`, or without one the deepest folder common to all shards.
    `asked` names where the patterns were given.

    Raises:
        InputError: a shard is missing, empty, a folder, or listed twice.
        ConfigError: a shard is not below `root`, or the shards have no folder in common.
    """
    if not patterns:
        raise ConfigError("pool.shards: no shards; give --pool with paths or URLs of tar files")
    locations = expand(patterns, asked)
    folder = Location.of(root).url if root else _common_folder(locations, asked)
    return shards_at(locations, folder, asked), folder


def shards_at(locations: list[Location], folder: str, asked: str = "--pool") -> Shards:
    """The shards at these places, named below the pool's root `folder`, sorted by name. Raises as `list_shards`."""
    if not locations:
        return Shards.of([])
    below = folder.rstrip("/") + "/"
    for location in locations:
        if not location.url.startswith(below):
            raise ConfigError(f"pool.root={folder}: shard {location} is not below it")
    infos = _infos_of(locations)
    marks = list[str]()
    for location, info, mark in zip(locations, infos, _marks_of(locations, infos), strict=True):
        _require_file(location, info, asked)
        marks.append(mark)
    count, urls = len(locations), [location.url for location in locations]
    columns = {
        "shard": [url.removeprefix(below) for url in urls], "url": urls, "size_bytes": [info.size for info in infos],
        "etag_or_mtime": marks, "num_items": [None] * count, "mtime_ns": [info.mtime_ns for info in infos],
        "version": [""] * count, "joined": [0] * count, "left": [None] * count, "why_left": [None] * count,
    }  # fmt: skip
    return Shards(pa.table(columns, schema=SHARDS_SCHEMA)).sorted().with_new_versions()


def _infos_of(locations: list[Location]) -> list[fs.FileInfo]:
    """What storage says of each: a folder of which more than a few are asked is listed, in one request for a
    thousand."""
    filesystem, found = locations[0].filesystem, dict[str, fs.FileInfo]()
    by_folder = Counter(posixpath.dirname(location.path) for location in locations)
    large = [folder for folder, number in by_folder.items() if number > MOST_SINGLE]
    try:
        with ThreadPoolExecutor(LIST_THREADS) as threads:
            listings = threads.map(
                lambda folder: filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)), large
            )
            with names_in_utf8(locations[0]):
                found |= {info.path: info for infos in listings for info in infos}
        left = [location.path for location in locations if location.path not in found]
        found |= dict(zip(left, filesystem.get_file_info(left), strict=True)) if left else {}
    except OSError as error:
        raise InputError(f"{locations[0]}: cannot be looked up: {one_line(error)}") from error
    return [found[location.path] for location in locations]


def _marks_of(locations: list[Location], infos: list[fs.FileInfo]) -> Iterator[str]:
    """The mark of each, by threads. A part of them waits at a time: a million calls that wait take a gigabyte."""
    with ThreadPoolExecutor(MARK_THREADS) as threads:
        for begin in range(0, len(locations), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            yield from threads.map(_listed_mark, locations[part], infos[part])


def _listed_mark(location: Location, info: fs.FileInfo) -> str:
    return retried(lambda: mark_of(location, info)) if info.is_file else ""


def new_version(shard: Shard) -> Shard:
    """The shard with a version of its own for its present size and mark."""
    # With this separator the names of scores files are those of older campaigns, and nothing is scored again.
    return shard._replace(version=f"{shard.size_bytes}\0{shard.etag_or_mtime}")


def _require_file(location: Location, info: fs.FileInfo, asked: str) -> None:
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{asked} {location}: no such file")
    if info.type != fs.FileType.File:
        raise InputError(f"{asked} {location}: a folder; give the shards in it, for example '{location}/*.tar'")
    if info.size == 0:
        raise InputError(f"{asked} {location}: the file is empty; even a shard without items has an end mark")


def _common_folder(locations: list[Location], asked: str) -> str:
    schemes = {location.url.removesuffix(location.path) for location in locations}
    folders = [posixpath.dirname(location.path) for location in locations]
    folder = posixpath.commonpath(folders) if len(schemes) == 1 else ""
    if not folder:
        raise ConfigError(f"{asked}: the shards have no folder in common; keep a pool in one bucket or file system")
    return schemes.pop() + folder


class LookedUp(NamedTuple):
    """What storage has at the places of N shards: sizes in bytes (N,), -1 where there is nothing any more, and times,
    nanoseconds (N,)."""

    size_N: NDArray[np.int64]
    mtime_N: NDArray[np.int64]

    @property
    def are_there(self) -> NDArray[np.bool_]:
        """Which are there (N,)."""
        return self.size_N >= 0

    def are_same(self, shards: Shards) -> NDArray[np.bool_]:
        """Which have the size and time that is known of them (N,)."""
        is_same_N: NDArray[np.bool_] = (self.size_N == shards.sizes) & (self.mtime_N == shards.times)
        return is_same_N


def look_up(shards: Shards) -> LookedUp:
    """The shards as they are in storage now. Folders are listed as a whole, because a million look-ups take hours on an
    object store.

    Raises InputError if a folder cannot be listed.
    """
    if len(shards) and not Location(shards[0].url).is_listed:
        return look_up_few(shards)
    urls = shards.table["url"]
    # A name may have a line break.
    bases = pc.replace_substring_regex(urls, "(?s)^.*/", "").combine_chunks()
    folders, place_N = places_of_texts(pc.replace_substring_regex(urls, "(?s)/[^/]*$", ""))
    order, size_N = np.argsort(place_N, kind="stable"), np.full(len(shards), -1)
    mtime_N, ends = np.zeros(len(shards), np.int64), np.searchsorted(np.sort(place_N), np.arange(1, len(folders) + 1))
    with ThreadPoolExecutor(LIST_THREADS) as threads:
        begin = 0
        for end, (names, sizes, times) in zip(ends, threads.map(_list_folder, folders.to_pylist()), strict=True):
            rows, begin = order[begin:end], end
            at = pc.fill_null(pc.index_in(bases.take(pa.array(rows)), value_set=names), -1).to_numpy()
            size_N[rows[at >= 0]], mtime_N[rows[at >= 0]] = sizes[at[at >= 0]], times[at[at >= 0]]
    return LookedUp(size_N, mtime_N)


def look_up_few(shards: Shards) -> LookedUp:
    """As `look_up`, with a request for each shard instead of a listing of the pool."""
    if not len(shards):
        return LookedUp(np.empty(0, np.int64), np.empty(0, np.int64))
    first, urls = Location(shards[0].url), shards.table["url"].to_pylist()
    try:
        infos = retried(lambda: first.filesystem.get_file_info([Location(url).path for url in urls]))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{first}: cannot be looked up: {one_line(error)}") from error
    found = [(info.size, info.mtime_ns) if info.is_file else (-1, 0) for info in infos]
    return LookedUp(*(np.array(values, np.int64) for values in zip(*found, strict=True)))


def _list_folder(url: str) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.int64]]:
    """Names, sizes and times of the files of a folder."""
    folder = Location(url)
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    try:
        infos = retried(lambda: folder.filesystem.get_file_info(selector))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder}: cannot be listed: {one_line(error)}") from error
    with names_in_utf8(folder):
        found = [(info.base_name, info.size, info.mtime_ns) for info in infos if info.type == fs.FileType.File]
    names, sizes, times = zip(*found, strict=True) if found else ([], [], [])
    return pa.array(names, pa.string()), np.array(sizes, np.int64), np.array(times, np.int64)


def write_shards(home: Location, shards: Iterable[Shard], facts: PoolFacts | None = None) -> None:
    """Replace pool/shards.parquet; without `facts` those that it has stay."""
    facts = facts or read_facts(home)
    metadata = {_FACTS: json.dumps(facts._asdict()).encode()}
    (home / FILE).write_table(Shards.of(shards).table.replace_schema_metadata(metadata))


def write_counts(home: Location, names: pa.ChunkedArray, counts: pa.Array | pa.ChunkedArray) -> None:
    """Note the numbers of items of the shards of these names, null for not known; the others keep theirs."""
    shards = read_shards(home)
    place_M, here = shards.places_of(names), shards.table["num_items"].combine_chunks()
    row_N = np.full(len(shards), -1)
    row_N[place_M[place_M >= 0]] = np.flatnonzero(place_M >= 0)
    taken = counts.take(pa.array(row_N, mask=row_N < 0))
    write_shards(home, shards.with_column("num_items", pc.if_else(pa.array(row_N >= 0), taken, here)))


def read_facts(home: Location) -> PoolFacts:
    """What pool/shards.parquet says beside its rows; what it said at init where there is none."""
    if not (home / FILE).exists():
        return PoolFacts()
    with advised("restore it from a copy"):
        metadata = (home / FILE).read_table(["shard"]).schema.metadata or {}
    facts = json.loads(metadata.get(_FACTS, b"{}"))
    return PoolFacts(facts.get("version", 0), tuple(facts.get("patterns", ())))


def read_shards(home: Location) -> Shards:
    """The rows of pool/shards.parquet, sorted by shard name: every shard that ever was in the pool."""
    with advised("restore it from a copy"):
        table = (home / FILE).read_table().replace_schema_metadata()
    there, defaults = set(table.column_names), Shard._field_defaults
    columns = [
        table[field.name].cast(field.type)
        if field.name in there
        else pa.repeat(pa.scalar(defaults[field.name], field.type), len(table))
        for field in SHARDS_SCHEMA
    ]
    shards = Shards(pa.table(columns, schema=SHARDS_SCHEMA))
    del table, columns
    give_back_freed_memory()
    if "version" in there:
        return shards
    # An older campaign: its marks are times.
    times = pc.replace_substring_regex(shards.table["etag_or_mtime"], "^mtime:", "")
    return shards.with_column("mtime_ns", times.cast(pa.int64())).with_new_versions()
