"""The handoff: exactly the picked files, in any format that is read, under opaque names, from unchanged shards."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.handoff.export import export
from engine.pool.formats import FORMATS
from engine.selection.select import select
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import write_shard


@pytest.fixture
def scored(make_campaign: MakeCampaign) -> Campaign:
    """The digits, scored with random logits."""
    campaign = make_campaign()
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(campaign, lambda _, keys: rng.integers(-20, 20, len(keys)))
    return campaign


def test_the_handoff_holds_the_picked_files_and_no_path(scored: Campaign) -> None:
    select(scored)
    progress: list[tuple[float, str]] = []
    manifest = export(scored, Run(on_progress=lambda *seen: progress.append(seen)))
    folder = Path(scored.stage("handoff/generic").path)
    picks = (scored.stage("selection") / "selection.parquet").read_table().to_pylist()
    for pick in picks:
        shard = Path(scored.config.pool.root, str(pick["shard"])).read_bytes()
        start = int(str(pick["offset"]))
        content = shard[start : start + int(str(pick["size_bytes"]))]
        assert (folder / f"images/{pick['item_id']}.png").read_bytes() == content
    assert len(list((folder / "images").iterdir())) == len(picks) == manifest["counts"]["images"]
    lines = (folder / "tasks.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [pick["item_id"] for pick in picks]
    assert len((folder / "tasks.jsonl").read_text().splitlines()) == 100
    for name in ("tasks.csv", "tasks.jsonl"):
        text = (folder / name).read_text()
        assert ".tar" not in text
        assert not [pick for pick in picks if f'"{pick["key"]}"' in text]
    assert progress[-1] == (1, "100 of 100 images")
    assert export(scored) == manifest


def test_what_can_be_decoded_can_be_handed_out(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    members = {}
    for number, form in enumerate(FORMATS):
        content = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(content, form.name)
        members[f"{number}.{form.suffixes[-1].upper()}"] = content.getvalue()
    write_shard(tmp_path / "a.tar", {"labelled.png": members["1.PNG"], **members})
    labels = tmp_path / "labels.csv"
    labels.write_text("shard,key,label\na.tar,labelled,x\n")
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    settings = (f"image.suffixes={suffixes}", f"select.budget={len(FORMATS)}", "select.duplicates=off")
    campaign = make_campaign(*settings, shards=[f"{tmp_path}/a.tar"], labels=labels)
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys), dtype=np.float32))
    select(campaign)
    export(campaign)
    folder = Path(campaign.stage("handoff/generic").path)
    with (folder / "tasks.csv").open() as file:
        tasks = list(csv.DictReader(file))
    handed_out = {Path(task["file"]).suffix[1:]: (folder / task["file"]).read_bytes() for task in tasks}
    assert handed_out == dict(zip((form.suffixes[0] for form in FORMATS), members.values(), strict=True))
