"""A campaign of metadata alone, for the programs that measure its driver: see `driver_steps.py`."""

import csv
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint
from engine.campaign.handed_out import IMAGES_SCHEMA, SELECTION_FILE, announce, picks_hash
from engine.campaign.labels import LABELS_SCHEMA, POSITIONS_SCHEMA
from engine.campaign.manifests import COUNTS, HandoffManifest, SelectionManifest, write_manifest
from engine.campaign.opening import create, open_campaign
from engine.campaign.scored_shards import LEDGER, file_name
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.pool.manifest import new_version, read_shards, write_shards
from engine.pool.shard import Shard
from engine.scoring.resume import Ledger
from engine.scoring.score import inputs_of
from engine.storage.location import Location
from engine.tables.scores import ShardRecord
from engine.tables.selections import SELECTION_SCHEMA

SHARDS_PER_FOLDER, SHARD_BYTES = 10_000, 4_096_000
FILE_LABELS = 1_000_000
Made = dict[str, int]


def touch(file: str, size: int = 0) -> int:
    """Make a file of this size without content. Returns its time, nanoseconds."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.ftruncate(descriptor, size)
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def make_pool(folder: Path, made: Made) -> None:
    """A campaign on one shard with images, to which the others are added as if it had been made on all."""
    from tests.rounds import write_shard

    picture = BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    (folder / "pool/0000").mkdir(parents=True, exist_ok=True)
    first = folder / "pool/0000/first.tar"
    write_shard(first, {f"{n:06d}.png": picture.getvalue() + bytes([n % 256, n // 256]) for n in range(1000)})
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = (("0000/first.tar", f"{n:06d}", n % 10) for n in range(500))
        csv.writer(file).writerows([("shard", "key", "label"), *rows])
    config = override(CampaignConfig(), {"pool.root": f"{folder}/pool", "select.budget": 100}, "bench")
    made_of = create(f"{folder}/campaign", [str(first)], f"{folder}/labels.csv", config, lambda _: None)
    shards = [shard._replace(num_items=1000) for shard in read_shards(made_of.home)]
    for number in range(made["shards"] - 1):
        name = f"{number // SHARDS_PER_FOLDER:04d}/train-{number:07d}.tar"
        file_path = f"{folder}/pool/{name}"
        if number % SHARDS_PER_FOLDER == 0:
            Path(file_path).parent.mkdir(parents=True, exist_ok=True)
        time_ns = touch(file_path, SHARD_BYTES)
        shards.append(new_version(Shard(name, file_path, SHARD_BYTES, f"mtime:{time_ns}", 1000, time_ns)))
    write_shards(made_of.home, sorted(shards, key=lambda shard: shard.shard))


def names_of(numbers: np.ndarray[Any, Any], made: Made) -> tuple[pa.Array, pa.Array]:
    """Shard and key of items, spread over all shards but the first."""
    shards = [f"{n // SHARDS_PER_FOLDER:04d}/train-{n:07d}.tar" for n in range(made["shards"] - 1)]
    place = pa.array(numbers % len(shards), pa.int32())
    keys = pa.array([f"image-{n:09d}" for n in numbers.tolist()])
    return pa.array(shards).take(place), keys


def pieces(total: int) -> Iterator[np.ndarray[Any, Any]]:
    for begin in range(0, total, FILE_LABELS):
        yield np.arange(begin, min(begin + FILE_LABELS, total))


def same(value: Any, kind: pa.DataType, size: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), size)


def make_labels(folder: Path, made: Made) -> None:
    home = Location(f"{folder}/campaign")
    for piece, numbers in enumerate(pieces(made["labels"]), 1):
        shard, key = names_of(numbers, made)
        size = len(numbers)
        columns = [shard, key, pa.array((numbers % 10).astype(str)), same(0, pa.int32(), size)]
        columns += [same("generic", pa.string(), size), same("a" * 32, pa.string(), size)]
        columns += [same(1_700_000_000_000_000, pa.int64(), size).cast(pa.timestamp("us", "UTC"))]
        columns += [same("query", pa.string(), size), pa.nulls(size, pa.string())]
        table = pa.table(columns, schema=LABELS_SCHEMA).replace_schema_metadata({b"after": b"[]", b"votes": b"0"})
        (home / f"labels/{piece:06d}-import-{piece:016x}.parquet").write_table(table)
        hashes = pa.array([f"{n:032x}" for n in numbers.tolist()])
        places = [shard, key, pa.array(numbers % 1000 * 4096), same(3000, pa.int64(), size), hashes]
        file = home / f"pool/items/positions-{piece:06d}-{piece:016x}.parquet"
        file.write_table(pa.table(places, schema=POSITIONS_SCHEMA))


def make_sent(folder: Path, made: Made) -> None:
    """Batches of FILE_LABELS images: the items that have labels, and others, which are answered by a file."""
    campaign = replace(open_campaign(f"{folder}/campaign"), round=0)
    for piece, numbers in enumerate(pieces(made["sent"] + made["answers"])):
        shard, key = names_of(numbers, made)
        size, texts = len(numbers), [f"{n:032x}" for n in numbers.tolist()]
        fill: dict[str, pa.Array] = {
            "rank": pa.array(numbers), "item_id": pa.array(texts), "shard": shard, "key": key,
            "offset": pa.array(numbers % 1000 * 4096), "content_hash": pa.array(texts),
            "file": pa.array([f"images/{text}.png" for text in texts]),
            "sha256": pa.array([text * 2 for text in texts]),
            "origin": same("query", pa.string(), size), "gold": same(False, pa.bool_(), size),
            "answered": pa.nulls(size, pa.int64()),
        }  # fmt: skip
        columns = [fill.get(field.name) if field.name in fill else same(8, field.type, size) for field in IMAGES_SCHEMA]
        record = campaign.stage(f"handed_out/generic-{piece:03d}")
        announce(record)
        images = (record / "images.parquet").write_table(pa.table(columns, schema=IMAGES_SCHEMA))
        question = {"task": "class", "classes": [str(n) for n in range(10)], "instructions": "", "is_open": True}
        sending = {
            "vendor": "generic", "name": f"batch-{piece}", "annotators": 1, "price": 0.0, "question": question,
            "disputed": False, "waiting": 0, "place": "", "links_expire_at": None,
        }  # fmt: skip
        write_manifest(
            campaign, f"handed_out/generic-{piece:03d}", HandoffManifest,
            inputs={"picks": "p"}, counts={"images": size}, files={"images.parquet": images}, sending=sending,
        )  # fmt: skip
    (campaign.round_home / "closed.json").write_json({"at": "2026-01-31T12:00:00+00:00", "by": "bench"})
    with (folder / "answers.csv").open("w", newline="") as file:
        rows = ((f"{made['sent'] + n:032x}", n % 7) for n in range(made["answers"]))
        csv.writer(file).writerows([("item_id", "label"), *rows])


def make_scores(folder: Path, made: Made) -> None:
    """Every second shard's file of scores and its record in the ledger, of the newest round."""
    from tests.conftest import pretend_trained

    campaign = open_campaign(f"{folder}/campaign")
    pretend_trained(campaign)
    key = fingerprint(**inputs_of(campaign))
    scores = Path(campaign.stage("scores").path)
    scores.mkdir(parents=True, exist_ok=True)
    with closing(Ledger(campaign.stage(LEDGER))) as ledger:
        for shard in read_shards(campaign.home)[::2]:
            ledger.add(record_of(shard, key))
            touch(f"{scores}/{file_name(shard, key)}")


