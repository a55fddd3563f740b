"""What the commands of sending say: what was sent now, what waits, what it costs; and their advice, followed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.ledger import read_ledger
from engine.campaign.manifests import Manifest, write_manifest
from engine.campaign.opening import open_campaign
from engine.handoff import VENDORS
from engine.handoff.choice import Wish
from engine.handoff.export import export
from jobs.cli import app
from tests.small import copied, make_small

PICKS = 9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Three people an image, of whom most decide."""
    campaign = make_small(tmp_path_factory.mktemp("words"), handoff__annotators=3, labels__consensus="majority")
    write_manifest(campaign, "report", Manifest, inputs={}, counts={}, files={})
    return campaign


class Desk:
    """A campaign by its commands."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, command: str, *words: str, status: int = 0) -> str:
        """What a command prints."""
        done = CliRunner().invoke(app, [command, str(self.home), *words])
        assert done.exit_code == status, done.output
        return str(done.stdout + done.stderr)

    def data(self, command: str, *words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [command, str(self.home), *words, "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def paste(self, text: str, after: str) -> str:
        """Run the command that is printed after these words, on its line."""
        found = re.search(rf"{after}:?\s+vaal (.*?)(?:, or .*)?$", text, re.MULTILINE)
        assert found, text
        command, home, *words = shlex.split(found[1])
        assert home == str(self.home)
        return self.run(command, *words)

    def sent(self, number: int) -> list[str]:
        ids: list[str] = batches(open_campaign(str(self.home)).home, 0)[number].images()["item_id"].to_pylist()
        return ids

    def answer(self, ids: list[str], *labels: str) -> None:
        file = self.home.with_suffix(".csv")
        rows = [f"{name},{label},p{number}-{label}" for name in ids for number, label in enumerate(labels)]
        file.write_text("\n".join(["item_id,label,annotator", *rows]) + "\n")
        self.run("ingest", str(file))

    @property
    def states(self) -> list[dict[str, int]]:
        return [batch["states"] for batch in self.data("handoff")["batches"]]


@pytest.fixture
def desk(base: Campaign, tmp_path: Path) -> Desk:
    return Desk(Path(copied(base, tmp_path / "campaign").home.path))


@pytest.fixture
def two(desk: Desk) -> Desk:
    """Four images are at Label Studio, five at CVAT."""
    desk.run("export", "--to", "label-studio", "--limit", "4")
    desk.run("export", "--to", "cvat")
    return desk


@pytest.mark.heavy
def test_the_advice_after_a_recall_takes_nothing_else_back(two: Desk) -> None:
    text = two.run("handoff", "recall", "--batch", "cvat-001")
    assert two.states == [{"out": 4}, {"recalled": 5}]
    again = two.paste(text, "to let those without answers")
    assert re.search(r"taken back +0 images", again)
    assert re.search(r"may be sent again +5 images more", again)
    assert two.states == [{"out": 4}, {"recalled": 5}]
    # What may be sent again waits, and how it is sent is said.
    for text in again, two.run("handoff"), two.run("status"):
        assert "5 picks; to send them: vaal export" in text
    two.paste(two.run("handoff"), "to send them")
    assert two.states == [{"out": 4}, {"recalled": 5}, {"out": 5}]


@pytest.mark.heavy
def test_the_advice_after_expiry_lets_go_what_was_given_up_and_no_more(desk: Desk) -> None:
    desk.run("export", "--limit", "4")
    text = desk.run("handoff", "expire", "--set", "handoff.expires_days=0.0000001")
    desk.run("export", "--to", "cvat", "--set", "handoff.expires_days=30")
    assert "recall --batch generic-000 --pick-again" in text
    assert re.search(r"given up +4 images", text)
    desk.paste(text, "to let those without answers")
    assert desk.states == [{"expired": 4}, {"out": 5}]
    assert desk.data("status")["answers"]["waiting"] == 4


@pytest.mark.heavy
def test_where_picks_were_taken_back_the_refusal_names_their_batch_alone(two: Desk) -> None:
    two.run("handoff", "recall", "--batch", "cvat-001")
    text = two.run("export", "--to", "tsv", status=2)
    two.paste(text, "to send these again")
    assert two.states == [{"out": 4}, {"recalled": 5}]
    two.run("export", "--to", "tsv")
    assert two.states == [{"out": 4}, {"recalled": 5}, {"out": 5}]
    text = two.run("export", "--to", "v7", status=2)
    assert text.rstrip().endswith("recall --batch label-studio-000 --batch tsv-002 --pick-again")


def test_a_refusal_to_end_a_round_names_the_batches_of_the_round(two: Desk) -> None:
    text = two.run("round", "--close", status=2)
    assert text.rstrip().endswith("recall --batch label-studio-000 --batch cvat-001")
    two.paste(text, "if none will come")
    # Nothing came at all: it ends by hand alone.
    assert two.data("status")["round"] == 0
    assert two.data("handoff")["round"]["done"] == two.data("handoff")["round"]["total"]


@pytest.mark.heavy
def test_labels_that_a_recall_makes_are_counted(desk: Desk) -> None:
    desk.run("export")
    ids = desk.sent(0)
    desk.answer(ids[:2], "cat")
    data = desk.data("handoff", "recall", "--batch", "generic-000")
    assert (data["images"], data["labels"], data["may_pick_again"]) == (PICKS, 2, 0)
    assert data["states"]["settled"] == 2


@pytest.mark.heavy
def test_labels_that_an_expiry_makes_are_counted_for_a_person(desk: Desk) -> None:
    desk.run("export")
    desk.answer(desk.sent(0)[:2], "cat")
    text = desk.run("handoff", "expire", "--set", "handoff.expires_days=0.0000001")
    assert re.search(r"new labels +2; no more answers are expected, so those that came decide", text)


@pytest.mark.heavy
def test_a_round_sends_what_waits_to_the_vendor_that_is_named(desk: Desk) -> None:
    desk.run("export", "--to", "label-studio", "--limit", "4")
    text = desk.run("round")
    assert "Round 000: 5 picks not sent yet" in text
    assert f"5 picks; to send them: vaal export {desk.home} --to label-studio" in text
    assert f"vaal ingest {desk.home} FILE --from label-studio" in text
    assert len(desk.states) == 1
    text = desk.run("round", "--to", "cvat")
    assert "Round 000: complete" in text
    assert "not sent yet" not in text
    assert f"vaal ingest {desk.home} FILE --from cvat" in text
    assert not set(desk.sent(0)) & set(desk.sent(1))
    for vendor, line in ("cvat", "nothing was sent now"), ("tsv", "--to tsv: nothing is sent there"):
        assert line in desk.run("round", "--to", vendor)
        assert desk.states == [{"out": 4}, {"out": 5}]


def test_what_was_sent_before_is_not_shown_as_sent_now(desk: Desk) -> None:
    words = ("export", "--set", "handoff.price=0.05")
    first = desk.data(*words)
    assert (first["sent_now"], first["folder"]) == (True, str(desk.home / "rounds/000/handoff/generic"))
    text = desk.run(*words)
    assert "nothing was sent now" in text
    assert f"generic-000: 9 images, sent {first['completed_at'][:10]}" in text
    assert "price" not in text
    assert desk.data(*words) == first | {"sent_now": False, "changed": False}
    # The run that sent it was killed before it said so: this one says so.
    (desk.home / "rounds/000/handed_out/generic-000.json").unlink()
    assert desk.data(*words) == first


@pytest.mark.heavy
def test_more_people_are_asked_at_the_vendor_that_has_the_images(two: Desk) -> None:
    two.answer(two.sent(0)[:2], "cat", "dog", "owl")
    two.answer(two.sent(1)[:1], "cat", "dog", "owl")
    command = f"vaal export {two.home} --disputed --to label-studio"
    assert command in two.run("handoff")
    text = two.paste(two.run("handoff"), "ask more people")
    assert "label-studio-002" in text
    # Before an answer to it came, none is there; and each image is counted once.
    assert two.states == [{"disputed": 2, "out": 2}, {"disputed": 1, "out": 4}, {"out": 3}]
    assert sum(two.data("handoff")["states"].values()) == PICKS
    line = two.run("export", "--disputed", "--to", "v7", status=2)
    assert "nothing is disputed now; label-studio-002 asks more people" in line
    # Of an image that is in two batches, one is taken back.
    assert two.data("handoff", "recall", "--batch", "label-studio-000")["images"] == 2
    assert two.data("handoff", "recall")["images"] == PICKS - 2


@pytest.mark.heavy
def test_status_names_a_vendor_that_is_waited_for(two: Desk) -> None:
    assert two.data("status")["next"] == f"vaal ingest {two.home} FILE --from cvat"
    two.answer(two.sent(1), "cat", "cat", "cat")
    assert two.data("status")["next"] == f"vaal ingest {two.home} FILE --from label-studio"
    two.answer(two.sent(0)[:3], "cat", "cat", "cat")
    two.answer(two.sent(0)[3:], "cat", "dog", "owl")
    two.paste(two.run("status"), "next")
    assert two.data("status")["next"] == f"vaal ingest {two.home} FILE --from label-studio"


MONEY = ("--set", "handoff.price=0.05", "--set", "handoff.money_limit=0.8")


def test_the_sum_is_written_out_and_the_advice_is_a_whole_command(desk: Desk) -> None:
    text = desk.run("round", "--to", "cvat", *MONEY, "--set", "handoff.gold_fraction=0.1", status=2)
    assert "10 images x 3 people x 0.05 = 1.50 (1 of them gold)" in text
    assert text.strip().endswith("the options of this command were not kept: give them again")
    words = re.search(r"send fewer: vaal export (\S+) (.*), or raise", text)
    assert words
    text = desk.run("export", *words[2].split(), *MONEY)
    assert re.search(r"price +5 images x 3 people x 0\.05 = 0\.75", text)
    assert "4; to send them: vaal export" in text


def test_no_gold_image_of_a_few_is_said(desk: Desk) -> None:
    text = desk.run("export", "--limit", "4", "--set", "handoff.gold_fraction=0.1")
    assert "no gold image goes along: handoff.gold_fraction=0.1 of 4 images is none" in text
    assert "no gold" not in desk.run("export", "--to", "tsv", "--set", "handoff.gold_fraction=0.2")


def test_the_advice_keeps_what_was_wished(desk: Desk) -> None:
    text = desk.run("export", "--to", "tsv", "--share", "0.8", *MONEY, status=2)
    assert f"vaal export {desk.home} --to tsv --limit 5 --share 0.8, or raise" in text


def test_spent_reserved_and_the_limit_are_told_apart(desk: Desk) -> None:
    desk.run("export", "--limit", "4", "--set", "handoff.price=0.05")
    desk.answer(desk.sent(0)[:1], "cat", "cat", "cat")
    assert "0.15 spent and 0.45 reserved, in all 0.60" in desk.run("handoff")
    assert "0.60 of handoff.money_limit=0.5: more than the limit" in desk.run(
        "handoff", "--set", "handoff.money_limit=0.5"
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_list_of_tasks_is_what_is_pointed_at(base: Campaign, tmp_path: Path, vendor: str) -> None:
    desk = Desk(Path(copied(base, tmp_path / "campaign").home.path))
    text = desk.run("export", "--to", vendor, "--limit", "2")
    found = re.search(r"tasks +(\S+)", text)
    assert found
    # Each image is named there.
    content = Path(found[1]).read_text()
    assert all(item_id in content for item_id in desk.sent(0))


def test_the_classes_that_are_to_be_named_are_named_by_what_is_printed(desk: Desk) -> None:
    text = desk.run("export", "--limit", "2")
    found = re.search(r"--set ('handoff\.question\.classes=.*')", text)
    assert found
    desk.run("export", "--set", shlex.split(found[1])[0])
    sending = batches(open_campaign(str(desk.home)).home, 0)[1].manifest["sending"]
    assert (sending["question"]["classes"], sending["question"]["is_open"]) == (["cat", "dog"], False)


@pytest.mark.parametrize("width", ["80", "60"])
def test_the_ledger_is_not_cut(base: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    campaign = copied(base, tmp_path / "campaign", handoff__price=1234.5)
    export(campaign, vendor="ground-truth", wish=Wish(limit=4))
    desk = Desk(Path(campaign.home.path))
    desk.answer(desk.sent(0)[:1], "cat", "dog", "owl")
    desk.answer(desk.sent(0)[1:2], "cat")
    monkeypatch.setenv("COLUMNS", width)
    text = desk.run("handoff")
    assert "…" not in text + desk.run("status")
    table = text.partition(f"{desk.home}")[0]
    assert all(len(line.rstrip()) <= int(width) for line in table.splitlines())
    for word in ("ground-truth-000", "4 images", "answered", "disputed", "reserved", "4,938.00"):
        assert word in table
    assert len(read_ledger(campaign).batches) == 1
