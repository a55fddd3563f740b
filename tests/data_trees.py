"""Small trees of the layout that `vaal dataset` makes, of real images: NAME/train-*.tar, oracle tables, groups.json."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.pool.mask_files import read_ids
from tests.rounds import encoded, write_shard

CLASSES = [f"{kind} {number}" for kind in ("near", "far") for number in range(10)]
"""More than the ten that the images are of: an experiment may leave out ten."""
OF_MASKS = ("cityscapes", "bdd100k", "camvid")
_VOID_THERE, _VOID_HERE = 11, 255


def members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a shard."""
    with tarfile.open(shard) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content:
                yield member.name, content.read()


def write_tree(folder: Path, data: Path, name: str, count: int) -> None:
    """Write the tree of a data set below `folder`, of the first images of CIFAR-10 or CamVid below `data`."""
    (folder / name).mkdir(parents=True)
    for part, source in (("train", "train"), ("test", "val" if name in OF_MASKS else "test")):
        shard = data / ("camvid" if name in OF_MASKS else "cifar10") / f"{source}-00000.tar"
        samples: dict[str, dict[str, bytes]] = {}
        for file, content in members(shard):
            key, _, suffix = file.partition(".")
            if len(samples) == count and key not in samples:
                break
            samples.setdefault(key, {})[suffix] = content
        keys = sorted(samples)
        files = {f"{key}.{suffix}": _mask(suffix, data_) for key in keys for suffix, data_ in samples[key].items()}
        write_shard(folder / name / f"{part}-00000.tar", files)
        columns = {
            "shard": [f"{part}-00000.tar"] * len(keys),
            "key": keys,
            "label": [CLASSES[place % len(CLASSES)] for place in range(len(keys))],
        }
        pq.write_table(pa.table(columns), folder / name / f"{part}-oracle.parquet")
    groups = [CLASSES[place : place + 5] for place in range(0, len(CLASSES), 5)]
    (folder / name / "groups.json").write_text(json.dumps(groups))


def _mask(suffix: str, content: bytes) -> bytes:
    if suffix != "seg.png":
        return content
    ids = read_ids(content, 1 << 30)
    return encoded(np.where(ids == _VOID_THERE, _VOID_HERE, ids).astype(np.uint8))