def record_of(shard: Shard, key: str) -> ShardRecord:
    name = file_name(shard, key)
    return ShardRecord(shard.shard, name, 1000, 999, 1, (name[-60:-8] * 3)[:64], 0, "", {"decode/CutOff": 1})


def select_new(campaign: Campaign, made: Made, picks: int = 100_000) -> None:
    """A selection of the newest round: items that nobody has."""
    begin = made["sent"] + made["answers"]
    numbers = np.arange(begin, begin + picks)
    (shard, key), texts = names_of(numbers, made), [f"{n:032x}" for n in numbers.tolist()]
    fill: dict[str, pa.Array] = {
        "rank": pa.array(numbers - begin), "shard": shard, "key": key, "item_id": pa.array(texts),
        "offset": pa.array(numbers % 1000 * 4096), "content_hash": pa.array(texts),
        "arm": same("query", pa.string(), picks), "reason": same("", pa.string(), picks),
        "origin": same("query", pa.string(), picks),
    }  # fmt: skip
    columns = [
        fill.get(field.name)
        if field.name in fill
        else pa.nulls(picks, field.type)
        if field.nullable
        else same(8, field.type, picks)
        for field in SELECTION_SCHEMA
    ]
    table = pa.table(columns, schema=SELECTION_SCHEMA)
    counts = dict.fromkeys(COUNTS["selection"], 0) | {"picked": picks}
    write_manifest(
        campaign, "selection", SelectionManifest, inputs={}, counts=counts, picks=picks_hash(table), signal="none",
        files={SELECTION_FILE: (campaign.stage("selection") / SELECTION_FILE).write_table(table)},
        when_no_signal=None, round_seed=0, objective=None,
    )  # fmt: skip


MAKERS = {"pool": make_pool, "labels": make_labels, "sent": make_sent, "scores": make_scores}
