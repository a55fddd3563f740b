"""The shard manifest: the shards of the pool, with marks that show when one has changed."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from engine.errors import ConfigError, InputError, advised, one_line
from engine.pool.shard import Shard, mark_of
from engine.storage.globs import matches_of
from engine.storage.location import Location, masked
from engine.storage.retries import retried
from engine.tables.columns import required

LIST_THREADS, MARK_THREADS, AT_ONCE = 16, 64, 4096
MOST_SINGLE = 8
"""Shards of a folder that are looked up one by one, at most."""
SHARDS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "url"),
        *required(pa.int64(), "size_bytes"),
        *required(pa.string(), "etag_or_mtime"),
        pa.field("num_items", pa.int64()),
        *required(pa.int64(), "mtime_ns"),
        *required(pa.string(), "version"),
        *required(pa.int32(), "joined"),
        pa.field("left", pa.int32()),
        pa.field("why_left", pa.string()),
    ]
)
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


def list_shards(patterns: list[str], root: str) -> tuple[list[Shard], str]:
    """The pool's shards, sorted by name, and its root: `root`, or without one the deepest folder common to all shards.

    Raises:
        InputError: a shard is missing, empty, a folder, or listed twice.
        ConfigError: a shard is not below `root`, or the shards have no folder in common.
    """
    if not patterns:
        raise ConfigError("pool.shards: no shards; give --pool with paths or URLs of tar files")
    locations = expand(patterns)
    folder = Location.of(root).url if root else _common_folder(locations)
    return shards_at(locations, folder), folder


def shards_at(locations: list[Location], folder: str, asked: str = "--pool") -> list[Shard]:
    """The shards at these places, named below the pool's root `folder`, sorted by name. Raises as `list_shards`."""
    if not locations:
        return []
    for location in locations:
        if not location.url.startswith(folder.rstrip("/") + "/"):
            raise ConfigError(f"pool.root={folder}: shard {location} is not below it")
    infos = _infos_of(locations)
    shards = []
    for location, info, mark in zip(locations, infos, _marks_of(locations, infos), strict=True):
        _require_file(location, info, asked)
        name = location.url.removeprefix(folder.rstrip("/") + "/")
        shards.append(new_version(Shard(name, location.url, info.size, mark, None, info.mtime_ns)))
    return sorted(shards)


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


def _common_folder(locations: list[Location]) -> str:
    schemes = {location.url.removesuffix(location.path) for location in locations}
    folders = [posixpath.dirname(location.path) for location in locations]
    folder = posixpath.commonpath(folders) if len(schemes) == 1 else ""
    if not folder:
        raise ConfigError("--pool: the shards have no folder in common; keep a pool in one bucket or file system")
    return schemes.pop() + folder


def at_root(shards: list[Shard], root: str) -> list[Shard]:
    """The shards below the root of the pool, which may have moved: one that was elsewhere has its bytes looked at."""
    folder = Location.of(root).url.rstrip("/") if root else ""
    here = ((shard, f"{folder}/{shard.shard}") for shard in shards)
    return [s if not root or s.url == url else s._replace(url=url, mtime_ns=0) for s, url in here]


def look_up(shards: list[Shard]) -> list[Shard | None]:
    """The same shards as they are in storage now, in the order given; None for one that is gone.

    A shard that may have changed has its new size and time, and all else as before. Folders are listed as a whole,
    because a million look-ups take hours on an object store.

    Raises InputError if a folder cannot be listed.
    """
    if shards and not Location(shards[0].url).is_listed:
        return look_up_few(shards)
    folders = sorted({posixpath.dirname(shard.url) for shard in shards})
    with ThreadPoolExecutor(LIST_THREADS) as threads:
        listings = dict(zip(folders, threads.map(_list_folder, folders), strict=True))
    found: list[Shard | None] = []
    for shard in shards:
        folder, _, name = shard.url.rpartition("/")
        found.append(_as_found(shard, listings[folder].get(name)))
    return found


