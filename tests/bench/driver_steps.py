"""What each step of the driver takes at a million shards and ten million labels.

    python tests/bench/driver_steps.py small|large [FOLDER [make|STEP...]]

A campaign is made of metadata alone, in FOLDER, where an interrupted run goes on, else in a temporary one: 10^6 shards
(small: 10^4) as files of zeros, 10^7 labels (10^4) in one earlier round with their positions, and as many images that
were sent. Half of the shards of the newest round are scored: an empty file in scores/, and a record in the ledger.
Each step runs in a process of its own, which prints seconds and the highest resident memory, of which some 250 MiB are
imports. A number by the name of `LABELS` in the environment is another number of labels.

Targets: 60 s and 2 GiB for each step. The files of a FOLDER stay: delete it when all is measured.
"""

import csv
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measure import end_on_sigterm, is_small, machine, resident_bytes, result_of, start_fresh
from PIL import Image

from engine.campaign.changes import file_name, refresh
from engine.campaign.folder import Campaign
from engine.campaign.freshness import fingerprint, selection_inputs
from engine.campaign.handed_out import IMAGES_SCHEMA, announce, picked_items
from engine.campaign.labels import LABELS_SCHEMA, POSITIONS_SCHEMA, read_snapshot
from engine.campaign.manifests import HandoffManifest, ScoresManifest, read_manifest, write_manifest
from engine.campaign.opening import create, open_campaign
from engine.campaign.scored_shards import LEDGER, damaged_in, shard_records
from engine.campaign.status import status
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.pool.manifest import new_version, read_shards, write_shards
from engine.pool.shard import Shard
from engine.report.arms import gains_of
from engine.scoring.resume import Ledger, make_plan
from engine.scoring.score import _complete, inputs_of
from engine.selection.reduction import parts_of
from engine.selection.select import _current_records
from engine.selection.sources import known_images, sources_of
from engine.storage.location import Location
from engine.tables.error_classes import survey
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import records_in
from engine.training.plan import plan_training

TARGET_SECONDS, TARGET_BYTES = 60, 2 << 30
SHARDS_PER_FOLDER, SHARD_BYTES = 10_000, 4_096_000
FILE_LABELS = 1_000_000
Made = dict[str, int]


def sizes() -> Made:
    few = {"shards": 10_000, "labels": 10_000, "sent": 10_000, "answers": 1000}
    many = {"shards": 1_000_000, "labels": 10_000_000, "sent": 10_000_000, "answers": 1_000_000}
    found = few if is_small() else many
    labels = int(os.environ.get("LABELS", found["labels"]))
    return {**found, "labels": labels, "sent": int(os.environ.get("SENT", labels))}


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
    write_shards(made_of.home, sorted(shards))


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


def plan_of(campaign: Campaign) -> Any:
    return make_plan(campaign, inputs_of(campaign), lambda _: None)


def last_commit(campaign: Campaign, made: Made) -> dict[str, Any]:
    """The manifest of all shards, the other half of which is taken to be committed now."""
    plan, inputs = plan_of(campaign), inputs_of(campaign)
    key = fingerprint(**inputs)
    for shard in plan.todo:
        plan.committed[shard.shard] = record_of(shard, key)
    manifest = _complete(campaign, plan, inputs, {"device": "cpu"})
    assert manifest["counts"]["shards"] == made["shards"]
    return {"manifest_bytes": (campaign.stage("scores") / "manifest.json").info().size}


def select_plan(campaign: Campaign, _: Made) -> dict[str, Any]:
    scores = read_manifest(campaign, "scores", ScoresManifest)
    records = _current_records(campaign, scores, lambda _: None)
    before = picked_items(campaign.home, before=campaign.round)
    selection_inputs(campaign, before)
    sources = sources_of(campaign.home, records, before)
    known = known_images(campaign.home, before)
    parts = parts_of(sources)
    largest = max(len(pickle.dumps(part)) for part in parts)
    return {"parts": len(parts), "largest_part_bytes": largest, "known": len(known)}


