"""A person's word stands over votes, those that came and those to come, until --replace or an undo."""

from pathlib import Path

import pytest

from engine.campaign import corrections, undoing
from engine.campaign.decisions import Author, never_picked, read_decisions
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches
from engine.campaign.labels import labelled_values, read_snapshot
from engine.campaign.ledger import STATES, read_ledger
from engine.campaign.settling import settle
from engine.errors import InputError
from engine.handoff.export import export
from engine.handoff.ingest import Ingested
from engine.pool.identity import item_id_of
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in
from tests.small import make_small


class Sent:
    """A campaign with three images that three people each are asked about."""

    def __init__(self, campaign: Campaign, pool: DemoPool) -> None:
        self.campaign = campaign
        items = sorted(set(pool.oracle) - set(labelled_values(campaign.home)))[:3]
        self.items = {item_id_of(*item, campaign.config.salt): item for item in items}
        self.aa, self.bb, self.cc = self.items
        hand_out(campaign, self.items, annotators=3)

    def vote(self, item_id: str, values: str, *, first: int = 0, minute: int = 0, **rules: bool) -> Ingested:
        """`values`: "cat cat dog", of people who are numbered from `first` on; - is a skip."""
        rows = [
            f"{item_id},{value.strip('-')},p{first + place},2026-11-01T12:{minute:02d}:00Z,{str(value == '-').lower()}"
            for place, value in enumerate(values.split())
        ]
        file = Path(self.campaign.home.path).parent / "answers.csv"
        file.write_text("\n".join(["item_id,label,annotator,labelled_at,skipped", *rows, ""]))
        self.log: list[str] = []
        return take_in(self.campaign, file, log=self.log.append, **rules)

    def label(self, item_id: str) -> str | None:
        settle(self.campaign)
        return labelled_values(self.campaign.home).get(self.items[item_id])

    def state(self, item_id: str) -> str:
        ledger = read_ledger(self.campaign)
        return STATES[ledger.state_U[ledger.items.table(["item_id"])["item_id"].to_pylist().index(item_id)]]

    def num_votes(self, item_id: str) -> int:
        (found,) = (row for row in corrections.list_labels(self.campaign) if row["item_id"] == item_id)
        return int(found["num_votes"])


@pytest.fixture
def sent(make_campaign: MakeCampaign, pool: DemoPool) -> Sent:
    return Sent(make_campaign(), pool)


@pytest.mark.parametrize("label", ["dog", "cat"])
def test_a_label_that_was_set_stands_over_all_votes_also_where_it_confirms_them(sent: Sent, label: str) -> None:
    sent.vote(sent.aa, "cat cat cat")
    corrections.set_label(sent.campaign, sent.items[sent.aa], label, print, Author("eve", "I was there"))
    found = sent.vote(sent.aa, "owl owl owl owl owl owl owl owl owl", first=3)
    assert (found.new, found.replaced, found.votes) == (0, 0, 9)
    assert (sent.label(sent.aa), sent.state(sent.aa)) == (label, "settled")
    (row,) = (row for row in read_snapshot(sent.campaign.home).labels.to_pylist() if row["source"] == "correction")
    assert (row["annotator"], row["why"]) == ("eve", "I was there")
    # Said once more, it is written no more.
    names = read_snapshot(sent.campaign.home).files
    corrections.set_label(sent.campaign, sent.items[sent.aa], label, print)
    assert read_snapshot(sent.campaign.home).files == names
    # It is undone: the votes have it again.
    undoing.undo(sent.campaign, next(name for name in names if "-set-" in name).removeprefix("labels/"))
    assert sent.label(sent.aa) == "owl"


def test_a_label_that_confirms_the_votes_stands_over_those_to_come(tmp_path: Path) -> None:
    campaign = make_small(tmp_path / "campaign", handoff__annotators=1)
    export(campaign)
    item_id = batches(campaign.home, 0)[0].images()["item_id"][0].as_py()
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,label,annotator\n{item_id},cat,ann\n")
    take_in(campaign, file)
    # Image and label are what they are: only who says so is another.
    item = corrections.identity_of(campaign, [item_id])
    corrections.set_label(campaign, item, "cat", print)
    file.write_text("item_id,label,annotator\n" + "".join(f"{item_id},dog,p{n}\n" for n in range(9)))
    take_in(campaign, file)
    assert labelled_values(campaign.home)[item] == "cat"


def test_replace_overrides_a_correction_by_newer_votes_alone_and_says_so(sent: Sent) -> None:
    sent.vote(sent.aa, "cat cat cat")
    corrections.set_label(sent.campaign, sent.items[sent.aa], "dog", print)
    assert sent.vote(sent.aa, "cat cat cat", replace=True)[:4] == (0, 3, 0, 0)
    assert sent.label(sent.aa) == "dog"
    assert sent.vote(sent.aa, "cat cat cat", minute=1, replace=True).replaced == 1
    shard, key = sent.items[sent.aa]
    assert f"overrides 1 correction: {shard}/{key} was dog and is cat" in sent.log
    assert sent.label(sent.aa) == "cat"


