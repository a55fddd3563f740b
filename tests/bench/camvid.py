"""mIoU on CamVid after rounds of 40 images: by entropy, by the default, and at random, whatever it says.

    python tests/bench/camvid.py [small] [FOLDER]

Semantic segmentation, 11 classes, 367 images at 128 px, of which 40 drawn at random have masks; the same for all
strategies of a seed. A round trains the small U-Net from its first weights, and VAAL where the strategy asks for it,
scores, picks 40 images without a control arm, hands them out and takes their masks in, as PNG files; then mIoU is from
one confusion matrix over the 334 images of the validation and test shards. Three seeds, four rounds, 500 updates of
eight images (small: one seed, one round, 100 updates, one pass of VAAL, the validation shard). In FOLDER everything is
kept, and what is there is not made again.

Needs CamVid below VAAL_DATA, else ../shared/data; says so and ends where it is absent.
"""

import csv
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, end_on_sigterm, is_small, machine

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.opening import create, open_campaign
from engine.cluster.ray_session import ray_session
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.handoff.answer_files import answer_files
from engine.handoff.export import export
from engine.handoff.ingest import ingest
from engine.models.weights import load_networks, to_input
from engine.pool.images import decode
from engine.pool.mask_files import class_numbers, read_ids
from engine.scoring.score import score
from engine.selection.select import select
from engine.training.train import train
from vaal.task.segmentation import class_ious, classes_at, confusion, mean_iou

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
VOID = 11
BATCH = 40
STRATEGIES: dict[str, dict[str, Any]] = {
    "entropy": {"score.acquisition": ["entropy"], "select.acquisition": "entropy"},
    "default": {"score.acquisition": ["vaal", "margin"]},
    "random": {"score.acquisition": ["random"], "select.acquisition": "random"},
}
Files = dict[str, bytes]


def files_of(shards: list[Path], suffix: str) -> Files:
    """The files with this suffix, by key."""
    found: Files = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content and member.name.endswith(f".{suffix}"):
                    found[member.name.partition(".")[0]] = content.read()
    return found


def settings_of(strategy: str, seed: int, *, small: bool) -> dict[str, Any]:
    return {
        "train.task": "segmentation", "train.task_steps": 100 if small else 500, "train.batch_size": 8,
        "train.epochs": 1 if small else 10, "train.seed": seed,
        "handoff.question": {"task": "mask", "classes": CLASSES}, "labels.masks": "member:seg.png",
        "labels.void": [VOID], "image.size": 128, "image.suffixes": ["jpg"], "select.budget": BATCH,
        "select.control_fraction": 0.0, "select.seed": seed, **STRATEGIES[strategy],
    }  # fmt: skip


