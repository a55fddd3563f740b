"""An image of which two sizes are wanted is decoded once, and each size is the same wherever it is read."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.pool.images import DecodeError, decode, decode_sizes
from engine.pool.manifest import list_shards
from engine.pool.shard import Shard
from engine.pool.sight import Sight, seen_as, sight_of
from engine.scoring.chunks import CHUNK_BYTES, chunk_items
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.watchdog import Attempts
from tests.rounds import write_shard


def file_of(width: int, height: int, form: str = "JPEG", orientation: int = 1) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image, stream = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    image.save(stream, form, exif=exif)
    return stream.getvalue()


FILES = {
    "large jpeg": file_of(700, 530), "turned jpeg": file_of(700, 530, orientation=6), "png": file_of(90, 70, "PNG"),
    "small jpeg": file_of(16, 16), "other small jpeg": file_of(48, 48), "both sides": file_of(48, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_size_is_as_alone_and_what_needs_no_other_reduction_is_decoded_once(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, image = FILES[name], ImageConfig(channels=channels)
    alone = {side: decode(data, image.model_copy(update={"size": side})) for side in (16, 20, 48)}
    calls = list[Any]()
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given, **named: calls.append(1) or real(*given, **named))
    for sides in ([16, 48], [48, 16], [16, 20]):
        for side, pixels in zip(sides, decode_sizes(data, image, sides), strict=True):
            np.testing.assert_array_equal(pixels, alone[side])
    # A large JPEG is reduced more for 16 than for 48 pixels.
    assert len(calls) == (0 if "png" in name else 5 if "large" in name or "turned" in name else 3)


@pytest.mark.parametrize("data", [b"no image", FILES["large jpeg"][:300], FILES["large jpeg"][:-900], b""])
def test_what_does_not_decode_is_refused_in_the_same_words(data: bytes) -> None:
    with pytest.raises(DecodeError) as alone:
        decode(data, ImageConfig(size=16))
    with pytest.raises(DecodeError) as both:
        decode_sizes(data, ImageConfig(), [16, 48])
    assert (str(both.value), both.value.kind) == (str(alone.value), alone.value.kind)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    members = {f"{n}.{'png' if 'png' in name else 'jpg'}": FILES[name] for n, name in enumerate(FILES)}
    write_shard(tmp_path / "a.tar", {**members, "9.jpg": FILES["large jpeg"][:400]})
    return list_shards([str(tmp_path / "a.tar")], "")[0][0]


def rows(shard: Shard, sight: Sight) -> list[dict[str, Any]]:
    reading = Reading(sight, num_folds=2, attempts=1, stall_seconds=60.0)
    return [table.to_pylist()[0] for table in read_chunks(shard, reading, Attempts())]


def pixels(row: dict[str, Any], name: str, side: int) -> NDArray[np.uint8]:
    return np.frombuffer(row[name], np.uint8).reshape(-1, side, side, 3)


@pytest.mark.parametrize("task_size", [48, 4])
def test_a_chunk_has_both_and_training_sees_the_same(shard: Shard, task_size: int) -> None:
    sight = Sight(ImageConfig(size=16), task_size=task_size)
    (row,) = rows(shard, sight)
    assert sight.shapes == [(16, 16, 3), (task_size, task_size, 3)]
    assert (sight.of_task.shape, sight.of_task.dtype) == (sight.shapes[1], np.uint8)
    for name, part in (("seen", sight), ("task_seen", sight.of_task)):
        found = pixels(row, name, part.shape[0])
        assert len(found) == len(FILES)
        for image, data in zip(found, FILES.values(), strict=True):
            np.testing.assert_array_equal(image, part.decoded(data))
    assert sight.of_task.decoded(b"no image") is None


def test_without_another_size_a_chunk_has_one(shard: Shard) -> None:
    sight = Sight(ImageConfig(size=16))
    (row,) = rows(shard, sight)
    assert "task_seen" not in row
    assert sight.of_task is sight
    np.testing.assert_array_equal(pixels(row, "seen", 16)[0], decode(FILES["large jpeg"], sight.image))


def test_a_chunk_is_bounded_by_all_that_it_has() -> None:
    both = Sight(ImageConfig(size=64), task_size=224)
    assert chunk_items(both) == CHUNK_BYTES // (3 * (64**2 + 224**2))
    assert chunk_items(both) < chunk_items(Sight(ImageConfig(size=224)))


def test_the_task_learners_size_is_that_of_the_configuration() -> None:
    def sight(**values: Any) -> Sight:
        named = {"task.model": "tests.tasks:Plain", **{key.replace("_", "."): value for key, value in values.items()}}
        config = override(CampaignConfig(), named, "test")
        found = sight_of(config, [])
        assert (found.shapes, found.dtype) == seen_as(config, 0)
        return found

    assert sight(task_size=48, image_size=16).shapes == [(16, 16, 3), (48, 48, 3)]
    assert sight(task_size=16, image_size=16).shapes == [(16, 16, 3)]
    assert sight(image_size=16).shapes == [(16, 16, 3)]
    assert sight(task_size=48, image_size=16, task_model="").shapes == [(16, 16, 3)]
