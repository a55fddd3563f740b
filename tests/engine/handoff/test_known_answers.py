"""A vendor's file that comes again changes nothing, whatever became of its labels since."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from engine.campaign import corrections, undoing
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values, labels_fingerprints, read_labels
from engine.campaign.votes import files_of_votes
from engine.config.toml import override
from engine.errors import InputError
from engine.handoff.ingest import Ingested
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in


class Sent:
    """A campaign whose images aa, bb and cc were handed out, and what its vendor and its owner do."""

    def __init__(self, campaign: Campaign, pool: DemoPool) -> None:
        self.campaign = campaign
        self.items = dict(
            zip(("aa", "bb", "cc"), sorted(set(pool.oracle) - set(labelled_values(campaign.home))), strict=False)
        )
        hand_out(campaign, self.items)
        self.log: list[str] = []

    def ingest(self, answers: str, *, replace: bool = False, classes: tuple[str, ...] = ()) -> Ingested:
        """`answers`: "aa=cat bb=dog"."""
        file = Path(self.campaign.home.path).parent / "answers.csv"
        file.write_text("item_id,label\n" + "".join(word.replace("=", ",") + "\n" for word in answers.split()))
        config = override(self.campaign.config, {"labels.classes": list(classes)}, "test")
        campaign = dataclasses.replace(self.campaign, config=config)
        return take_in(campaign, file, log=self.log.append, replace=replace)

    def set(self, item_id: str, label: str) -> None:
        corrections.set_label(self.campaign, self.items[item_id], label, print)

    def retract(self, item_id: str) -> None:
        corrections.retract(self.campaign, self.items[item_id])

    @property
    def labels(self) -> str:
        """What is labelled, as "aa=cat bb=dog"."""
        values = labelled_values(self.campaign.home)
        return " ".join(f"{name}={values[item]}" for name, item in self.items.items() if item in values)

    def changes_nothing(self, answers: str, *, replace: bool = False) -> Ingested:
        before = labels_fingerprints(self.campaign.home)
        found = self.ingest(answers, replace=replace)
        assert labels_fingerprints(self.campaign.home) == before
        return found


@pytest.fixture
def sent(make_campaign: MakeCampaign, pool: DemoPool) -> Sent:
    return Sent(make_campaign(), pool)


@pytest.mark.parametrize("replace", [False, True])
def test_corrected_and_retracted_labels_stay_when_the_file_comes_again(sent: Sent, replace: bool) -> None:
    sent.ingest("aa=wrong bb=wrong")
    sent.set("aa", "right")
    sent.retract("bb")
    found = sent.changes_nothing("aa=wrong bb=wrong", replace=replace)
    assert (found.new, found.replaced, found.repeated, found.corrected) == (0, 0, 2, 2)
    # The vendor's file grew.
    found = sent.ingest("aa=wrong bb=wrong cc=cat", replace=replace)
    assert (found.new, found.repeated, found.corrected) == (1, 2, 2)
    assert sent.labels == "aa=right cc=cat"
    assert sent.changes_nothing("aa=right", replace=replace)[:4] == (0, 1, 0, 0)
    assert not [line for line in sent.log if "overrides" in line]


def test_an_answer_that_was_replaced_is_known_and_replaces_again_only_when_asked(sent: Sent) -> None:
    sent.ingest("aa=one bb=one")
    sent.ingest("aa=two", replace=True)
    assert sent.changes_nothing("aa=one bb=one").corrected == 1
    assert sent.log[-1].startswith("1 answer replaced before, or older by its time")
    assert sent.log[-1].endswith("give --replace")
    assert sent.labels == "aa=two bb=one"
    assert sent.ingest("aa=one bb=one", replace=True)[:4] == (0, 1, 0, 1)
    assert sent.labels == "aa=one bb=one"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_files_with_a_time_and_answers_without_the_newest_counts(sent: Sent, order: tuple[int, ...]) -> None:
    """CVAT writes when it exported, and not when somebody answered: an answer may come back to what it was."""
    files = []
    for day, label in enumerate(("cat", "dog", "cat"), 20):
        tag = f'<image id="0" name="aa.png" width="8" height="8"><tag label="{label}"/></image>'
        meta = f"<meta><task><id>1</id></task><dumped>2026-11-{day} 10:00:06.000000+00:00</dumped></meta>"
        file = Path(sent.campaign.home.path).parent / f"{day}.xml"
        file.write_text(f"<annotations><version>1.1</version>{meta}{tag}</annotations>")
        files.append(file)
    for number in order:
        take_in(sent.campaign, files[number], "cvat")
    # What is not another answer is not kept again: after the third file, the second is taken for the newest.
    assert sent.labels == ("aa=dog" if order == (0, 2, 1) else "aa=cat")
    for file in files * 2:
        before = files_of_votes(sent.campaign.home)
        take_in(sent.campaign, file, "cvat")
    assert (sent.labels, files_of_votes(sent.campaign.home)) == ("aa=cat", before)


def test_an_answer_of_the_future_is_replaced_and_one_without_a_time_is_reported(sent: Sent) -> None:
    file = Path(sent.campaign.home.path).parent / "answers.csv"
    for row, replace in (("aa,cat,2999-01-01", False), ("aa,dog,", False), ("aa,dog,", True)):
        file.write_text(f"item_id,label,labelled_at,answer_id\n{row},1\n")
        take_in(sent.campaign, file, log=sent.log.append, replace=replace)
        if not replace and "dog" in row:
            assert sent.log[-1].startswith("1 answer replaced before, or older by its time, or without one")
            assert sent.labels == "aa=cat"
    assert sent.labels == "aa=dog"


@pytest.mark.parametrize(
    ("name", "other"), [("7", "7.0"), ("Jos\u00e9", "Jose\u0301"), ("Bob@x.org", "bob@x.org "), ("a\u00a0b", "a b")]
)
def test_a_person_is_one_however_the_name_is_written(sent: Sent, name: str, other: str) -> None:
    file = Path(sent.campaign.home.path).parent / "answers.csv"
    for who in (name, other):
        file.write_text(f"item_id,label,annotator\naa,cat,{who}\n")
        take_in(sent.campaign, file)
    assert len(files_of_votes(sent.campaign.home)) == 1


def test_what_replace_overrides_is_said_in_one_line(sent: Sent) -> None:
    sent.ingest("aa=wrong bb=wrong cc=wrong")
    sent.set("aa", "right")
    sent.retract("bb")
    with pytest.raises(InputError, match=r"'other' here but 'right' before; .* --replace"):
        sent.ingest("aa=other")
    assert sent.ingest("aa=other bb=other cc=other", replace=True)[:4] == (1, 0, 0, 2)
    (line,) = (line for line in sent.log if "overrides" in line)
    (a, b), (c, d) = sent.items["aa"], sent.items["bb"]
    assert line == f"overrides 2 corrections: {a}/{b} was right and is other, {c}/{d} was retracted and is other"


def test_the_first_answer_for_an_image_overrides_a_label_but_no_retraction(sent: Sent) -> None:
    """An image whose first label was retracted is picked as any other; one that is out can be labelled by hand."""
    for item_id in ("aa", "bb"):
        sent.set(item_id, "own")
    sent.retract("aa")
    assert sent.ingest("aa=cat bb=cat", replace=True)[:4] == (1, 0, 0, 1)
    shard, key = sent.items["bb"]
    assert f"overrides 1 correction: {shard}/{key} was own and is cat" in sent.log


def test_after_an_undo_the_file_gives_its_labels_again_but_no_decision_is_overridden(sent: Sent) -> None:
    sent.ingest("aa=cat bb=cat cc=cat")
    sent.set("aa", "dog")
    sent.retract("bb")
    undoing.undo(sent.campaign)
    assert sent.labels == "aa=dog"
    found = sent.ingest("aa=cat bb=cat cc=cat")
    assert (found.new, found.corrected, sent.labels) == (1, 2, "aa=dog cc=cat")
    # A correction that is taken back is none.
    names = [name.removeprefix("labels/") for name in labels_fingerprints(sent.campaign.home)]
    for kind in ("-set-", "-retract-"):
        undoing.undo(sent.campaign, next(name for name in names if kind in name))
    assert sent.labels == "cc=cat"
    assert sent.ingest("aa=cat bb=cat cc=cat").new == 2
    assert sent.labels == "aa=cat bb=cat cc=cat"


def test_a_file_that_contradicts_itself_is_refused_whatever_is_known(sent: Sent) -> None:
    sent.ingest("aa=one")
    for replace in (False, True):
        with pytest.raises(
            InputError, match=r"line 3: item_id 'aa' is 'two' here but 'one' before; keep the right one$"
        ):
            sent.ingest("aa=one aa=two", replace=replace)


def test_a_known_class_is_not_asked_for_again(sent: Sent) -> None:
    sent.ingest("aa=dgo bb=dog")
    sent.set("aa", "dog")
    before = read_labels(sent.campaign.home)
    assert sent.ingest("aa=dgo bb=dog", classes=("dog",)).repeated == 2
    with pytest.raises(InputError, match=r"'dgo' is not one of labels.classes"):
        sent.ingest("cc=dgo", classes=("dog",))
    assert read_labels(sent.campaign.home) == before


def test_ingest_replace_and_two_undos_lead_back(sent: Sent) -> None:
    sent.ingest("aa=one bb=one")
    sent.ingest("aa=two", replace=True)
    undoing.undo(sent.campaign)
    assert sent.labels == "aa=one bb=one"
    with pytest.raises(InputError, match=r"the last ingest, 000002-generic, is undone already; .* 000001-generic"):
        undoing.undo(sent.campaign)
    undoing.undo(sent.campaign, "000001-generic")
    assert sent.labels == ""


def test_a_label_from_before_an_undone_ingest_is_no_decision_on_it(sent: Sent) -> None:
    sent.set("aa", "own")
    for _ in range(2):
        assert sent.ingest("aa=cat", replace=True).replaced == 1
        undoing.undo(sent.campaign)
        assert sent.labels == "aa=own"
    with pytest.raises(InputError, match="'cat' here but 'own' before"):
        sent.ingest("aa=cat")