def train_plan(campaign: Campaign, _: Made) -> dict[str, Any]:
    plan = plan_training(campaign)
    return {"plan_bytes": len(pickle.dumps(plan)), "labels": len(plan.labels)}


def init(campaign: Campaign, made: Made) -> dict[str, Any]:
    folder = Path(campaign.home.path).parent
    fresh = f"{folder}/fresh-{time.time_ns()}"
    other = create(fresh, [f"{folder}/pool/*/*.tar"], f"{folder}/labels.csv", campaign.config, lambda _: None)
    return {"shards": len(read_shards(other.home))}


def report_reads(campaign: Campaign, _: Made) -> dict[str, Any]:
    """What a report reads beside the pictures: the ledger of shards, faults, and the gains of earlier rounds."""
    snapshot = read_snapshot(campaign.home)
    damaged = damaged_in(shard_records(campaign, read_manifest(campaign, "scores", ScoresManifest)))
    gains = gains_of(campaign, snapshot, range(campaign.round))
    return {"gains": len(gains), "faults": len(survey(campaign.stage("quarantine"), list(records_in(damaged)), 0))}


def ingest_answers(campaign: Campaign, _: Made) -> dict[str, Any]:
    from tests.sendings import take_in

    return {"votes": take_in(campaign, f"{Path(campaign.home.path).parent}/answers.csv").votes}


STEPS: dict[str, Callable[[Campaign, Made], Any]] = {
    "init": init,
    "status": lambda campaign, _: {"labels": status(campaign)["labels"]["total"]},
    "refresh": lambda campaign, _: {"shards": len(refresh(campaign, lambda _: None))},
    "train plan": train_plan,
    "score plan": lambda campaign, _: {"todo": len(plan_of(campaign).todo)},
    "last commit": last_commit,
    "status, scored": lambda campaign, _: {"round": status(campaign)["round"]},
    "select plan": select_plan,
    "report reads": report_reads,
    "ingest": ingest_answers,
}
MAKERS = {"pool": make_pool, "labels": make_labels, "sent": make_sent, "scores": make_scores}


def step_main(name: str, folder: str) -> None:
    """In a process of its own: prints what a step takes, as JSON."""
    if name in MAKERS:
        MAKERS[name](Path(folder), sizes())
        print("{}")
        return
    begin, cpu = time.perf_counter(), time.process_time()
    found = STEPS[name](open_campaign(f"{folder}/campaign"), sizes())
    facts = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    print(json.dumps({**facts, **found, "peak": resident_bytes(peak=True)}))


def main() -> None:
    end_on_sigterm()
    size, *given = sys.argv[1:]
    print(f"{machine()}; {sizes()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder, *wanted = given or [temporary]
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in MAKERS:
            done, begin = Path(f"{folder}/made-{name}"), time.perf_counter()
            if not done.exists():
                result_of(start_fresh(__file__, size, "--step", name, folder))
                done.touch()
                print(f"made {name} in {time.perf_counter() - begin:.0f} s", flush=True)
        print(f"{'step':<16}{'s':>8}{'CPU s':>8}{'MiB':>8}")
        for name in [name for name in wanted or STEPS if name != "make"]:
            found = result_of(start_fresh(__file__, size, "--step", name, folder))
            seconds, cpu, peak = (found.pop(fact) for fact in ("seconds", "cpu", "peak"))
            # Others may be at work on the machine: the processor's seconds are those of the step.
            missed = "" if cpu <= TARGET_SECONDS and peak <= TARGET_BYTES else "MISSED "
            print(f"{name:<16}{seconds:>8.1f}{cpu:>8.1f}{peak / 2**20:>8,.0f}  {missed}{found}", flush=True)


if __name__ == "__main__":
    if "--step" in sys.argv:
        step_main(*sys.argv[3:5])
    else:
        main()
