"""The images of a batch: read from their shards by byte range, without their metadata, under opaque names."""

import hashlib
import io
import shlex
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.config.texts import plural
from engine.errors import InputError
from engine.handoff.stripping import is_strippable, stripped
from engine.pool.formats import FORMATS, format_of
from engine.pool.identity import content_hash
from engine.pool.shard import Place, Shard, read_images
from engine.storage.location import Location

THREADS = 32
"""A thread waits for most of the time: for a look at a shard, a range of it, a disk that flushes or an upload."""
MOST_AT_ONCE = 64
"""Images of a shard that one thread reads, one after another."""
_ORIENTATION = 0x0112
_EXIF_OF_PNG = (b"eXIf", b"Raw profile type exif")
In = TypeVar("In")
Out = TypeVar("Out")


class Written(NamedTuple):
    """An image that was written: its name for vendors, its file, what the vendor sees of it, and the hash of the bytes
    that are in the pool. Width and height are those of the image as it is shown, upright by its Exif orientation."""

    item_id: str
    file: str
    size_bytes: int
    sha256: str
    media_type: str
    width: int
    height: int
    content_hash: str


def written_of(row: dict[str, Any]) -> Written:
    """An image of a batch that was sent, from its row of IMAGES_SCHEMA."""
    suffix = row["file"].rpartition(".")[2]
    (form,) = (form for form in FORMATS if form.suffixes[0] == suffix)
    facts = row | {"size_bytes": row["sent_bytes"], "media_type": f"image/{form.name.lower()}"}
    return Written(**{name: facts[name] for name in Written._fields})


def write_images(
    campaign: Campaign, folder: Location, rows: pa.Table, shards: dict[str, Shard], run: Run, *, strip_metadata: bool
) -> dict[str, Written]:
    """Write the images as ITEM_ID.SUFFIX into a folder.

    Args:
        rows: item_id, shard, and the fields of a `Place`.

    Raises InputError for a shard that changed, and an image that is none or is damaged.
    """
    by_shard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.select(["item_id", "shard", *Place._fields]).to_pylist():
        by_shard[row["shard"]].append(row)
    found: dict[str, Written] = {}
    num_kept = 0

    def write(wanted: list[dict[str, Any]]) -> list[tuple[Written, bool]]:
        """Some images of one shard; of their bytes a thread holds one image's."""
        places = [Place(*(row[name] for name in Place._fields)) for row in wanted]
        done = []
        for row, content in zip(wanted, read_images(shards[wanted[0]["shard"]], places), strict=True):
            written, sent = _prepared(campaign, row, content, strip_metadata=strip_metadata)
            (folder / written.file.rpartition("/")[2]).write_bytes(sent, written.media_type)
            done.append((written, strip_metadata and not is_strippable(content)))
        return done

    for done in in_threads(write, _pieces(by_shard)):
        for written, is_kept in done:
            num_kept += is_kept
            found[written.item_id] = written
        run.on_progress(len(found) / len(rows), f"{len(found)} of {len(rows)} images")
    if num_kept:
        run.log(f"of BMP and TIFF files the metadata is not taken out: {plural(num_kept, 'image')}")
    return found


def _pieces(by_shard: dict[str, list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in pieces of at most MOST_AT_ONCE of one shard, shard by shard."""
    for _, wanted in sorted(by_shard.items()):
        yield from (wanted[begin : begin + MOST_AT_ONCE] for begin in range(0, len(wanted), MOST_AT_ONCE))


def in_threads(function: Callable[[In], Out], values: Iterable[In]) -> Iterator[Out]:
    """The results in the order of the values, few of which are held at once. The first error ends it."""
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            for value in values:
                pending.append(threads.submit(function, value))
                if len(pending) == 2 * THREADS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _prepared(
    campaign: Campaign, row: dict[str, Any], content: bytes, *, strip_metadata: bool
) -> tuple[Written, bytes]:
    """An image as a vendor gets it, and its bytes there."""
    form = format_of(content)
    where = f"{row['shard']}: item {row['key']}"
    if form is None:
        raise InputError(f"{where} is no longer an image; restore the shard")
    try:
        sent = stripped(content) if strip_metadata else content
        with Image.open(io.BytesIO(sent)) as image:
            width, height = image.size[::-1] if _is_turned(image, sent) else image.size
    except (ValueError, UnidentifiedImageError, OSError) as error:
        place = shlex.join([row["shard"], row["key"]])
        fix = f"do not send it: vaal labels {campaign.home.quoted} retract {place} --never-pick"
        raise InputError(f"{where}: its metadata cannot be taken out: {error}; {fix}") from error
    file = f"images/{row['item_id']}.{form.suffixes[0]}"
    sha256 = hashlib.sha256(sent).hexdigest()
    media_type = f"image/{form.name.lower()}"
    written = Written(
        row["item_id"], file, len(sent), sha256, media_type, width, height, row["content_hash"] or content_hash(content)
    )
    return written, sent


def _is_turned(image: Image.Image, content: bytes) -> bool:
    """Whether programs that show the image swap its sides, by its Exif orientation. Pillow did so with TIFF."""
    has_exif = image.format != "PNG" or any(mark in content for mark in _EXIF_OF_PNG)
    try:
        # A PNG's Exif may come last: its pixels are read first.
        return image.format != "TIFF" and has_exif and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, struct.error):
        return False
