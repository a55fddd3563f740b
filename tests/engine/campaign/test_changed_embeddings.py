"""Embeddings in the samples are part of a shard: other vectors beside the same images are other bytes."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from engine.campaign.changes import look_at
from engine.config.input_options import ImageConfig
from engine.pool.manifest import list_shards
from tests.tars import archive


def vector(value: float) -> bytes:
    content = io.BytesIO()
    np.save(content, np.full(4, value, np.float32))
    return content.getvalue()


def write(file: Path, value: float) -> None:
    file.write_bytes(
        archive([("a.png", b"picture"), ("a.npy", vector(value)), ("b.png", b"other"), ("b.npy", vector(2))])
    )


@pytest.mark.parametrize("companion", ["npy", ""])
def test_other_vectors_are_a_change_where_they_are_seen(tmp_path: Path, companion: str) -> None:
    file, image = tmp_path / "a.tar", ImageConfig()
    write(file, 1.0)
    first = look_at(list_shards([str(file)], "")[0][0]._replace(mtime_ns=0), [], "scored", image, companion).shard
    for value, is_same in ((1.0, True), (3.0, not companion)):
        write(file, value)
        os.utime(file, ns=(10**18, 10**18 + int(value)))
        found = look_at(first, [], "scored", image, companion)
        assert found.is_same == is_same
        assert (found.shard.version == first.version) == is_same
