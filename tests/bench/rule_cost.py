"""Committed scores to a selection by each rule: seconds, CPU and memory, beside the b lowest logits.

    python tests/bench/rule_cost.py [small|NUMBER_OF_FILES]

100,000,000 scores in 1,000 files (or in so many, 100,000 in each) as scoring writes them, with 32 latents, a cluster of
2,000, a margin and 10 predicted classes an item, and 1,000 labels (small: 1,000,000 in 10). 20 of the files differ; the
others are hard links to them under names of other shards, which takes 0.3 GB and leaves every row to be checked, read
and reduced. As their images are the same, duplicates are off. b = 1,000, and a tenth of it a control arm.

Each measurement is a fresh process that calls `select`, with Ray up where there is more than one part; CPU and memory
are those of all its processes together. The rules take turns, twice:

- reduction: the b lowest logits of scores without clusters, which is the reduction alone
- none: the same where scores have clusters, whose coverage every selection counts for its report
- clusters: of the 3 b lowest by their latents
- lacking: completion where labels lack parts of the pool; b of the 2 b clusters give an item each
- margin: completion where they do not: a draw by margins, in turn over the predicted classes

Aim: completion takes at most twice the seconds of `reduction`. Where other work takes most of the machine, their CPU
seconds say more.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import end_on_sigterm, is_small, machine, result_of, start_fresh
from reduction import NUM_LATENTS, ROWS_PER_FILE, Peak

B, NUM_LABELS, NUM_CLASSES, MOST_DIFFERENT = 1000, 1000, 10, 20
COMMON = {"select.budget": B, "select.duplicates": "off"}
RULES: dict[str, dict[str, Any]] = {
    "reduction": {"select.diversity": "none"},
    "none": {"select.diversity": "none"},
    "clusters": {"select.diversity": "clusters"},
    "lacking": {"select.diversity": "completion", "labels.are_biased": "yes"},
    "margin": {"select.diversity": "completion", "labels.are_biased": "no"},
}
TARGET, KINDS = 2.0, {"seconds": "seconds", "cpu": "CPU seconds"}


def campaign_at(folder: str, rule: str) -> Any:
    from engine.campaign.folder import Campaign
    from engine.config.options import CampaignConfig
    from engine.config.toml import override
    from engine.storage.location import Location

    return Campaign(Location.of(folder), override(CampaignConfig(), {**COMMON, **RULES[rule]}, "bench"), 0)


def make_scores(file: Path, number: int, centres: Any) -> None:
    """A scores file of random items, written as scoring writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from engine.scoring.drafts import ROW_GROUP_ITEMS, WRITER_OPTIONS
    from engine.tables.scores import scores_schema

    rng, rows = np.random.default_rng(number), ROWS_PER_FILE
    schema = scores_schema(NUM_LATENTS, ("margin", "predicted", "cluster", "distance"))
    latent_NZ = rng.standard_normal((rows, NUM_LATENTS), np.float32).astype(np.float16)
    cluster_N, distance_N = centres.of(torch.from_numpy(latent_NZ.astype(np.float32)))
    sizes, text = rng.integers(50_000, 150_000, rows), rng.bytes(16 * rows).hex()
    hash_type = schema.field("perceptual_hash").type
    hashes = pa.py_buffer(rng.bytes(rows * hash_type.byte_width))
    columns = {
        "shard": [f"shard-{number:06d}.tar"] * rows,
        "key": [f"{n:09d}" for n in range(rows)],
        "offset": np.cumsum(sizes),
        "size_bytes": sizes,
        "content_hash": [text[32 * n : 32 * n + 32] for n in range(rows)],
        "perceptual_hash": pa.Array.from_buffers(hash_type, rows, [None, hashes]),
        "logit": rng.normal(0, 1.5, rows).astype(np.float32),
        "margin": rng.random(rows, np.float32),
        "predicted": rng.integers(NUM_CLASSES, size=rows, dtype=np.int32),
        "cluster": cluster_N.numpy(),
        "distance": distance_N.numpy(),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(latent_NZ.reshape(-1)), NUM_LATENTS),
    }
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    options = {**WRITER_OPTIONS, "row_group_size": ROW_GROUP_ITEMS, "write_statistics": ["key", "logit"]}
    pq.write_table(table, file, **options)


