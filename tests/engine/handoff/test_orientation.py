"""Vendors get the size of an image as it is shown, upright by its Exif orientation."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.handoff.export import export
from tests.small import images, make_small


def turned(form: str, orientation: int) -> bytes:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(orientation).integers(0, 256, (24, 40, 3), np.uint8)
    Image.fromarray(pixels).save(content, form, exif=exif)
    return content.getvalue()


@pytest.mark.heavy
@pytest.mark.parametrize(("vendor", "strip"), [("cvat", True), ("coco", False)])
def test_width_and_height_are_of_the_image_as_it_is_shown(tmp_path: Path, vendor: str, strip: bool) -> None:
    turns = [turned(form, orientation) for form in ("JPEG", "PNG", "WEBP") for orientation in (1, 3, 6, 8)]
    pool = dict(zip(sorted(images()), [*turns, *turns[::-1]], strict=False))
    campaign = make_small(
        tmp_path, pool, handoff__strip_metadata=strip, select__budget=12, select__duplicates="off",
        handoff__question__task="boxes", handoff__question__classes=["cat"],
    )  # fmt: skip
    export(campaign, vendor=vendor)
    folder = Path(campaign.stage(f"handoff/{vendor}").path)
    if vendor == "cvat":
        lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
        rows = {f"{line['name']}{line['extension']}": line for line in lines if "name" in line}
    else:
        rows = {row["file_name"]: row for row in json.loads((folder / "instances.json").read_text())["images"]}
    for name, row in rows.items():
        with Image.open(folder / name) as image:
            assert (row["width"], row["height"]) == ImageOps.exif_transpose(image).size
    assert {(row["width"], row["height"]) for row in rows.values()} == {(40, 24), (24, 40)}
