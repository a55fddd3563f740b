"""Who answered is a keyed hash wherever it is kept; gold images say how often each of them is right."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.ledger import read_ledger
from engine.campaign.votes import annotator_hash, read_votes
from engine.handoff import VENDORS
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign
from tests.replies import ANN, REPLIES
from tests.sendings import hand_out, take_in
from tests.small import copied, make_small

IDS = {letter * 32: ("s-1.tar", f"{16 + number:03d}") for number, letter in enumerate("abc")}
NAMES = ("ann.smith", "Ann Smith", "vendor.example", "bob.jones", "918273645")
"""Of people, in the files below: names, addresses and numbers."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("pseudonyms"))


def texts(home: Path) -> dict[str, bytes]:
    """What every file of a campaign says: of Parquet the values and the metadata, since it is packed."""
    found = {}
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                content += repr((table.to_pydict(), table.schema.metadata)).encode()
            found[str(path.relative_to(home))] = content
    return found


def assert_nobody_is_named(campaign: Campaign) -> None:
    for file, content in texts(Path(campaign.home.path)).items():
        named = [name for name in NAMES if name.encode() in content]
        assert not named, (file, named)


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_file_of_a_campaign_names_an_annotator(base: Campaign, tmp_path: Path, vendor: str) -> None:
    task = "boxes" if vendor == "coco" else "class"
    campaign = copied(base, tmp_path / "campaign", handoff__question__task=task)
    hand_out(campaign, IDS, vendor=vendor)
    folder = tmp_path / "in"
    files = REPLIES[vendor](dict.fromkeys(IDS, "kettle"))
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    lines: list[str] = []
    assert take_in(campaign, folder, vendor, log=lines.append).votes == 3
    assert_nobody_is_named(campaign)
    assert not [line for line in lines if any(name in line for name in NAMES)]


def test_nobody_is_named_by_what_label_studio_tells_of_them(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__question__task="boxes")
    hand_out(campaign, IDS, vendor="label-studio")
    person = {"id": 918273645, "email": ANN, "first_name": "Ann Smith", "last_name": "bob.jones"}
    value = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["kettle"], "rotation": 0}
    region = {
        "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 8,
        "original_height": 8, "value": value, "origin": "manual",
    }  # fmt: skip
    annotation = {
        "id": 1, "completed_by": person, "result": [region], "was_cancelled": False, "updated_by": 918273645,
        "created_username": f" {ANN}, 918273645", "created_ago": "1 day", "created_at": "2026-11-01T12:00:00Z",
    }  # fmt: skip
    tasks = [{"id": 1, "data": {"item_id": "a" * 32}, "annotations": [annotation], "updated_by": [918273645]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert take_in(campaign, tmp_path / "export.json", "label-studio").votes == 1
    (vote,) = read_votes(campaign.home).to_pylist()
    assert vote["annotator"] == annotator_hash(campaign.config.salt, "label-studio", "918273645")
    assert vote["raw"]
    assert_nobody_is_named(campaign)


def test_gold_images_say_whose_votes_count_more(make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path) -> None:
    """Two that are wrong on gold are outvoted by one that is right, and the truth of gold images is not for sale."""
    campaign = make_campaign()
    known = labelled_values(campaign.home)
    gold = dict(zip((f"{number:032x}" for number in range(1, 21)), sorted(known), strict=False))
    (item,) = sorted(set(pool.oracle) - set(known))[:1]
    hand_out(campaign, {"a" * 32: item, **gold}, gold=tuple(gold), annotators=3)
    rows = [{"item_id": "a" * 32, "label": "4", "annotator": name} for name in ("bad", "worse")]
    rows.append({"item_id": "a" * 32, "label": "7", "annotator": "good"})

    def ingest() -> None:
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        take_in(campaign, tmp_path / "answers.jsonl")

    ingest()
    assert labelled_values(campaign.home)[item] == "4"
    for item_id, place in gold.items():
        wrong = str((int(known[place]) + 1 + int(item_id, 16) % 9) % 10)
        answers = {"good": known[place], "bad": wrong, "worse": wrong}
        rows += [{"item_id": item_id, "label": label, "annotator": name} for name, label in answers.items()]
    ingest()
    ledger = read_ledger(campaign)
    found = {row["annotator"]: row for row in ledger.outcomes.annotators.to_pylist()}
    by_name = {name: found[annotator_hash(campaign.config.salt, "generic", name)] for name in ("good", "bad", "worse")}
    assert {name: (row["gold_right"], row["gold_seen"]) for name, row in by_name.items()} == {
        "good": (20, 20), "bad": (0, 20), "worse": (0, 20)
    }  # fmt: skip
    assert by_name["good"]["accuracy"] > 0.9 > 0.5 > by_name["bad"]["accuracy"]
    assert labelled_values(campaign.home)[item] == "7"
    # Nor does what is said of them label them, or count as out.
    assert {place: labelled_values(campaign.home)[place] for place in gold.values()} == {
        place: known[place] for place in gold.values()
    }
