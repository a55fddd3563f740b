"""The data sets of the field that `vaal dataset` converts: one row each.

A row names its reader as `module:function`, which is imported when it is used. Add a set as one row, and a reader where
none of those here knows its layout: a function of the folder (Location) and the seed of a split, which returns an
`Opened` (engine/datasets/opened.py).
"""

from typing import NamedTuple


class DataSet(NamedTuple):
    """A data set.

    Attributes:
        reader: module:function.
        counts: images of each part in the official files; another number is worth a warning.
        shard_images: of a shard. Large images have fewer, so that a shard is some 100 MB.
    """

    reader: str
    counts: dict[str, int]
    shard_images: int = 1_000


DATA_SETS = {
    "cifar10": DataSet("engine.datasets.cifar:cifar10", {"train": 50_000, "test": 10_000}),
    "cifar100": DataSet("engine.datasets.cifar:cifar100", {"train": 50_000, "test": 10_000}),
    "caltech256": DataSet("engine.datasets.class_folders:caltech256", {"train": 26_708, "test": 3_072}),
    "imagenet": DataSet("engine.datasets.class_folders:imagenet", {"train": 1_281_167, "test": 50_000}),
    "cityscapes": DataSet("engine.datasets.street_scenes:cityscapes", {"train": 2_975, "test": 500}, 100),
    "bdd100k": DataSet("engine.datasets.street_scenes:bdd100k", {"train": 7_000, "test": 1_000}),
    "camvid": DataSet("engine.datasets.street_scenes:camvid", {"train": 367, "val": 101, "test": 233}, 100),
}
