"""Decoding: defined results within limits, and a named failure for everything else."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from engine.images import DecodeError, decode

LIMIT = 10**6


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_an_image_of_the_right_size_is_untouched() -> None:
    image = gradient(32, 32)
    np.testing.assert_array_equal(decode(encode(image), 32, 3, LIMIT), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    image = Image.fromarray(np.full((9, 7), 0x8000, np.uint16)) if mode == "I;16" else gradient(7, 9).convert(mode)
    pixels = decode(encode(image, "JPEG" if mode == "CMYK" else "PNG"), 8, channels, LIMIT)
    assert pixels.shape == (8, 8, channels)
    assert pixels.dtype == np.uint8


def test_sixteen_bits_keep_their_high_byte() -> None:
    image = Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))
    assert (decode(encode(image), 8, 1, LIMIT) == 0x80).all()


def test_orientation_is_applied() -> None:
    image = gradient(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(encode(image, "PNG", exif=exif), 10, 3, LIMIT)
    upright = decode(encode(image.rotate(-90, expand=True)), 10, 3, LIMIT)
    np.testing.assert_array_equal(turned, upright)


def test_reduced_decoding_of_a_large_jpeg_stays_close_to_full_decoding() -> None:
    image = gradient(1024, 768)
    data = encode(image, "JPEG", quality=95)
    full = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    difference = np.abs(decode(data, 32, 3, LIMIT).astype(int) - np.asarray(full).astype(int))
    assert difference.mean() < 2
    assert difference.max() < 24


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_refused(image_format: str) -> None:
    data = encode(gradient(64, 64), image_format)
    with pytest.raises(DecodeError):
        decode(data[: len(data) // 2], 32, 3, LIMIT)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError) as first:
        decode(data, 32, 3, LIMIT)
    with pytest.raises(DecodeError, match=f"^{re.escape(str(first.value))}$"):
        decode(bytearray(data), 32, 3, LIMIT)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    with pytest.raises(DecodeError, match=r"2000 x 600 pixels, more than image.max_pixels=1000000"):
        decode(encode(Image.new("L", (2000, 600))), 32, 1, LIMIT)
