"""Decoding: defined results within limits, and a named failure for everything else."""

import io
import os
import struct
import tarfile
import warnings
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.config.input_options import ImageConfig
from engine.pool.images import DecodeError, decode, open_upright

RNG = np.random.default_rng(0)
SMALL = ImageConfig(size=8)
EVERY_SUFFIX = ["jpg", "png", "webp", "gif", "bmp", "tiff"]
PROGRESSIVE = {"progressive": True}
RESTARTS = {"restart_marker_blocks": 2}


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def by_pillow(data: bytes, size: int, mode: str = "RGB") -> NDArray[np.uint8]:
    """Full decoding, and a resize with antialiasing: what `decode` is compared with."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode)
    return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, rows: bytes, *extra: bytes, bits: int = 8, colour: int = 2, interlace: int = 0
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def pictures(pattern: str) -> list[bytes]:
    """The files in the shards that match, below VAAL_DATA, else ../shared/data; none where they are absent."""
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data"))
    found = []
    for shard in sorted(data.glob(f"{pattern}.tar")):
        with tarfile.open(shard) as tar:
            found += [content.read() for member in tar if (content := tar.extractfile(member))]
    return found


PHOTO = Image.fromarray(RNG.integers(0, 256, (6, 6, 3), np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
JPEG = encode(PHOTO, "JPEG")


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_an_image_of_the_right_size_is_untouched(image_format: str) -> None:
    image = ImageConfig(suffixes=EVERY_SUFFIX)
    np.testing.assert_array_equal(decode(encode(PHOTO, image_format), image), np.asarray(PHOTO))


@pytest.mark.parametrize("options", [{}, PROGRESSIVE, RESTARTS, {"subsampling": 0}, {"keep_rgb": True}])
@pytest.mark.parametrize(("mode", "size"), [("RGB", 32), ("L", 32), ("RGB", 12), ("L", 12)])
def test_a_jpeg_that_is_not_reduced_has_the_pixels_of_full_decoding(
    mode: str, size: int, options: dict[str, Any]
) -> None:
    data = encode(PHOTO.convert(mode), "JPEG", **options)
    difference = decode(data, ImageConfig(size=size)).astype(int) - by_pillow(data, size)
    assert np.abs(difference).max() <= (0 if size == PHOTO.width else 1)
    grey = decode(data, ImageConfig(size=size, channels=1)).astype(int)
    # Luma as it is stored, and not by way of RGB.
    assert np.abs(grey - by_pillow(data, size, "L")).max() <= (12 if mode == "RGB" else 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "JPEG L", "JPEG RGB"])
@pytest.mark.parametrize("size", [8, 9])
def test_every_mode_becomes_the_channels_asked_for(mode: str, channels: int, size: int) -> None:
    kind = "JPEG" if mode == "CMYK" or mode.startswith("JPEG ") else "PNG"
    level = 255 if mode == "1" else 0x80
    flat = Image.new("L", (9, 9), level).convert("L" if mode == "I;16" else mode.removeprefix("JPEG "))
    flat = Image.fromarray(np.full((9, 9), level << 8, np.uint16)) if mode == "I;16" else flat
    pixels = decode(encode(flat, kind), ImageConfig(size=size, channels=channels))
    assert pixels.shape == (size, size, channels)
    assert pixels.dtype == np.uint8
    expected = [level] * (channels - (channels % 2 == 0)) + [255] * (channels % 2 == 0)
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_keep_their_high_byte(colour: int, samples: int) -> None:
    deep = RNG.integers(0, 1 << 16, (8, 8, samples)).astype(">u2")
    data = png(8, 8, b"".join(b"\0" + row.tobytes() for row in deep), bits=16, colour=colour)
    np.testing.assert_array_equal(decode(data, ImageConfig(size=8, channels=samples)), deep >> 8)


@pytest.mark.parametrize(("colour", "samples"), [(4, 2), (2, 3), (6, 4)])
def test_colours_in_the_low_bits_of_sixteen_are_refused_by_name(colour: int, samples: int) -> None:
    deep = RNG.integers(0, 1 << 14, (8, 8, samples)).astype(">u2")
    if samples != 3:
        deep[..., -1] = 65535
    data = png(8, 8, b"".join(b"\0" + row.tobytes() for row in deep), bits=16, colour=colour)
    with pytest.raises(DecodeError, match="less than a quarter of their range") as caught:
        decode(data, ImageConfig(size=8))
    assert caught.value.kind == "LowBits"


@pytest.mark.parametrize("top", [1e-6, 0.01, 0.5, 1.0, 300.0])
def test_floats_are_never_all_black(top: float) -> None:
    values = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    found = decode(encode(Image.fromarray(values), "TIFF"), ImageConfig(size=8, channels=1, suffixes=["tiff"]))
    assert found.max() == (255 if top != 0.5 else 128)


def test_an_interlaced_png_is_decoded() -> None:
    pixels = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    data = png(8, 8, b"".join(b"\0" + row.tobytes() for row in rows), interlace=1)
    np.testing.assert_array_equal(decode(data, SMALL), pixels)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_alpha_is_dropped_and_not_blended(mode: str) -> None:
    opaque = gradient(8, 8).quantize(16) if mode == "P" else gradient(8, 8)
    if mode == "P":
        data = encode(opaque, transparency=bytes(range(0, 256, 16)))
    else:
        data = encode(Image.merge("RGBA", [*opaque.split(), Image.new("L", (8, 8), 7)]))
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(decode(data, SMALL), np.asarray(opaque.convert("RGB")))
        alpha = decode(data, ImageConfig(size=8, channels=4))[..., 3]
    assert alpha.max() < 255


@pytest.mark.parametrize("transform", [0, 2])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [32, 12])
def test_cmyk_and_ycck_are_inverted_as_adobe_does(transform: int, channels: int, size: int) -> None:
    data = bytearray(encode(PHOTO.convert("CMYK"), "JPEG"))
    data[data.index(b"Adobe") + 11] = transform
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    expected = by_pillow(bytes(data), size, mode).astype(int)
    assert np.abs(decode(bytes(data), ImageConfig(size=size, channels=channels)) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(24, 16), (8, 8)])
def test_orientation_is_applied(image_format: str, orientation: int, width: int, height: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(gradient(width, height), image_format, exif=exif)
    np.testing.assert_array_equal(decode(data, SMALL), by_pillow(data, 8))
    upright = open_upright(data, 8, SMALL)
    assert upright.size == ((width, height) if orientation < 5 else (height, width))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04a"]
)
def test_exif_that_cannot_be_read_counts_as_none(exif: bytes) -> None:
    data = encode(PHOTO, "JPEG", exif=exif)
    assert exif in data
    np.testing.assert_array_equal(decode(data, ImageConfig()), decode(JPEG, ImageConfig()))


@pytest.mark.parametrize("image_format", ["WEBP", "GIF", "PNG"])
def test_of_an_animation_the_first_frame_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black", "gray")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data, ImageConfig(size=8, suffixes=EVERY_SUFFIX)).min() == 255


@pytest.mark.parametrize(
    ("side", "expected"),
    [(32, (128, 96)), (48, (128, 96)), (49, (256, 192)), (97, (512, 384)), (192, (512, 384)), (193, (1024, 768))],
)
def test_a_large_jpeg_is_reduced_but_never_below_twice_the_side(side: int, expected: tuple[int, int]) -> None:
    data = encode(gradient(1024, 768), "JPEG", quality=95)
    assert open_upright(data, side, SMALL).size == expected
    difference = np.abs(decode(data, ImageConfig(size=side)).astype(int) - by_pillow(data, side))
    assert difference.mean() < 1
    assert difference.max() < 24


@pytest.mark.heavy
@pytest.mark.parametrize("shards", ["pool-00000", pytest.param("pool-*", marks=pytest.mark.slow)])
def test_photographs_stay_within_the_stated_distance_of_full_decoding(shards: str) -> None:
    photos = pictures(f"photos/{shards}") or pytest.skip("no photos/pool-*.tar below VAAL_DATA or ../shared/data")
    means, peaks = defaultdict(list), defaultdict(list)
    for data in photos:
        full = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        for size in (32, 64, 224):
            expected = np.asarray(full.resize((size, size), Image.Resampling.BILINEAR))
            difference = np.abs(decode(data, ImageConfig(size=size)).astype(np.int16) - expected)
            means[size].append(difference.mean())
            peaks[size].append(difference.max())
    for size, mean, most in ((32, 1.2, 62), (64, 0.9, 61), (224, 0.03, 14)):
        assert np.mean(means[size]) <= mean
        assert max(peaks[size]) <= most


def test_small_photographs_are_those_of_full_decoding() -> None:
    small = pictures("cifar10/train-00000") or pytest.skip("no cifar10/train-*.tar below VAAL_DATA or ../shared/data")
    for data in small:
        np.testing.assert_array_equal(decode(data, ImageConfig()), by_pillow(data, 32))
