"""The bytes of images at paths and URLs: each whole, or with the reason why not."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
from pyarrow import fs

from engine.errors import ConfigError, InputError, one_line
from engine.packing.entries import MAX_BYTES, Entry, Options, Sample
from engine.packing.web_images import PackError, fetch, is_web
from engine.storage.location import Location
from engine.storage.retries import is_transient, retried

LOCAL_THREADS, REMOTE_THREADS = 4, 16
LOCAL_AT_ONCE = 32
MOST_AHEAD_BYTES = 128 << 20
"""Of the images that are read before they are written, as far as their sizes are known."""
MOST_SILENCES = 3
"""Images of one shard that a storage did not give in any try: then the storage is at fault, and the run ends."""


def samples(entries: list[Entry], base: Location, options: Options) -> Iterator[Sample]:
    """The images of entries, in their order. `base` is the folder that paths are below; of a list they are absolute.

    Raises InputError if the storage does not answer.
    """
    silences = 0
    is_slow = not base.is_local or any("://" in entry.source for entry in entries)
    for sample in ahead(entries, lambda entry: _sample(entry, base, options), is_slow=is_slow):
        if sample.error == "NoAnswer" and not is_web(sample.source):
            silences += 1
            if silences >= MOST_SILENCES:
                raise InputError(f"{sample.source}: {sample.message}; run the same command again when it answers")
        yield sample


def ahead(entries: list[Entry], read: Callable[[Entry], Sample], *, is_slow: bool) -> Iterator[Sample]:
    """What is read, in the order of the entries, while threads read those that follow."""
    # To hand a single file of a disk from thread to thread takes longer than to read it.
    each, num_threads = (1, REMOTE_THREADS) if is_slow else (LOCAL_AT_ONCE, LOCAL_THREADS)
    pending: deque[tuple[int, Future[list[Sample]]]] = deque()
    held = 0
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            for place in range(0, len(entries), each):
                some = entries[place : place + each]
                size = sum(max(entry.size_bytes, 0) for entry in some)
                while pending and (len(pending) >= 2 * num_threads or held + size > MOST_AHEAD_BYTES):
                    before, future = pending.popleft()
                    held -= before
                    yield from future.result()
                pending.append((size, threads.submit(_each, read, some)))
                held += size
            while pending:
                yield from pending.popleft()[1].result()
        finally:
            for _, future in pending:
                future.cancel()


def _each(read: Callable[[Entry], Sample], entries: list[Entry]) -> list[Sample]:
    return [read(entry) for entry in entries]


def _sample(entry: Entry, base: Location, options: Options) -> Sample:
    source = entry.source
    try:
        if is_web(source):
            return Sample(entry.key, source, fetch(source, options.timeout), entry.label)
        place = Location(source) if source.startswith("/") or "://" in source else base / source
        data = read_file(place)
        stem = place.url.rpartition(".")[0]
        companions = tuple((name, _read_companion(stem, name)) for name in entry.companions)
    except PackError as fault:
        return Sample(entry.key, source, b"", error=fault.kind, message=str(fault))
    return Sample(entry.key, source, data, entry.label, companions)


def _read_companion(stem: str, name: str) -> bytes:
    try:
        return read_file(Location(f"{stem}.{name}"))
    except PackError as error:
        raise PackError(error.kind, f"its .{name}: {error}") from error


def read_file(place: Location) -> bytes:
    """A file of up to MAX_BYTES. Raises PackError."""
    try:
        if place.is_local:
            with open(place.path, "rb") as file:  # noqa: PTH123, a third of the time of Path.open
                data = file.read(MAX_BYTES + 1)
        else:
            data = retried(lambda: _read_remote(place))
    except FileNotFoundError as error:
        raise PackError("Missing", "no such file") from error
    except (OSError, pa.ArrowException, InputError, ConfigError) as error:
        is_silent = (isinstance(error, OSError) and is_transient(error)) or "given up after" in str(error)
        text = (isinstance(error, OSError) and error.strerror) or one_line(error)
        raise PackError("NoAnswer" if is_silent else "Unreadable", text) from error
    if len(data) > MAX_BYTES:
        raise PackError("TooManyBytes", f"more than {MAX_BYTES:,} bytes")
    return data


def _read_remote(place: Location) -> bytes:
    info = place.filesystem.get_file_info(place.path)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(place.url)
    if (info.size or 0) > MAX_BYTES:
        raise PackError("TooManyBytes", f"{info.size:,} bytes, more than {MAX_BYTES:,}")
    with place.filesystem.open_input_stream(place.path, compression=None) as stream:
        data: bytes = stream.read()
    if info.size is not None and len(data) != info.size:
        raise ConnectionError(f"{len(data)} of {info.size} bytes")
    return data
