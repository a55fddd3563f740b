"""Pools of real images for the demo and the tests, with the annotator's answers, as WebDataset shards."""

import csv
import io
import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from engine.errors import InputError

SEED = 0
Oracle = dict[tuple[str, str], str]
"""The true class by (shard, key)."""


class DemoPool(NamedTuple):
    """A pool with biased first labels.

    `oracle` holds the true classes, `missing` are the classes without a label, `settings` suit two cores.
    """

    shards: list[str]
    labels: Path
    oracle: Oracle
    missing: frozenset[str]
    settings: list[str]


def digits(folder: Path) -> DemoPool:
    """scikit-learn's 1,797 handwritten digits as eight shards of 8 x 8 PNGs; labels for 200 digits from 0 to 6."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(pixels))
    images = ((pixels[i], str(bunch.target[i])) for i in order)
    oracle = write_shards(folder, "digits", images, items_per_shard=225)
    settings = ["image.size=8", "image.channels=1", "train.epochs=20", "select.budget=100"]
    return _with_labels(folder, [f"{folder}/*.tar"], oracle, set("0123456"), 200, settings)


def cifar10(folder: Path) -> DemoPool:
    """CIFAR-10's 50,000 training images, 1,000 a shard; labels for 2,000 images of the first five classes.

    The shards are those in $VAAL_DATA/cifar10 where that is set; else they are written from torchvision's download.

    Raises InputError if neither is available.
    """
    settings = ["train.max_steps=500", "select.budget=500"]
    data = os.environ.get("VAAL_DATA")
    if data:
        source = Path(data) / "cifar10"
        classes = (source / "classes.txt").read_text().split()
        rows = pq.read_table(source / "train-oracle.parquet").to_pylist()
        oracle = {(row["shard"], row["key"]): str(row["label"]) for row in rows}
        known = set(classes[:5]) if rows and str(rows[0]["label"]) in classes else {str(i) for i in range(5)}
        return _with_labels(folder, [str(source / "train-{00000..00049}.tar")], oracle, known, 2000, settings)
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(str(folder / "download"), train=True, download=True)
    except OSError as error:
        raise InputError(f"CIFAR-10 cannot be downloaded ({error}); set VAAL_DATA to a folder with cifar10/") from error
    order = np.random.default_rng(SEED).permutation(len(dataset.data))
    images = ((dataset.data[i], dataset.classes[dataset.targets[i]]) for i in order)
    oracle = write_shards(folder, "train", images, items_per_shard=1000)
    return _with_labels(folder, [f"{folder}/*.tar"], oracle, set(dataset.classes[:5]), 2000, settings)


POOLS = {"digits": digits, "cifar10": cifar10}


def write_shards(
    folder: Path, name: str, images: Iterable[tuple[NDArray[np.uint8], str]], items_per_shard: int
) -> Oracle:
    """Write PNG shards, except those that exist. Returns the true classes."""
    folder.mkdir(parents=True, exist_ok=True)
    oracle: Oracle = {}
    for number, group in groupby(enumerate(images), lambda image: image[0] // items_per_shard):
        shard = folder / f"{name}-{number:05d}.tar"
        items = [(f"{place:06d}", pixels, label) for place, (pixels, label) in group]
        oracle |= {(shard.name, key): label for key, _, label in items}
        if shard.exists():
            continue
        draft = shard.with_suffix(".draft")
        # With a fixed time the bytes of a shard are always the same.
        with wds.TarWriter(str(draft), mtime=0) as tar:
            for key, pixels, _ in items:
                png = io.BytesIO()
                Image.fromarray(pixels).save(png, "PNG")
                tar.write({"__key__": key, "png": png.getvalue()})
        draft.replace(shard)
    return oracle


def _with_labels(
    folder: Path, shards: list[str], oracle: Oracle, known: set[str], count: int, settings: list[str]
) -> DemoPool:
    candidates = sorted(item for item, label in oracle.items() if label in known)
    chosen = np.random.default_rng(SEED).permutation(len(candidates))[:count]
    folder.mkdir(parents=True, exist_ok=True)
    labels = folder / "labels.csv"
    _write_csv(labels, ("shard", "key", "label"), [(*candidates[i], oracle[candidates[i]]) for i in sorted(chosen)])
    return DemoPool(shards, labels, oracle, frozenset(set(oracle.values()) - known), settings)


def write_answers(picks: list[dict[str, str]], oracle: Oracle, file: Path) -> None:
    """Write the file that an annotator would return for these picks: item_id, label, annotator."""
    rows = [(pick["item_id"], oracle[pick["shard"], pick["key"]], "oracle") for pick in picks]
    _write_csv(file, ("item_id", "label", "annotator"), rows)


def _write_csv(file: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