def test_a_label_that_was_replaced_is_back_when_that_is_undone_also_after_later_votes(sent: Sent) -> None:
    corrections.set_label(sent.campaign, sent.items[sent.aa], "dog", print)
    sent.vote(sent.aa, "cat cat cat", replace=True)
    sent.vote(sent.aa, "owl owl owl owl owl owl owl", first=3)
    assert (sent.label(sent.aa), sent.state(sent.aa)) == ("owl", "settled")
    undoing.undo(sent.campaign, "000001-generic")
    assert (sent.label(sent.aa), sent.state(sent.aa)) == ("dog", "settled")
    # It stands, as it did.
    sent.vote(sent.aa, "emu emu emu emu emu emu emu emu", first=20)
    assert sent.label(sent.aa) == "dog"


def test_of_two_ingests_that_replace_a_label_the_other_still_does(sent: Sent) -> None:
    corrections.set_label(sent.campaign, sent.items[sent.aa], "dog", print)
    sent.vote(sent.aa, "cat cat cat", replace=True)
    sent.vote(sent.aa, "owl owl owl", minute=1, replace=True)
    undoing.undo(sent.campaign, "000001-generic")
    assert sent.label(sent.aa) == "owl"


def test_a_retracted_label_stays_away_until_that_is_undone(sent: Sent) -> None:
    sent.vote(sent.aa, "cat cat cat")
    corrections.retract(sent.campaign, sent.items[sent.aa], Author("eve", "blurred"))
    assert sent.vote(sent.aa, "cat cat cat cat", first=3).new == 0
    assert (sent.label(sent.aa), sent.state(sent.aa)) == (None, "retracted")
    (name,) = (name for name in read_snapshot(sent.campaign.home).files if "-retract-" in name)
    assert read_snapshot(sent.campaign.home).tables[name]["why"].to_pylist() == ["blurred"]
    undoing.undo(sent.campaign, name.removeprefix("labels/"))
    assert (sent.label(sent.aa), sent.state(sent.aa)) == ("cat", "settled")


def test_what_is_sent_after_its_label_was_taken_away_is_labelled_again(sent: Sent) -> None:
    sent.vote(sent.aa, "cat cat cat")
    corrections.retract(sent.campaign, sent.items[sent.aa])
    # At once: both in one second.
    hand_out(sent.campaign, {sent.aa: sent.items[sent.aa]}, number=1, annotators=3)
    assert sent.vote(sent.aa, "dog dog dog dog dog dog dog dog", first=3).new == 1
    assert (sent.label(sent.aa), sent.state(sent.aa)) == ("dog", "settled")


def test_a_label_that_is_taken_away_after_it_was_sent_stays_away_within_the_same_second(sent: Sent) -> None:
    for number in range(1, 4):
        corrections.set_label(sent.campaign, sent.items[sent.aa], "own", print)
        hand_out(sent.campaign, {sent.aa: sent.items[sent.aa]}, number=number, annotators=3)
        corrections.retract(sent.campaign, sent.items[sent.aa])
        assert sent.state(sent.aa) == "retracted"


def test_never_to_pick_is_kept_with_who_and_why_and_can_be_undone(sent: Sent) -> None:
    home, item = sent.campaign.home, sent.items[sent.aa]
    sent.vote(sent.aa, "cat cat cat")
    corrections.retract(sent.campaign, item, Author("eve", "private"), never_pick=True)
    assert never_picked(home) == {item}
    (row,) = read_decisions(home).to_pylist()
    assert (row["who"], row["why"]) == ("eve", "private")
    (name,) = (home / "decisions").children()
    assert undoing.undo(sent.campaign, name, Author("ann", "it is not")) == (name, 1)
    assert never_picked(home) == set()
    assert len(read_decisions(home)) == 2
    # Nothing is left to undo, and a label is not what was undone.
    with pytest.raises(InputError, match=r"no file .* of votes/, labels/ or decisions/ whose rows count"):
        undoing.undo(sent.campaign, name)
    assert sent.state(sent.aa) == "retracted"
    corrections.retract(sent.campaign, item, never_pick=True)
    assert never_picked(home) == {item}


def test_labels_know_from_how_many_answers_they_follow(sent: Sent) -> None:
    sent.vote(sent.aa, "cat cat - cat")
    sent.vote(sent.bb, "cat cat cat")
    assert (sent.num_votes(sent.aa), sent.num_votes(sent.bb)) == (3, 3)
    sent.vote(sent.bb, "dog", minute=1)
    assert sent.num_votes(sent.bb) == 3
    corrections.set_label(sent.campaign, sent.items[sent.bb], "owl", print)
    corrections.set_label(sent.campaign, sent.items[sent.cc], "owl", print)
    assert (sent.num_votes(sent.bb), sent.num_votes(sent.cc)) == (1, 1)
    sent.vote(sent.aa, "cat cat", first=4)
    undoing.undo(sent.campaign)
    settle(sent.campaign)
    assert sent.num_votes(sent.aa) == 3