def look_up_few(shards: list[Shard]) -> list[Shard | None]:
    """As `look_up`, with a request for each shard instead of a listing of the pool."""
    if not shards:
        return []
    first = Location(shards[0].url)
    try:
        infos = retried(lambda: first.filesystem.get_file_info([Location(shard.url).path for shard in shards]))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{first}: cannot be looked up: {one_line(error)}") from error
    return [
        _as_found(shard, (info.size, info.mtime_ns) if info.is_file else None)
        for shard, info in zip(shards, infos, strict=True)
    ]


def _as_found(shard: Shard, now: tuple[int, int] | None) -> Shard | None:
    if now == (shard.size_bytes, shard.mtime_ns):
        return shard
    return now and shard._replace(size_bytes=now[0], mtime_ns=now[1])


def _list_folder(url: str) -> dict[str, tuple[int, int]]:
    folder = Location(url)
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    try:
        infos = retried(lambda: folder.filesystem.get_file_info(selector))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder}: cannot be listed: {one_line(error)}") from error
    return {info.base_name: (info.size, info.mtime_ns) for info in infos if info.type == fs.FileType.File}


def write_shards(home: Location, shards: list[Shard], facts: PoolFacts | None = None) -> None:
    """Replace pool/shards.parquet; without `facts` those that it has stay."""
    facts = facts or read_facts(home)
    columns = list(zip(*shards, strict=True))
    schema = SHARDS_SCHEMA.with_metadata({_FACTS: json.dumps(facts._asdict()).encode()})
    (home / FILE).write_table(pa.table([list(column) for column in columns], schema=schema))


def write_counts(home: Location, counted: dict[str, int | None]) -> None:
    """Note the numbers of items of these shards, by name; the others keep theirs. No shard is an object meanwhile."""
    with advised("restore it from a copy"):
        table = (home / FILE).read_table()
    place, names = table.schema.get_field_index("num_items"), table["shard"].to_pylist()
    numbers = [counted.get(name, before) for name, before in zip(names, table["num_items"].to_pylist(), strict=True)]
    (home / FILE).write_table(table.set_column(place, table.schema.field(place), pa.array(numbers, pa.int64())))


def read_facts(home: Location) -> PoolFacts:
    """What pool/shards.parquet says beside its rows; what it said at init where there is none."""
    if not (home / FILE).exists():
        return PoolFacts()
    with advised("restore it from a copy"):
        metadata = (home / FILE).read_table(["shard"]).schema.metadata or {}
    facts = json.loads(metadata.get(_FACTS, b"{}"))
    return PoolFacts(facts.get("version", 0), tuple(facts.get("patterns", ())))


def read_shards(home: Location) -> list[Shard]:
    """The rows of pool/shards.parquet, sorted by shard name: every shard that ever was in the pool."""
    with advised("restore it from a copy"):
        table = (home / FILE).read_table()
    there, defaults = set(table.column_names), Shard._field_defaults
    columns = (table[n].to_pylist() if n in there else [defaults[n]] * len(table) for n in SHARDS_SCHEMA.names)
    shards = [Shard(*row) for row in zip(*columns, strict=True)]
    return shards if "version" in there else list(map(_of_older_campaign, shards))


def in_round(shards: list[Shard], number: int) -> list[Shard]:
    """Those of the shards that are in the pool of a round."""
    return [shard for shard in shards if shard.is_in(number)]


def _of_older_campaign(shard: Shard) -> Shard:
    """A row without a version."""
    return new_version(shard._replace(mtime_ns=int(shard.etag_or_mtime.removeprefix("mtime:"))))


def estimate_num_items(shards: list[Shard], known: list[Shard] | None = None) -> int:
    """Items of shards: counted for those that have been scanned, estimated by bytes for others, from how many items
    scanned ones have. `known` are all that may be asked for that, where they are more."""
    scanned = [shard for shard in known or shards if shard.num_items is not None]
    counted, scanned_bytes = sum(shard.num_items or 0 for shard in scanned), sum(s.size_bytes for s in scanned)
    others = [shard for shard in shards if shard.num_items is None]
    if not counted:
        # At least one item in each other shard.
        return len(others)
    others_bytes = sum(shard.size_bytes for shard in others)
    return sum(shard.num_items or 0 for shard in shards) + round(counted * others_bytes / scanned_bytes)