def campaign_of(folder: Path, shards: list[Path], settings: dict[str, Any], seed: int) -> Campaign:
    if (folder / "campaign/campaign.toml").exists():
        return open_campaign(f"{folder}/campaign")
    folder.mkdir(parents=True, exist_ok=True)
    items = [(shard.name, key) for shard in shards for key in files_of([shard], "jpg")]
    chosen = np.random.default_rng(seed).permutation(len(items))[:BATCH]
    with (folder / "first.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("shard", "key", "label"), *((*items[n], "mask") for n in sorted(chosen))])
    config = override(CampaignConfig(), settings, "bench")
    pattern = f"{shards[0].parent}/train-*.tar"
    return create(f"{folder}/campaign", [pattern], f"{folder}/first.csv", config, lambda _: None)


def answer(campaign: Campaign, folder: Path, masks: Files) -> None:
    """The oracle's masks of a round's picks."""
    answers = folder / f"answers-{campaign.round}"
    answers.mkdir(exist_ok=True)
    rows = (campaign.stage("selection") / "selection.parquet").read_table(["item_id", "key"]).to_pylist()
    for row in rows:
        (answers / f"{row['item_id']}.png").write_bytes(masks[row["key"]])
    lines = [f"{row['item_id']},{row['item_id']}.png" for row in rows]
    (answers / "answers.csv").write_text("\n".join(["item_id,label", *lines]))
    ingest(campaign, answer_files([f"{answers}/answers.csv"], "generic"), "generic")


@torch.inference_mode()
def judged(campaign: Campaign, images: Files, masks: Files) -> dict[str, Any]:
    """The round's task learner on images that are in no pool."""
    manifest = read_manifest(campaign, "train", TrainManifest)
    networks = load_networks(campaign.stage("train"), campaign.config, manifest["files"], with_task=True)
    assert networks.task is not None
    count_CC = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    for key, content in images.items():
        pixels = decode(content, campaign.config.image).copy()
        (logit_Chw,) = networks.task(to_input(pixels[None], torch.device("cpu")))
        ids = read_ids(masks[key], campaign.config.image.max_pixels)
        mask_HW = torch.from_numpy(class_numbers(ids, len(CLASSES), frozenset({VOID})))
        count_CC += confusion(classes_at(logit_Chw, *mask_HW.shape).flatten(), mask_HW.flatten(), len(CLASSES))
    ious = dict(zip(CLASSES, class_ious(count_CC), strict=True))
    accuracy = float(count_CC.diagonal().sum() / count_CC.sum())
    return {"miou": mean_iou(count_CC), "accuracy": accuracy, "ious": ious}


def run(folder: Path, source: Path, strategy: str, seed: int, *, small: bool) -> list[dict[str, Any]]:
    """The results of all rounds of a strategy, each from its file where there is one."""
    shards = sorted(source.glob("train-*.tar"))
    tests = sorted(source.glob("val-*.tar")) + ([] if small else sorted(source.glob("test-*.tar")))
    found, rounds = list[dict[str, Any]](), 1 if small else 4
    for number in range(rounds + 1):
        file = folder / f"round-{number}.json"
        if not file.exists():
            campaign = campaign_of(folder, shards, settings_of(strategy, seed, small=small), seed)
            assert campaign.round == number
            begin = time.perf_counter()
            train(campaign)
            result = judged(campaign, files_of(tests, "jpg"), files_of(tests, "seg.png"))
            if number < rounds:
                score(campaign)
                select(campaign)
                export(campaign, vendor="generic")
                answer(campaign, folder, files_of(shards, "seg.png"))
            file.write_text(json.dumps({**result, "seconds": time.perf_counter() - begin}))
        found.append(json.loads(file.read_text()))
        last = found[-1]
        print(
            f"seed {seed}, {strategy}, {BATCH * (number + 1)} masks: mIoU {100 * last['miou']:.1f} %, pixels "
            f"{100 * last['accuracy']:.1f} %, {last['seconds']:.0f} s",
            flush=True,
        )
    return found


def main() -> None:
    end_on_sigterm()
    source = Path(os.environ.setdefault("VAAL_DATA", str(ROOT.parent / "shared/data"))) / "camvid"
    if not source.exists():
        sys.exit("camvid: CamVid is not below VAAL_DATA")
    small, given = is_small(), [word for word in sys.argv[1:] if word not in ("small", "large")]
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as scratch, ray_session("local"):
        folder = Path(given[0] if given else scratch)
        results = {
            strategy: [
                run(folder / f"{strategy}-{seed}", source, strategy, seed, small=small)
                for seed in range(1 if small else 3)
            ]
            for strategy in STRATEGIES
        }
    for strategy, runs in results.items():
        by_round = zip(*([100 * found["miou"] for found in rounds] for rounds in runs), strict=True)
        means = ", ".join(f"{statistics.mean(values):.1f}" for values in by_round)
        gains = [
            100 * (own[-1]["miou"] - other[-1]["miou"]) for own, other in zip(runs, results["random"], strict=True)
        ]
        words = ", ".join(f"{gain:+.1f}" for gain in gains)
        print(f"{strategy}: mean mIoU in % by round {means}; at the end over random, by seed: {words} points")


if __name__ == "__main__":
    main()
