"""Masks are read as ids of classes, whatever kind of PNG they are; and what is no mask is refused by name."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.pool.mask_files import MaskError, class_numbers, one_class, read_ids

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
MOST = 1000


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def with_palette(ids: Any) -> Image.Image:
    image = Image.fromarray(ids, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return image


def grey_png(ids: Any, depth: int) -> bytes:
    """A grey PNG of so few bits a pixel, which Pillow does not write."""
    bits = "".join("0" * 8 + "".join(format(value, f"0{depth}b") for value in row).ljust(8, "0") for row in ids)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    parts = [(b"IHDR", struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], depth, 0, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    "content",
    [
        file_of(Image.fromarray(IDS)),
        file_of(with_palette(IDS)),
        file_of(Image.fromarray(IDS.astype(np.uint16))),
        grey_png(IDS[:, :4], 2),
        grey_png(IDS[:, :4], 4),
    ],
    ids=["L", "P", "16 bits", "2 bits", "4 bits"],
)
def test_ids_are_read_as_they_are(content: bytes) -> None:
    assert read_ids(content, MOST).tolist() == IDS.tolist()


def test_a_mask_of_one_bit_has_the_ids_0_and_1() -> None:
    assert read_ids(file_of(Image.fromarray(IDS > 1)), MOST).tolist() == (IDS > 1).astype(int).tolist()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (file_of(Image.fromarray(IDS), "JPEG"), "is a JPEG, whose compression changes the ids of pixels; give a PNG"),
        (file_of(Image.fromarray(IDS), "GIF"), "is no PNG; give a PNG whose pixels are ids of classes"),
        (b"text", "is no PNG; give a PNG whose pixels are ids of classes"),
        (file_of(with_palette(IDS).convert("RGB")), "is a picture in colours \\(RGB\\), which are no ids; give a PNG"),
        (file_of(with_palette(IDS).convert("RGBA")), "is a picture in colours \\(RGBA\\), which are no ids; give"),
        (file_of(Image.fromarray(IDS))[:-12], "is cut off: a PNG without its end; write it again"),
        (file_of(Image.fromarray(np.zeros((40, 26), np.uint8))), "has 26 x 40 pixels, more than image.max_pixels=1000"),
        (grey_png(IDS, 8).replace(b"IDAT", b"IDAX"), "is damaged: .*; write it again"),
    ],
    ids=["JPEG", "GIF", "text", "RGB", "RGBA", "cut off", "too large", "damaged"],
)
def test_what_is_no_mask_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(MaskError, match=f"^{why}"):
        read_ids(content, MOST)


@pytest.mark.parametrize(
    ("void", "ids", "expected"),
    [
        ({255}, [0, 1, 2, 255], [0, 1, 2, 255]),
        ({0}, [0, 1, 2, 3], [255, 0, 1, 2]),
        ({3}, [0, 1, 2, 3], [0, 1, 2, 255]),
        ({1, 300}, [0, 1, 2, 3, 300], [0, 255, 1, 2, 255]),
        (set(), [0, 1, 2], [0, 1, 2]),
    ],
)
def test_ids_without_those_of_void_are_the_classes_in_order(
    void: set[int], ids: list[int], expected: list[int]
) -> None:
    found = class_numbers(np.array([ids], np.int32), 3, frozenset(void))
    assert found.dtype == np.uint8
    assert found.tolist() == [expected]


def test_cityscapes_label_ids_become_its_train_ids() -> None:
    """cityscapesScripts, helpers/labels.py."""
    train = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    train |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    void = frozenset(range(34)) - train.keys()
    ids = np.arange(34, dtype=np.uint8)[None]
    assert class_numbers(ids, 19, void)[0].tolist() == [train.get(id_, 255) for id_ in range(34)]


def test_ids_of_no_class_are_named_with_how_often_they_are_there() -> None:
    ids = np.array([[0, 1, 2, 11, 11], [0, 0, 500, 0, 0]], np.uint16)
    why = (
        r"has ids 11 \(20.0% of the pixels\), 500 \(10.0% of the pixels\); those of the 3 classes are 0 to 2; "
        "name what is void in labels.void, or correct the mask"
    )
    with pytest.raises(MaskError, match=f"^{why}$"):
        class_numbers(ids, 3, frozenset({255}))
    with pytest.raises(MaskError, match="and 1 more; those of the 2 classes are 0, 2; name"):
        class_numbers(np.arange(12, dtype=np.uint8)[None] + 1, 2, frozenset({1, 12}))


def test_a_mask_of_one_class_has_two_ids_at_most() -> None:
    for ids in ([[0, 255]], [[0, 0]], [[7, 7]], [[0, 1]]):
        assert one_class(np.array(ids)).tolist() == [[id_ != 0 for id_ in ids[0]]]
    with pytest.raises(MaskError, match="is of one class and has the ids 0, 1, 2; give 0 and another, or leave the cl"):
        one_class(np.array([[0, 1, 2]]))
    with pytest.raises(MaskError, match="has the ids 1, 2"):
        one_class(np.array([[1, 2]]))
