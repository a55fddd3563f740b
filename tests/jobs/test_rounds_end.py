"""A round ends by the rule of labels.close_when or by hand, and does not come back."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from engine.campaign import corrections, undoing
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import LABELS_SCHEMA, identities, read_labels
from engine.campaign.opening import current_round, open_campaign
from engine.campaign.recalling import recall
from engine.campaign.settling import settle
from engine.errors import ConfigError
from engine.handoff.choice import ALL, Wish
from engine.handoff.export import export
from engine.handoff.ingest import Ingested
from jobs.cli import app
from jobs.round import _end_round
from jobs.terminal import Terminal
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in
from tests.small import copied, make_small

NUM_PICKS = 9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return make_small(tmp_path_factory.mktemp("ends"))


class Round:
    """A round whose picks go out to one person each, unless more are wanted."""

    def __init__(self, base: Campaign, home: Path, wish: Wish = ALL, **settings: Any) -> None:
        self.campaign = copied(base, home, **settings)
        export(self.campaign, vendor="generic", wish=wish)
        (batch,) = batches(self.campaign.home, 0)
        self.ids: list[str] = batch.images()["item_id"].to_pylist()

    def answer(self, item_ids: list[str], value: str = "cat", person: str = "ann") -> Ingested:
        facts = {"skipped": True} if value == "-" else {"label": value}
        rows = [{"item_id": item_id, "annotator": person, **facts} for item_id in item_ids]
        file = Path(self.campaign.home.path).parent / "answers.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return take_in(self.campaign, file)

    def end(self, *settings: str, close: bool = False) -> int:
        """What `vaal round` does first. Returns the number of the round that it is about then."""
        _end_round(Terminal(json=True), str(self.campaign.home), [*settings], close=close)
        return current_round(self.campaign.home)

    @property
    def closed(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.campaign.home / "rounds/000/closed.json").read_bytes())
        return found


def test_a_round_ends_with_the_last_answer_and_not_with_the_first(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign")
    assert len(one.ids) == NUM_PICKS
    for number, item_id in enumerate(one.ids[:-2]):
        found = one.answer([item_id])
        assert (found.is_closed, current_round(one.campaign.home), found.out) == (False, 0, NUM_PICKS - 1 - number)
    # One is skipped, one is taken back: nobody waits for these.
    assert not one.answer(one.ids[-2:-1], "-").is_closed
    recall(one.campaign, (), corrections.USER, pick_again=False)
    assert settle(one.campaign).is_closed
    assert current_round(one.campaign.home) == 1
    assert one.closed["by"] == "labels.close_when=all"
    assert not settle(one.campaign).is_closed


@pytest.mark.parametrize(("share", "needed"), [(1.0, 9), (0.5, 5), (0.01, 1), (0.34, 4)])
def test_a_share_of_the_answers_ends_a_round(base: Campaign, tmp_path: Path, share: float, needed: int) -> None:
    one = Round(base, tmp_path / "campaign", labels__close_when=share)
    if needed > 1:
        assert not one.answer(one.ids[: needed - 1]).is_closed
    assert one.answer(one.ids[:needed]).is_closed
    assert one.closed["done"] == needed
    # Late answers count, for the rounds that come.
    late = one.answer(one.ids)
    assert (late.new, late.is_closed, current_round(one.campaign.home)) == (NUM_PICKS - needed, False, 1)
    assert read_labels(one.campaign.home)["round"].to_pylist().count(0) == NUM_PICKS


def test_a_share_is_exactly_what_was_written(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    """0.28 * 25 is 7.000000000000001 to a computer."""
    campaign = make_campaign("labels.close_when=0.28")
    ids = [f"{number:032x}" for number in range(25)]
    hand_out(campaign, {item_id: ("digits-00001.tar", f"k{item_id}") for item_id in ids})
    for number, is_closed in ((6, False), (7, True)):
        (tmp_path / "answers.csv").write_text("item_id,label\n" + "".join(f"{item_id},1\n" for item_id in ids[:number]))
        assert take_in(campaign, tmp_path / "answers.csv").is_closed == is_closed


def test_picks_that_wait_to_be_sent_are_of_the_round(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign", Wish(limit=4))
    assert not one.answer(one.ids).is_closed
    assert one.end() == 0
    export(one.campaign, vendor="generic", wish=ALL)
    rest = batches(one.campaign.home, 0)[1].images()["item_id"].to_pylist()
    assert one.answer(rest).is_closed


def test_a_round_is_ended_by_hand_once_any_answer_came(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign", handoff__annotators=3)
    with pytest.raises(ConfigError, match=r"--close: no answer came for its 9 images; .* recall"):
        one.end(close=True)
    assert (one.end(), current_round(one.campaign.home)) == (0, 0)
    # One of three answers for one image settles nothing; and yet it is one.
    assert one.answer(one.ids[:1]).new == 0
    assert one.end() == 0
    assert one.end(close=True) == 1
    assert (one.closed["by"], one.closed["done"], one.closed["total"]) == ("vaal round --close", 0, NUM_PICKS)
    before = one.closed
    # The command that was interrupted then, again: the next round has sent nothing, and goes on.
    assert one.end(close=True) == 1
    assert one.closed == before


def test_a_round_of_which_nothing_was_sent_is_not_ended_by_hand(base: Campaign, tmp_path: Path) -> None:
    campaign = copied(base, tmp_path / "campaign")
    lines: list[str] = []
    screen = Terminal(json=True)
    screen.log = lines.append  # type: ignore[method-assign]
    _end_round(screen, str(campaign.home), [], close=True)
    assert lines == ["--close: nothing of round 000 was handed out, so it goes on"]
    assert current_round(campaign.home) == 0


def test_a_round_that_ended_does_not_come_back(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign")
    assert one.answer(one.ids).is_closed
    undoing.undo(one.campaign)
    assert len(read_labels(one.campaign.home)) == 6
    settle(open_campaign(str(one.campaign.home)))
    assert current_round(one.campaign.home) == 1
    assert one.answer(one.ids).new == NUM_PICKS
    for item in identities(read_labels(one.campaign.home)):
        corrections.retract(one.campaign, item)
    assert current_round(one.campaign.home) == 1


def test_labels_that_another_program_writes_end_the_round_at_the_next_round(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign")
    images = batches(one.campaign.home, 0)[0].images()
    items = identities(images)

    def put(name: str, items: list[tuple[str, str]]) -> None:
        rows = [(*item, "cat", 0, "other", *[None] * 4) for item in items]
        table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=LABELS_SCHEMA)
        pq.write_table(table, Path(one.campaign.home.path, f"labels/{name}.parquet"))

    put("a", items[:-1])
    assert one.end() == 0
    put("b", items[-1:])
    assert current_round(one.campaign.home) == 0
    assert one.end() == 1
    assert one.closed["done"] == NUM_PICKS


def test_why_images_were_skipped_is_counted(base: Campaign, tmp_path: Path) -> None:
    one = Round(base, tmp_path / "campaign")
    reasons = ("blurred", "two objects", "blurred", "")
    rows = [
        {"item_id": item_id, "annotator": "ann", "skipped": True, "reason": reason}
        for item_id, reason in zip(one.ids, reasons, strict=False)
    ]
    # Outvoted: the image has a label.
    rows.append({"item_id": one.ids[4], "annotator": "ann", "skipped": True, "reason": "lazy"})
    rows += [{"item_id": one.ids[4], "annotator": name, "label": "cat"} for name in ("bob", "cy")]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    take_in(one.campaign, tmp_path / "answers.jsonl")
    found = CliRunner().invoke(app, ["handoff", str(one.campaign.home), "--json"])
    assert found.exit_code == 0, found.stderr
    data = json.loads(found.stdout)
    assert (data["states"]["skipped"], data["states"]["settled"]) == (4, 1)
    assert data["skip_reasons"] == {"blurred": 2, "no reason": 1, "two objects": 1}
    shown = CliRunner().invoke(app, ["handoff", str(one.campaign.home)])
    assert "2 x blurred, 1 x no reason, 1 x two objects" in shown.stdout


def test_what_is_set_about_answers_counts_at_once(base: Campaign, tmp_path: Path) -> None:
    """Another rule or another method: labels are derived again."""
    one = Round(base, tmp_path / "campaign", handoff__annotators=3)
    for person, value in (("ann", "cat"), ("bob", "cat"), ("cy", "dog")):
        one.answer(one.ids[:1], value, person)
        one.answer(one.ids[1:5], "cat", person)
    home = one.campaign.home

    def found() -> list[str | None]:
        """Of the images that were answered; those of init come first."""
        return sorted(read_labels(home)["label"].to_pylist()[6:])

    assert found() == ["cat"] * 5
    assert one.end("labels.min_posterior=0.9999", "labels.consensus=majority") == 0
    # Two of three are 0.67.
    assert found() == ["cat"] * 4
    assert one.end("labels.min_posterior=0.5") == 0
    assert found() == ["cat"] * 5
    table = (home / f"consensus/{max((home / 'consensus').children())}").read_table()
    assert table.schema.metadata[b"method"] == b"majority"
    assert one.end("labels.close_when=0.5") == 1
