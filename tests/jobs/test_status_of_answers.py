"""`vaal status`: how far the answers of a round are, by which rule it ends, and the command that goes on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.campaign.decisions import Author
from engine.campaign.folder import Campaign
from engine.campaign.labels import LABELS_SCHEMA
from engine.campaign.ledger import read_ledger
from engine.campaign.manifests import Manifest, write_manifest
from engine.campaign.recalling import recall
from engine.campaign.settling import settle
from engine.handoff.choice import Wish
from engine.handoff.export import export
from jobs.cli import app
from tests.sendings import take_in
from tests.small import copied, make_small

PICKS = 9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """What `vaal status` opens has three people an image, of whom most decide."""
    settings = {"handoff__annotators": 3, "labels__consensus": "majority", "labels__close_when": 0.9}
    return make_small(tmp_path_factory.mktemp("status"), **settings)


class Watched:
    """A campaign that is sent to a vendor and answered; its status after each step."""

    def __init__(self, base: Campaign, home: Path, vendor: str, wish: Wish) -> None:
        self.campaign, self.vendor = copied(base, home), vendor
        self.send(wish)
        write_manifest(self.campaign, "report", Manifest, inputs={}, counts={}, files={})

    def send(self, wish: Wish = Wish()) -> None:  # noqa: B008 - never written to
        export(self.campaign, vendor=self.vendor, wish=wish)

    @property
    def ids(self) -> list[str]:
        ids: list[str] = read_ledger(self.campaign).rows(["item_id"])["item_id"].to_pylist()
        return ids

    def answer(self, ids: Sequence[str], *labels: str) -> None:
        """Each of these images gets an answer of a person for each label."""
        file = Path(self.campaign.home.path).with_suffix(".csv")
        rows = [f"{name},{label},p{number}-{label}" for name in ids for number, label in enumerate(labels)]
        file.write_text("\n".join(["item_id,label,annotator", *rows]) + "\n")
        take_in(self.campaign, file)

    @property
    def status(self) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["status", str(self.campaign.home), "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def next(self) -> str:
        return str(self.status["next"]).replace(str(self.campaign.home), "HOME")

    @property
    def shown(self) -> str:
        return re.sub(r"\s+", " ", CliRunner().invoke(app, ["status", str(self.campaign.home)]).output)

    def counts(self) -> tuple[int, int, int]:
        answers = self.status["answers"]
        return answers["done"], answers["total"], answers["waiting"]


def test_before_anything_is_sent(base: Campaign) -> None:
    done = CliRunner().invoke(app, ["status", str(base.home), "--json"])
    found = json.loads(done.stdout)
    assert (found["answers"]["total"], found["answers"]["done"]) == (0, 0)
    assert found["next"] == f"vaal round {base.home}"
    assert "picks settled" not in CliRunner().invoke(app, ["status", str(base.home)]).output


def test_from_the_first_wave_to_the_end_of_a_round(base: Campaign, tmp_path: Path) -> None:
    watched = Watched(base, tmp_path / "campaign", "generic", Wish(limit=4))
    first = watched.ids
    assert watched.counts() == (0, PICKS, PICKS - 4)
    assert watched.status["answers"]["close_when"] == 0.9
    assert watched.next == "vaal ingest HOME FILE"
    # One of three people settles nothing.
    watched.answer(first, "cat")
    assert watched.counts() == (0, PICKS, PICKS - 4)
    assert watched.next == "vaal ingest HOME FILE"
    watched.answer(first[:3], "cat", "cat", "cat")
    watched.answer(first[3:], "cat", "dog", "owl")
    assert watched.counts() == (3, PICKS, PICKS - 4)
    assert "answers 3 of 9 picks settled; the round ends when 90% are" in watched.shown
    # What waits is sent first; then more people are asked.
    assert watched.next == "vaal export HOME"
    watched.send()
    assert watched.next == "vaal ingest HOME FILE"
    rest = watched.ids[4:]
    watched.answer(rest[:-1], "cat", "cat", "cat")
    watched.answer(rest[-1:], "cat", "dog", "owl")
    assert watched.counts() == (7, PICKS, 0)
    assert watched.status["round"] == 0
    assert watched.next == "vaal export HOME --disputed --to generic"
    watched.send(Wish(is_disputed=True))
    assert watched.next == "vaal ingest HOME FILE"
    watched.answer([first[3], rest[-1]], *["bat"] * 6)
    assert watched.status["round"] == 1
    assert watched.next == "vaal round HOME"
    assert watched.counts() == (0, 0, 0)


def test_the_vendor_is_named_in_the_command(base: Campaign, tmp_path: Path) -> None:
    watched = Watched(base, tmp_path / "campaign", "label-studio", Wish(limit=4))
    assert watched.next == "vaal ingest HOME FILE --from label-studio"
    recall(watched.campaign, (), Author("t", ""), pick_again=False)
    settle(watched.campaign)
    assert watched.counts() == (4, PICKS, PICKS - 4)
    assert watched.next == "vaal export HOME --to label-studio"


def test_what_may_be_sent_again_waits(base: Campaign, tmp_path: Path) -> None:
    watched = Watched(base, tmp_path / "campaign", "generic", Wish())
    assert watched.counts() == (0, PICKS, 0)
    recall(watched.campaign, (), Author("t", ""), pick_again=True)
    settle(watched.campaign)
    assert watched.counts() == (0, PICKS, PICKS)
    assert watched.next == "vaal export HOME"


def test_a_round_whose_labels_another_program_wrote_is_ended_by_the_next(base: Campaign, tmp_path: Path) -> None:
    """Nobody looked at the labels yet: the round is over, and not ended."""
    watched = Watched(base, tmp_path / "campaign", "generic", Wish())
    rows = read_ledger(watched.campaign).rows(["item_id", "shard", "key"]).to_pylist()
    labels = [(row["shard"], row["key"], "cat", 0, "other", *[None] * 4) for row in rows]
    table = pa.table([list(column) for column in zip(*labels, strict=True)], schema=LABELS_SCHEMA)
    pq.write_table(table, Path(watched.campaign.home.path, "labels/theirs.parquet"))
    assert (watched.status["round"], watched.counts()) == (0, (PICKS, PICKS, 0))
    assert watched.next == "vaal round HOME"
