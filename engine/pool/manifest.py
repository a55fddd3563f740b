"""The shard manifest: the shards of the pool, with marks that show when one has changed."""

import posixpath
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from engine.errors import ConfigError, InputError, advised, one_line
from engine.pool.shard import Shard, mark_of
from engine.storage.globs import matches_of
from engine.storage.location import Location, masked
from engine.storage.retries import retried
from engine.tables.columns import required

LIST_THREADS = 16
SHARDS_SCHEMA = pa.schema(
    [
        *required(pa.string(), "shard", "url"),
        *required(pa.int64(), "size_bytes"),
        *required(pa.string(), "etag_or_mtime"),
        pa.field("num_items", pa.int64()),
        *required(pa.int64(), "mtime_ns"),
        *required(pa.string(), "version"),
    ]
)


def expand(patterns: list[str]) -> list[Location]:
    """Shard locations from paths, URLs, globs and brace ranges, sorted.

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
                f"--pool {masked(pattern)}: a brace without its partner; escape it: '\\{{' or '\\}}'"
            ) from error
        matched = [match for location in plain for match in _glob(location)]
        if not matched:
            raise InputError(f"--pool {pattern}: no shard matches; check the path, or quote the pattern")
        found.extend(matched)
    for location, count in Counter(found).items():
        if count > 1:
            raise InputError(f"--pool: {location} is listed {count} times; list each shard once")
    _require_different_files(found)
    return sorted(found, key=str)


def _glob(location: Location) -> list[Location]:
    matches = matches_of(location)
    others = [match for match in matches if not match.url.lower().endswith(".tar") and match != location]
    if others:
        raise InputError(
            f"--pool {location}: {len(others)} of {len(matches)} matches are no .tar, first {others[0]}; give "
            f"'{posixpath.dirname(location.url)}/*.tar', or name the shards without * and ?"
        )
    return matches


def _require_different_files(locations: list[Location]) -> None:
    """Raises InputError if two local paths lead to one file, by a link: its images would be in the pool twice."""
    found: dict[tuple[int, int], Location] = {}
    for location in locations:
        if location.is_local and Path(location.path).is_file():
            status = Path(location.path).stat()
            first = found.setdefault((status.st_dev, status.st_ino), location)
            if first != location:
                raise InputError(f"--pool: {first} and {location} are the same file, by a link; list it once")


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
    for location in locations:
        if not location.url.startswith(folder.rstrip("/") + "/"):
            raise ConfigError(f"pool.root={folder}: shard {location} is not below it")
    try:
        infos = locations[0].filesystem.get_file_info([location.path for location in locations])
    except OSError as error:
        raise InputError(f"{locations[0]}: cannot be looked up: {one_line(error)}") from error
    shards = []
    with ThreadPoolExecutor(LIST_THREADS) as threads:
        marks = threads.map(_listed_mark, locations, infos)
        for location, info, mark in zip(locations, infos, marks, strict=True):
            _require_file(location, info)
            name = location.url.removeprefix(folder.rstrip("/") + "/")
            shards.append(new_version(Shard(name, location.url, info.size, mark, None, info.mtime_ns)))
    return sorted(shards), folder


def _listed_mark(location: Location, info: fs.FileInfo) -> str:
    return retried(lambda: mark_of(location, info)) if info.is_file else ""


def new_version(shard: Shard) -> Shard:
    """The shard with a version of its own for its present size and mark."""
    # With this separator the names of scores files are those of older campaigns, and nothing is scored again.
    return shard._replace(version=f"{shard.size_bytes}\0{shard.etag_or_mtime}")


def _require_file(location: Location, info: fs.FileInfo) -> None:
    if info.type == fs.FileType.NotFound:
        raise InputError(f"--pool {location}: no such file")
    if info.type != fs.FileType.File:
        raise InputError(f"--pool {location}: a folder; give the shards in it, for example '{location}/*.tar'")
    if info.size == 0:
        raise InputError(f"--pool {location}: the file is empty; even a shard without items has an end mark")


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


def write_shards(home: Location, shards: list[Shard]) -> None:
    """Replace pool/shards.parquet."""
    columns = list(zip(*shards, strict=True))
    (home / "pool/shards.parquet").write_table(pa.table([list(column) for column in columns], schema=SHARDS_SCHEMA))


def read_shards(home: Location) -> list[Shard]:
    """The rows of pool/shards.parquet, sorted by shard name."""
    with advised("restore it from a copy"):
        table = (home / "pool/shards.parquet").read_table()
    names = [name for name in SHARDS_SCHEMA.names if name in table.column_names]
    columns = (table[name].to_pylist() for name in names)
    shards = [Shard(*row) for row in zip(*columns, strict=True)]
    return shards if names == SHARDS_SCHEMA.names else list(map(_of_older_campaign, shards))


def _of_older_campaign(shard: Shard) -> Shard:
    """A row without the last two columns."""
    return new_version(shard._replace(mtime_ns=int(shard.etag_or_mtime.removeprefix("mtime:"))))


def estimate_num_items(shards: list[Shard]) -> int:
    """Items of the pool: counted for shards that have been scanned, estimated by bytes for others."""
    scanned = [shard for shard in shards if shard.num_items is not None]
    counted = sum(shard.num_items or 0 for shard in scanned)
    if not counted:
        # At least one item in each other shard.
        return len(shards) - len(scanned)
    scanned_bytes, all_bytes = (sum(shard.size_bytes for shard in some) for some in (scanned, shards))
    return round(counted * all_bytes / scanned_bytes)