def make_main(folder: str, num_files: str) -> None:
    """Write the campaign: its pool, its labels, and the stages of training and scoring."""
    import hashlib

    import torch

    from engine.campaign.freshness import fingerprint
    from engine.campaign.labels import INITIAL, LABELS_SCHEMA, append_labels
    from engine.campaign.manifests import ScoresManifest, TrainManifest, write_manifest
    from engine.campaign.scored_shards import file_name
    from engine.models.centring import make_centres, save_centres
    from engine.models.diagnosis import manifest_entries
    from engine.pool.manifest import write_shards
    from engine.pool.shard import Shard
    from engine.tables.scores import ShardRecord
    from tests.conftest import found

    campaign, count, rows = campaign_at(folder, "none"), int(num_files), ROWS_PER_FILE
    names = [f"shard-{number:06d}.tar" for number in range(count)]
    shards = [Shard(name, f"bench:///{name}", rows, "", rows, 0, name) for name in names]
    write_shards(campaign.home, shards)
    labels = [(names[n % count], f"{n:09d}", f"class {n % NUM_CLASSES}") for n in range(NUM_LABELS)]
    entries = [dict(zip(("shard", "key", "label", "source"), (*label, "bench"), strict=True)) for label in labels]
    append_labels(campaign.home, INITIAL, [tuple(map(entry.get, LABELS_SCHEMA.names)) for entry in entries])
    generator = torch.Generator().manual_seed(0)
    centres = make_centres(torch.randn(20_000, NUM_LATENTS, generator=generator), 2 * B, 0)
    assert centres is not None
    files = save_centres(campaign.stage("train"), centres)
    write_manifest(
        campaign, "train", TrainManifest, inputs={}, counts={"steps": 0}, files=files, device="cpu", losses={},
        **manifest_entries(found("present")),
    )  # fmt: skip
    home, records = Path(campaign.stage("scores").path), list[ShardRecord]()
    home.mkdir(parents=True)
    for number, shard in enumerate(shards):
        name = file_name(shard, fingerprint())
        if number < MOST_DIFFERENT:
            make_scores(home / name, number, centres)
            content = (home / name).read_bytes()
            digest, size = hashlib.sha256(content).hexdigest(), len(content)
        else:
            os.link(home / records[number % MOST_DIFFERENT].file, home / name)
            digest, size = records[number % MOST_DIFFERENT][5:7]
        records.append(ShardRecord(shard.shard, name, rows, rows, 0, digest, size))
    write_manifest(
        campaign, "scores", ScoresManifest, inputs={}, files={}, device="cpu", errors={},
        counts={"shards": count, "listed": count * rows, "scored": count * rows, "quarantined": 0},
        shards=[record.entry() for record in records],
    )  # fmt: skip
    print(json.dumps({"bytes": sum(record.size_bytes for record in records)}))


def child_main(folder: str, rule: str) -> None:
    import psutil

    from engine.campaign.manifests import ScoresManifest, read_manifest
    from engine.models import centring
    from engine.selection import parts
    from engine.selection.select import select

    if rule == "reduction":
        # As if training had made no centres.
        centring.load_centres = lambda *_: None
    campaign = campaign_at(folder, rule)
    campaign.stage("selection").clear()
    scored = read_manifest(campaign, "scores", ScoresManifest)["counts"]["scored"]
    with parts.room_for(range(max(1, scored // parts.PART_ROWS)), "local"), Peak() as peak:
        me, begin = psutil.Process(), time.perf_counter()

        def cpu() -> float:
            return float(sum(sum(p.cpu_times()[:2]) for p in (me, *me.children(recursive=True))))

        before = cpu()
        manifest = select(campaign)
        seconds, used = time.perf_counter() - begin, cpu() - before
    assert manifest["counts"]["picked"] == B, manifest["counts"]
    print(json.dumps({"seconds": seconds, "cpu": used, "peak": peak.bytes, "branch": manifest["branch"]}))


def main() -> None:
    end_on_sigterm()
    rounds, num_files = 2, int(next((word for word in sys.argv[1:] if word.isdecimal()), 10 if is_small() else 1000))
    print(machine(), flush=True)
    found: dict[str, list[dict[str, Any]]] = {rule: [] for rule in RULES}
    with tempfile.TemporaryDirectory() as folder:
        size = result_of(start_fresh(__file__, "make", folder, str(num_files)))["bytes"]
        print(f"{num_files * ROWS_PER_FILE:,} scores, {size / 1e9:.1f} GB, b = {B:,}, median of {rounds}", flush=True)
        for number in range(1, rounds + 1):
            for rule in RULES:
                one = result_of(start_fresh(__file__, "child", folder, rule))
                found[rule].append(one)
                print(f"  round {number}: {rule:<9}{one['seconds']:8.2f} s {one['cpu']:8.2f} CPU s", flush=True)
    ratios: dict[str, dict[str, float]] = {}
    for rule, measured in found.items():
        seconds, cpu = (statistics.median(one[name] for one in measured) for name in ("seconds", "cpu"))
        pairs = list(zip(measured, found["reduction"], strict=True))
        ratios[rule] = {name: statistics.median(one[name] / base[name] for one, base in pairs) for name in KINDS}
        peak = max(one["peak"] for one in measured) / 2**20
        print(f"  {rule:<9} ({measured[0]['branch']:<21}) {seconds:7.2f} s, {ratios[rule]['seconds']:.2f} of it; "
              f"{cpu:7.2f} CPU s, {ratios[rule]['cpu']:.2f}; {peak:6,.0f} MiB")  # fmt: skip
    note = "" if num_files == 1000 else " (the aim is for 100,000,000 scores)"
    for name, unit in KINDS.items():
        reached = max(ratios[rule][name] for rule in ("lacking", "margin"))
        outcome = "met" if reached <= TARGET else "MISSED"
        print(f"target: completion to reduction, {unit}: at most {TARGET:.1f}; reached {reached:.2f}: {outcome}{note}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make_main(*sys.argv[2:4])
    elif sys.argv[1:2] == ["child"]:
        child_main(*sys.argv[2:4])
    else:
        main()
