"""The handoff: exactly the picked files, in any format that is read, under opaque names, from unchanged shards."""

import csv
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.stages import Run
from engine.errors import InputError
from engine.handoff.export import export
from engine.handoff.sent_images import THREADS, in_threads
from engine.pool.formats import FORMATS
from engine.selection.select import select
from engine.storage.location import Location
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
    content = io.BytesIO()
    Image.new("L", (16, 16)).save(content, "png")
    write_shard(tmp_path / "a.tar", {"labelled.png": content.getvalue(), **members})
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


@pytest.mark.parametrize("damage", ["delete an image", "flip a byte", "cut the list", "add a file", "delete all"])
def test_a_damaged_handoff_is_written_again_and_is_the_same_batch(scored: Campaign, damage: str) -> None:
    select(scored)
    manifest = export(scored)
    folder = Path(scored.stage("handoff/generic").path)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    first, tasks = sorted((folder / "images").iterdir())[0], folder / "tasks.csv"
    if damage == "delete all":
        shutil.rmtree(folder)
    elif damage == "delete an image":
        first.unlink()
    elif damage == "flip a byte":
        first.write_bytes(whole[first][:-1] + bytes([whole[first][-1] ^ 1]))
    elif damage == "cut the list":
        tasks.write_bytes(whole[tasks][:99])
    else:
        (folder / "images/other.png").write_bytes(b"other")
    lines: list[str] = []
    assert export(scored, Run(log=lines.append)) == manifest
    assert "not the files of generic-000; written again" in lines[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole
    assert [batch.folder.name for batch in batches(scored.home, 0)] == ["generic-000"]
    assert export(scored, Run(log=lines.append)) == manifest
    assert sum("written again" in line for line in lines) == 1


def test_of_a_large_batch_random_images_are_read(scored: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    select(scored)
    export(scored)
    images = sorted(Path(scored.stage("handoff/generic/images").path).iterdir())
    whole = {image: image.read_bytes() for image in images}
    most = 3 * max(map(len, whole.values()))
    monkeypatch.setattr("engine.handoff.vendor_files.MOST_VERIFIED_BYTES", most)
    read: list[Location] = []
    original = Location.read_verified

    def noted(self: Location, *arguments: str) -> bytes:
        read.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Location, "read_verified", noted)
    for _ in range(5):
        export(scored)
    names = [location.name for location in read if location.name.endswith(".png")]
    assert 15 <= len(names) <= 5 * most / min(map(len, whole.values()))
    assert len(set(names)) > 5
    for image, content in whole.items():
        image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    export(scored)
    assert {image: image.read_bytes() for image in images} == whole


def test_images_are_written_in_their_order_and_few_are_held() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    def slow_first(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    found = []
    for number in in_threads(slow_first, numbers()):
        found.append(number)
        assert len(taken) - len(found) < 2 * THREADS
    assert found == list(range(200))


def test_the_first_error_is_raised_and_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def fail(number: int) -> int:
        begun.append(number)
        if number >= 5:
            raise InputError(f"image {number}")
        return number

    with pytest.raises(InputError, match="image 5"):
        list(in_threads(fail, range(1000)))
    assert len(begun) <= 5 + 2 * THREADS
