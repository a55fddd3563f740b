"""Semantic segmentation from end to end on CamVid: trained, scored, picked, sent, taken in again, and learned."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.opening import create, open_campaign
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import InputError
from engine.handoff.export import export
from engine.handoff.training_data import export_labels
from engine.models.weights import load_networks
from engine.scoring.score import score
from engine.selection.select import select
from engine.storage.location import Location
from engine.training.plan import plan_training
from engine.training.train import train
from tests.sendings import take_in

CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()  # noqa: SIM905
SCORES = ["margin", "entropy", "bald", "ensemble_varr", "expected_gradient_length", "pseudo_label_error", "core_set"]
LABELLED, PICKED, STEPS = 40, 10, 30
SETTINGS: dict[str, Any] = {
    "train.task": "segmentation", "train.task_steps": STEPS, "train.batch_size": 8, "train.folds": 3,
    "handoff.question": {"task": "mask", "classes": CLASSES}, "labels.masks": "member:seg.png", "labels.void": [11],
    "image.size": 32, "score.acquisition": SCORES, "select.acquisition": "entropy", "select.budget": PICKED,
    "select.control_fraction": 0.0, "select.duplicates": "off",
}  # fmt: skip


@pytest.fixture(scope="module")
def shard() -> Path:
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[4] / "shared/data")) / "camvid"
    return data / "train-00000.tar" if data.exists() else pytest.skip("no camvid below VAAL_DATA or ../shared/data")


def masks_of(shard: Path) -> dict[str, Any]:
    """The ids in the mask of every image, by key."""
    with tarfile.open(shard) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar if member.name.endswith(".seg.png"))
        return {name.partition(".")[0]: np.asarray(Image.open(io.BytesIO(f.read()))) for name, f in files if f}


def runs_of(mask: Any) -> dict[str, Any]:
    """COCO's run lengths of a mask of one class."""
    flat = np.concatenate([[False], mask.T.ravel()])
    cuts = np.flatnonzero(flat[1:] != flat[:-1])
    return {"counts": np.diff([0, *cuts.tolist(), mask.size]).tolist(), "size": list(mask.shape)}


def answered(folder: Path, picks: list[dict[str, Any]], masks: dict[str, Any]) -> Path:
    """The oracle's answers: files of all classes, files of one class each, and run lengths."""
    lines = []
    for number, pick in enumerate(picks):
        ids, item_id = masks[pick["key"]], pick["item_id"]
        own = [(CLASSES[id_], ids == id_) for id_ in np.unique(ids) if id_ != 11]
        if number < 5:
            Image.fromarray(ids).save(folder / f"{item_id}.png")
            label: Any = f"{item_id}.png"
        elif number < 7:
            for name, mask in own:
                Image.fromarray(mask).save(folder / f"{item_id}-{name}.png")
            label = [{"label": name, "mask": f"{item_id}-{name}.png"} for name, _ in own]
        else:
            label = [{"label": name, "mask": runs_of(mask)} for name, mask in own]
        lines.append(json.dumps({"item_id": item_id, "label": label}))
    (folder / "answers.jsonl").write_text("\n".join(lines))
    return folder / "answers.jsonl"


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_masks_are_learned_asked_for_and_learned_again(shard: Path, tmp_path: Path) -> None:
    masks = masks_of(shard)
    keys = sorted(masks)
    with (tmp_path / "first.csv").open("w", newline="") as first:
        csv.writer(first).writerows(
            [("shard", "key", "label"), *((shard.name, key, "mask") for key in keys[:LABELLED])]
        )
    config = override(CampaignConfig(), SETTINGS, "test")
    campaign = create(str(tmp_path / "campaign"), [str(shard)], str(tmp_path / "first.csv"), config, lambda _: None)
    require_trained(campaign)
    score(campaign)
    (file,) = (tmp_path / "campaign/rounds/000/scores").glob("*.parquet")
    scored = pq.read_table(file)
    assert set(SCORES) < set(scored.column_names)
    for name in SCORES:
        assert len(set(scored[name].to_pylist())) > 20, name
    select(campaign)
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    pairs = zip(*(scored[name].to_pylist() for name in ("entropy", "key")), strict=True)
    expected = sorted(pair for pair in pairs if pair[1] not in keys[:LABELLED])[:PICKED]
    assert [pick["key"] for pick in picks] == [key for _, key in expected]
    export(campaign, vendor="generic")
    require_refused(campaign, tmp_path, picks[0], masks)
    found = take_in(campaign, answered(tmp_path, picks, masks))
    assert found.new == PICKED
    again = open_campaign(str(campaign.home))
    assert again.round == 1
    require_masks(again, masks)
    manifest = require_trained(again)
    assert manifest["counts"]["labelled"] == LABELLED + PICKED
    exported(again, tmp_path / "set", masks)


def require_trained(campaign: Campaign) -> TrainManifest:
    train(campaign)
    manifest = read_manifest(campaign, "train", TrainManifest)
    task = manifest["task"]
    assert task["classes"] == CLASSES
    assert 0 < task["held_out_miou"] < task["held_out_accuracy"] < 1
    ious = task["held_out_ious"]
    assert list(ious) == CLASSES
    assert task["held_out_miou"] == pytest.approx(np.mean([value for value in ious.values() if value is not None]))
    networks = load_networks(campaign.stage("train"), campaign.config, manifest["files"], with_task=True)
    assert networks.task is not None
    assert networks.task.temperature == pytest.approx(task["temperature"])
    return manifest


def require_refused(campaign: Campaign, folder: Path, pick: dict[str, Any], masks: dict[str, Any]) -> None:
    """Answers that no task learner could read are refused before they are kept."""
    (folder / "bad.jsonl").write_text(json.dumps({"item_id": pick["item_id"], "label": "bad.png"}))
    for content, why in (
        (masks[pick["key"]] + 12, "bad.jsonl: line 1: mask 'bad.png' has ids .*; name what is void in labels.void"),
        (np.zeros((4, 4, 3), np.uint8), r"mask 'bad.png' is a picture in colours \(RGB\), which are no ids"),
    ):
        Image.fromarray(content).save(folder / "bad.png")
        with pytest.raises(InputError, match=why):
            take_in(campaign, folder / "bad.jsonl")


def require_masks(campaign: Campaign, masks: dict[str, Any]) -> None:
    """The masks that came back are those of the oracle, in whichever form."""
    from engine.training.masked import MaskReader

    plan = plan_training(campaign)
    assert plan.masks is not None
    faults: dict[Any, str] = {}
    found = list(MaskReader(plan.pool, plan.masks, labelled_values(campaign.home), faults).read(plan.positions))
    assert not faults
    assert len(found) == LABELLED + PICKED
    for number, _, mask in found:
        ids = masks[plan.positions[number][1]]
        assert np.array_equal(mask, np.where(ids == 11, 255, ids))


def exported(campaign: Campaign, folder: Path, masks: dict[str, Any]) -> None:
    """The labelled set has a mask beside each image."""
    made = export_labels(campaign, Location.of(str(folder)), "train=1", 0, lambda *_: None, lambda _: None)
    assert json.loads((folder / "classes.json").read_text()) == CLASSES
    samples = list(wds.WebDataset([str(folder / name) for name in made.shards], shardshuffle=False))
    assert len(samples) == LABELLED + PICKED
    for sample in samples:
        ids = masks[json.loads(sample["json"])["key"]]
        found = np.asarray(Image.open(io.BytesIO(sample["seg.png"])))
        assert np.array_equal(found, np.where(ids == 11, 255, ids))
