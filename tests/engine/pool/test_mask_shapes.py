"""Shapes as pixels: polygons by their definition, run lengths by what the vendors' own programs made."""

import json
from typing import Any

import numpy as np
import pytest

from engine.pool.mask_files import MaskError
from engine.pool.mask_shapes import brush_pixels, coco_counts, filled, pixels_of

HEIGHT, WIDTH = 7, 9
PIXELS = np.zeros((HEIGHT, WIDTH), bool)
PIXELS[1:5, 2:7], PIXELS[3, 4], PIXELS[6, 8] = True, False, True
"""With a hole, and a part of its own."""
COUNTS = "?4300NNO2300<M"
"""pycocotools 2.0.11, mask.encode(PIXELS)."""
OUTER, HOLE = [(2, 1), (7, 1), (7, 5), (2, 5)], [(4, 3), (5, 3), (5, 4), (4, 4)]
FAR = [(8, 6), (9, 6), (9, 7), (8, 7)]
BRUSH = [
    *(0, 0, 0, 252, 57, 27, 254, 43, 0, 194, 127, 247, 192, 48, 159, 253, 240, 9, 255, 227, 0, 159, 254, 248, 6),
    *(19, 255, 201, 96, 17, 255, 128),
]
"""label-studio-converter 0.0.59, brush.mask2rle(255 * PIXELS)."""


def runs(pixels: Any) -> list[int]:
    """Lengths of outside and inside in turn, beginning with outside."""
    flat = np.concatenate([[False], np.asarray(pixels).ravel()])
    cuts = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], cuts, [flat.size - 1]])).tolist()


FORMS: dict[str, Any] = {
    "coco": {"counts": runs(PIXELS.T), "size": [HEIGHT, WIDTH]},
    "coco text": {"counts": COUNTS, "size": [HEIGHT, WIDTH]},
    "label studio": {"format": "rle", "rle": BRUSH, "size": [WIDTH, HEIGHT]},
    "v7": {"dense_rle": [part for n, run in enumerate(runs(PIXELS)) for part in (n % 2, run)]},
    "cvat": {"left": 2, "top": 1, "width": 7, "height": 6, "rle": runs(PIXELS[1:, 2:])},
    "coco rings": [
        [2, 1, 7, 1, 7, 3, 2, 3],
        [2, 3, 4, 3, 4, 4, 2, 4],
        [5, 3, 7, 3, 7, 5, 2, 5, 2, 4, 5, 4],
        [8, 6, 9, 6, 9, 7, 8, 7],
    ],
    "v7 paths": {"paths": [[{"x": x, "y": y} for x, y in ring] for ring in (OUTER, HOLE, FAR)]},
    "encord": {
        "width": WIDTH,
        "height": HEIGHT,
        "polygons": [
            [[part for x, y in ring for part in (x / WIDTH, y / HEIGHT)] for ring in rings]
            for rings in ([OUTER, HOLE], [FAR])
        ],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_shape_of_every_form_is_its_pixels(form: str) -> None:
    mask = json.loads(json.dumps(FORMS[form]))
    assert np.array_equal(pixels_of({"label": "a", "mask": mask}, HEIGHT, WIDTH), PIXELS)


def test_a_polygon_has_the_pixels_whose_middle_is_in_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        ring = rng.uniform(-3, 15, (rng.integers(3, 8), 2)).tolist()
        found = filled([ring], 11, 12)
        for row, column in np.ndindex(11, 12):
            assert found[row, column] == is_inside(column + 0.5, row + 0.5, ring)


def is_inside(x: float, y: float, ring: list[list[float]]) -> bool:
    """By the edges that a ray to the left crosses."""
    crossed = 0
    for (ax, ay), (bx, by) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (ay <= y) != (by <= y):
            crossed += ax + (y - ay) * (bx - ax) / (by - ay) <= x
    return crossed % 2 == 1


def test_cocos_text_is_its_run_lengths() -> None:
    assert coco_counts(COUNTS) == runs(PIXELS.T)
    # pycocotools 2.0.11 of a mask whose runs take several characters.
    assert coco_counts("0P2`5") == [0, 64, 176]


def test_a_brush_that_is_cut_off_or_of_another_image_is_refused() -> None:
    with pytest.raises(MaskError, match="run lengths are cut off; export it again"):
        brush_pixels(BRUSH[:20], HEIGHT, WIDTH)
    with pytest.raises(MaskError, match="has a brush of 252 values, not of 7 x 10 pixels"):
        brush_pixels(BRUSH, WIDTH + 1, HEIGHT)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ({"counts": [10], "size": [2, 5]}, "has a shape of an image of 5 x 2 pixels, its image has 9 x 7; draw it"),
        ({"counts": [10], "size": [7, 9]}, "has run lengths of 10 pixels, where there are 63; is it of this image"),
        ({"counts": [70, -7], "size": [7, 9]}, "has run lengths of 63 pixels"),
        ({"dense_rle": 7}, "has a shape 'a' that cannot be read .*; give polygons, run lengths of COCO, CVAT"),
        ({"left": 5, "top": 0, "width": 5, "height": 1, "rle": [5]}, "reaches out of the image of 9 x 7 pixels"),
        ({"url": "https://x/y.png"}, r"has a shape of a form that is not read \(url\); give polygons, run lengths"),
        ({"counts": ["x"], "size": [7, 9]}, "has a shape 'a' that cannot be read"),
        ([[1, 2, 3]], "has a shape 'a' that cannot be read"),
    ],
)
def test_a_shape_that_cannot_be_read_is_refused(mask: Any, why: str) -> None:
    with pytest.raises(MaskError, match=f"^.*{why}"):
        pixels_of({"label": "a", "mask": mask}, HEIGHT, WIDTH)
