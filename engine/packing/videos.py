"""Frames of videos at an interval, as JPEG: what was filmed once belongs together, so a frame's key begins with its
video's."""

import io
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import ConfigError
from engine.packing.entries import UNKNOWN_BYTES, Entry, Options, OtherFiles, Sample, key_of, marked
from engine.packing.known_sources import KnownSources
from engine.packing.walking import base_of, folders_of
from engine.pool.clips import FRAMES
from engine.storage.location import Location

SUFFIXES = frozenset(
    {"mp4", "mov", "m4v", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts", "wmv", "flv", "3gp"}
)
GROUP = FRAMES
"""The pattern of pool.group that finds the video in a frame's key."""
RUN_FRAMES = 1000
"""A long video is packed in runs of so many frames, so that several processes work on it."""
QUALITY = 95


def is_video_name(name: str) -> bool:
    """Whether a file with this name, or this suffix, looks like a video."""
    return name.rpartition(".")[2].lower() in SUFFIXES


def require_library() -> None:
    """Raises ConfigError if the library that reads videos is missing."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ConfigError("--every: videos need another package; install it: pip install 'vaal[video]'") from error


def entries(source: Location, options: Options, known: KnownSources, others: OtherFiles) -> Iterator[Entry]:
    """Runs of frames of the videos that are not known, video by video.

    Raises ConfigError if the library that reads them is missing.
    """
    require_library()
    base = base_of(source)
    for folder in folders_of(source):
        keys = Counter(key_of(name) for name in folder.files if is_video_name(name))
        for name in folder.files:
            path, key = folder.below(name), key_of(name)
            if not is_video_name(name):
                others.skipped[f".{name.rpartition('.')[2].lower()}" if "." in name else "no suffix"] += 1
            elif path not in known:
                whole = folder.below(key) if keys[key] == 1 else marked(folder.below(key), path)
                yield from _runs(base / path, Entry(whole, path), options)


def _runs(place: Location, entry: Entry, options: Options) -> Iterator[Entry]:
    try:
        with _opened(place) as video:
            seconds = (video.duration or 0) / 1_000_000
    except _errors():
        # It is tried again when it is packed, and is a failure then.
        seconds = 0.0
    num_frames = max(1, math.ceil(seconds / options.every))
    most = min(RUN_FRAMES, options.shard_images)
    for begin in range(0, num_frames, most):
        # How long a video is, its header says only about: the last run goes to the end, whatever that is.
        end = begin + most if begin + most < num_frames else -1
        yield entry._replace(size_bytes=UNKNOWN_BYTES * min(most, num_frames - begin), begin=begin, end=end)


def samples(entries: list[Entry], base: Location, options: Options) -> Iterator[Sample]:
    """The frames of runs, in their order. A video that ends in an error gives the frames before it, and a failure."""
    for entry in entries:
        count = 0
        try:
            with _opened(base / entry.source) as video:
                for number, frame in _frames(video, entry, options.every):
                    count += 1
                    key = f"{entry.key}-{round(1000 * number * options.every):08d}"
                    yield Sample(key, entry.source, _jpeg(frame))
        except _errors() as error:
            text = getattr(error, "strerror", "") or str(error)
            yield Sample(entry.key, entry.source, b"", error="BadVideo", message=f"after {count} frames: {text}")
        else:
            if not count and not entry.begin:
                yield Sample(entry.key, entry.source, b"", error="BadVideo", message="no frame in it")


def _frames(video: Any, entry: Entry, every: float) -> Iterator[tuple[int, Any]]:
    """The first frame at or after each multiple of `every` seconds, with the number of the multiple."""
    stream = video.streams.video[0]
    stream.thread_type = "AUTO"
    start = (stream.start_time or 0) * stream.time_base
    if entry.begin:
        # To the last key frame before it.
        video.seek(int((entry.begin * every + float(start)) / float(stream.time_base)), stream=stream)
    wanted = entry.begin
    for frame in video.decode(stream):
        if frame.pts is None:
            continue
        seconds = float(frame.pts * frame.time_base - start)
        if seconds + 1e-6 < wanted * every:
            continue
        wanted = max(wanted, math.floor(seconds / every + 1e-6))
        if 0 <= entry.end <= wanted:
            return
        yield wanted, frame
        wanted += 1


def _jpeg(frame: Any) -> bytes:
    image = frame.to_image()
    # A phone that was held upright says so beside the frames.
    turn = getattr(frame, "rotation", 0) % 360
    image = image.rotate(turn, expand=True) if turn else image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@contextmanager
def _opened(place: Location) -> Iterator[Any]:
    import av

    if place.is_local:
        with av.open(place.path) as video:
            yield video
        return
    with place.filesystem.open_input_file(place.path) as file, av.open(file) as video:
        yield video


def _errors() -> tuple[type[Exception], ...]:
    import av

    return (av.FFmpegError, OSError, IndexError, ValueError)
