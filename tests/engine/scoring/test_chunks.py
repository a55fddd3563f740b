"""Chunks: every item of a shard once and in order, through failures, retries and stalls; never short without a word."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.config.input_options import ImageConfig
from engine.errors import InputError
from engine.pool.identity import fold_of
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards, read_shards
from engine.pool.shard import Shard
from engine.pool.sight import Sight
from engine.scoring import chunks, reading
from engine.scoring.chunks import ITEMS_SCHEMA, chunk_items
from engine.scoring.reading import Reading, read_chunks
from engine.scoring.watchdog import EXIT_STATUS, Attempts
from engine.tables.scores import unpack
from tests.rounds import encoded, write_shard
from vaal.duplicates.perceptual_hash import perceptual_hash

IMAGE = ImageConfig(size=8, channels=1)
READING = Reading(Sight(IMAGE), num_folds=2, attempts=3, stall_seconds=60.0)


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shard:
    """23 items, two of them damaged, in chunks of 5."""
    monkeypatch.setattr(chunks, "MOST_CHUNK_ITEMS", 5)
    rng = np.random.default_rng(0)
    members = {f"{n:02d}.png": encoded(rng.integers(0, 256, (8, 8), np.uint8)) for n in range(23)}
    members["07.png"] = members["07.png"][:30]
    del members["12.png"]
    members["12.txt"] = b"no image"
    write_shard(tmp_path / "a.tar", dict(sorted(members.items())))
    return list_shards([str(tmp_path / "a.tar")], "")[0][0]


def rows(shard: Shard, attempts: Attempts | None = None, reading: Reading = READING) -> list[dict[str, object]]:
    return [table.to_pylist()[0] for table in read_chunks(shard, reading, attempts or Attempts())]


def keys(row: dict[str, object], part: str) -> list[str]:
    return unpack(row[part])["key"].to_pylist() if row[part] else []


def test_chunks_hold_every_item_once_with_its_pixels(shard: Shard) -> None:
    made = rows(shard)
    assert [row["chunk"] for row in made] == [0, 1, 2, 3, 4]
    assert [row["listed"] for row in made] == [-1] * 4 + [23]
    assert sum(row["read_bytes"] for row in made) == shard.size_bytes
    assert [keys(row, "bad") for row in made] == [[], ["07"], ["12"], [], []]
    items = {item.key: item for item in read_shard(shard, IMAGE)}
    found = []
    for row in made:
        pixels = np.frombuffer(row["seen"], np.uint8).reshape(-1, 8, 8, 1)
        table = unpack(row["items"]).to_pylist()
        assert len(table) == len(pixels)
        for entry, image in zip(table, pixels, strict=True):
            item = items[entry["key"]]
            np.testing.assert_array_equal(image, decode(item.data, IMAGE))
            assert (entry["offset"], entry["size_bytes"]) == (item.offset, item.size_bytes)
            assert entry["fold"] == fold_of("a.tar", item.key, 2)
            found.append(item.key)
    assert found == [f"{n:02d}" for n in range(23) if n not in (7, 12)]


def test_a_chunk_has_its_pictures_hashes_whatever_is_refused(tmp_path: Path) -> None:
    image, rng = ImageConfig(size=32), np.random.default_rng(0)
    members = {f"{n}.png": encoded(rng.integers(0, 256, (32, 32, 3), np.uint8)) for n in range(9)}
    members["3.png"] = members["3.png"][:30]
    members["5.png"] = encoded(np.full((32, 32, 3), 77, np.uint8))
    write_shard(tmp_path / "a.tar", members)
    shard = list_shards([str(tmp_path / "a.tar")], "")[0][0]
    (row,) = rows(shard, reading=READING._replace(sight=Sight(image)))
    table = unpack(row["items"])
    assert table.schema == ITEMS_SCHEMA
    hashes = {entry["key"]: entry["perceptual_hash"] for entry in table.to_pylist()}
    items = {item.key: item for item in read_shard(shard, image)}
    expected = {key: perceptual_hash(decode(items[key].data, image)[None]).hash_NB.tobytes() for key in hashes}
    assert hashes == {**expected, "5": None}
    assert len(set(hashes.values())) == 8


def test_a_chunk_is_bounded_by_its_pixels() -> None:
    assert chunk_items(Sight(ImageConfig(size=224))) * 224 * 224 * 3 <= 16 << 20
    assert chunk_items(Sight(ImageConfig(size=1024, channels=4))) == 4
    assert chunk_items(Sight(ImageConfig(size=8))) == chunks.MOST_CHUNK_ITEMS


def test_an_attempt_that_fails_is_followed_by_one_that_repeats_nothing(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real = rows(shard), reading.read_shard
    failures = [12, 3]

    def read_and_fail(*arguments: Any) -> object:
        fail_at = failures.pop() if failures else -1
        for number, item in enumerate(real(*arguments)):
            if number == fail_at:
                raise InputError("a.tar: gone for a moment")
            yield item

    monkeypatch.setattr(reading, "read_shard", read_and_fail)
    assert rows(shard) == whole
    assert not failures


def test_a_shard_that_always_fails_says_why_once(shard: Shard) -> None:
    Path(shard.url).write_bytes(Path(shard.url).read_bytes()[: 30 * 512])
    changed = shard._replace(
        size_bytes=Path(shard.url).stat().st_size, etag_or_mtime=list_shards([shard.url], "")[0][0].etag_or_mtime
    )
    attempts = Attempts()
    made = rows(changed, attempts)
    assert [row["listed"] for row in made] == [-1] * (len(made) - 1) + [0]
    assert "cut off" in made[-1]["failure"]
    assert made[-1]["failure"].endswith("(3 attempts)")
    assert len({row["chunk"] for row in made}) == len(made)
    assert attempts.begin("a.tar").begun == 0


def test_an_item_that_stalled_is_refused_and_the_others_are_not(shard: Shard) -> None:
    attempts = Attempts()
    attempts.begin("a.tar")
    attempts.stalled("a.tar", "03")
    made = rows(shard, attempts)
    assert keys(made[0], "items") == ["00", "01", "02", "04"]
    (bad,) = unpack(made[0]["bad"]).to_pylist()
    assert (bad["key"], bad["stage"], bad["error"]) == ("03", "decode", "Stalled")
    assert "score.stall_seconds=60" in bad["message"]
    assert [keys(row, "items") for row in made[1:]] == [keys(row, "items") for row in rows(shard)[1:]]


@pytest.mark.parametrize(
    ("stalls", "deaths", "message"),
    [(3, 0, "made no progress for score.stall_seconds=60, 3 times"), (0, 15, "that read the shard died 15 times")],
)
def test_a_shard_on_which_processes_die_is_given_up(shard: Shard, stalls: int, deaths: int, message: str) -> None:
    attempts = Attempts()
    for _ in range(deaths):
        assert next(read_chunks(shard, READING, attempts))["listed"][0].as_py() == -1
    for _ in range(stalls):
        attempts.begin("a.tar")
        attempts.stalled("a.tar", "")
    (row,) = rows(shard, attempts)
    assert row["listed"] == 0
    assert message in row["failure"]


NAMES = (Reading, ImageConfig, Sight, Attempts, list_shards, read_chunks)
IMPORTS = "\n".join(f"from {thing.__module__} import {thing.__name__}" for thing in NAMES)
HANGS = f"""
import sys, time
import engine.pool.sight as sight, {reading.__name__} as reading_module
{IMPORTS}

