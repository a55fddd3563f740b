"""Hugging Face datasets loads the folder as it loads any folder of images, without a network."""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from datasets import Image, load_dataset
from validate import require, require_images


def check(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
        paths = [row["path"] for row in rows.cast_column("image", Image(decode=False))["image"]]
        require_images(folder, (Path(path).stem for path in paths))
        for path, row in zip(paths, rows, strict=True):
            row["image"].load()
            require(row.get("item_id", Path(path).stem) == Path(path).stem, f"the row of another image: {row}")
