"""Sources to pack, and what is in a pool that was packed."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.campaign.stages import Run
from engine.packing.entries import Options
from engine.packing.outcome import Contents, summarise
from engine.packing.pack import Packed, pack
from engine.storage.location import Location


def image(number: int, form: str = "PNG") -> bytes:
    """A small image, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def fill(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Images under these names in a folder, by name."""
    found = {}
    for number, name in enumerate(names):
        found[name] = image(number, "JPEG" if name.lower().endswith((".jpg", ".jpeg")) else "PNG")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(found[name])
    return found


def packed(source: Path | str, pool: Path | str, **options: Any) -> tuple[Packed, Contents]:
    """What packing a source did, and what the pool then holds."""
    origin, home = Location.of(str(source)), Location.of(str(pool))
    log = options.pop("log", lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        # In this process, however many shards there are.
        patch.setattr("engine.packing.pack.SHARDS_WITHOUT_RAY", 1000)
        found = pack(origin, home, Options(**options), Run(log=log))
    return found, summarise(home, home / "labels.csv")


def members(pool: Path) -> dict[str, dict[str, bytes]]:
    """The files of each shard, by name."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(pool.glob("*.tar")):
        with tarfile.open(shard) as tar:
            files = {name: tar.extractfile(name) for name in tar.getnames()}
            found[shard.name] = {name: file.read() for name, file in files.items() if file}
    return found


def every_member(pool: Path) -> dict[str, bytes]:
    """The files of all shards."""
    return {name: data for files in members(pool).values() for name, data in files.items()}


def failures(pool: Path) -> dict[str, str]:
    """The error of everything that could not be packed, by its source."""
    file = pool / "failures.parquet"
    rows = pq.read_table(file).to_pylist() if file.exists() else []
    return {row["source"]: row["error"] for row in rows}


def contents_of(pool: Path) -> dict[str, bytes]:
    """Every file of a pool that does not depend on when it was made."""
    files = (file for file in pool.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(pool)): file.read_bytes() for file in files}