class Shown(Attempts):
    def stalled(self, shard, key):
        print(shard, repr(key), flush=True)

{{hang}}
reading = Reading(Sight(ImageConfig(size=8, channels=1)), 2, 3, {{seconds}})
for table in read_chunks(list_shards([sys.argv[1]], "")[0][0], reading, Shown()):
    time.sleep({{pause}})
print("read")
"""


@pytest.mark.parametrize(
    ("hang", "pause", "output"),
    [
        # A regular expression that takes for ever holds the interpreter's lock as a decoder in C may; a sleep does not.
        ("sight.decode = lambda data, image: time.sleep(99)", 0.0, "a.tar '00'\n"),
        ("reading_module.read_shard = lambda *arguments: (time.sleep(99) for _ in range(1))", 0.0, "a.tar ''\n"),
        # The time in which a chunk is scored, or waits to be, does not count.
        ("", 1.5, "read\n"),
    ],
    ids=["decode", "read", "wait"],
)
def test_what_hangs_ends_its_process_and_is_reported(shard: Shard, hang: str, pause: float, output: str) -> None:
    program = HANGS.format(hang=hang, seconds=0.5, pause=pause)
    ended = subprocess.run(
        [sys.executable, "-c", program, shard.url], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert (ended.stdout, ended.returncode) == (output, 0 if output == "read\n" else EXIT_STATUS), ended.stderr


def chunk_of(campaign: Campaign) -> pa.Table:
    """The first chunk of a campaign's pool."""
    reading = Reading(Sight(campaign.config.image), campaign.config.train.folds, 1, 60.0)
    return next(read_chunks(read_shards(campaign.home)[0], reading, Attempts()))
