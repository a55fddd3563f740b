"""Votes are kept for ever: what they come to depends on the newest versions alone, not on how these came."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.ledger import STATES, read_ledger
from engine.campaign.settling import settle
from engine.campaign.votes import files_of_votes, newest_versions, read_votes
from engine.handoff.ingest import Ingested
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in
from tests.small import with_settings

ITEMS = {name: ("digits-00001.tar", f"k{number}") for number, name in enumerate(("aa", "bb", "cc", "dd"))}
BEGIN = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Said(NamedTuple):
    """A version of an answer: minute is its time, value None a skip."""

    item: str
    person: str
    minute: int
    value: str | None

    @property
    def row(self) -> dict[str, Any]:
        at = (BEGIN + timedelta(minutes=self.minute)).isoformat()
        facts = {"skipped": True, "reason": "blurred"} if self.value is None else {"label": self.value}
        return {"item_id": self.item, "annotator": self.person, "labelled_at": at, **facts}


def ingest(
    campaign: Campaign, said: list[Said] | list[dict[str, Any]], *, named: bool = False, **more: Any
) -> Ingested:
    """`named`: the vendor names its answers."""
    rows = [version.row if isinstance(version, Said) else version for version in said]
    if named:
        rows = [{**row, "answer_id": f"{row['item_id']}-{row['annotator']}"} for row in rows]
    file = Path(campaign.home.path).parent / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return take_in(campaign, file, **more)


def come_to(campaign: Campaign) -> dict[str, Any]:
    """What the votes come to: labels, states, counts, probabilities and the newest file of consensus."""
    ledger, values = read_ledger(campaign), labelled_values(campaign.home)
    names = sorted((campaign.home / "consensus").children())
    table = (campaign.home / f"consensus/{names[-1]}").read_table().replace_schema_metadata()
    outcomes = ledger.outcomes
    return {
        "labels": {name: values.get(item) for name, item in ITEMS.items()},
        "states": [STATES[state] for state in ledger.state_U],
        "counts": [outcomes.values_K.tolist(), outcomes.skips_K.tolist()],
        "posterior": repr(outcomes.posterior_K.tolist()),
        "consensus": table.to_pylist(),
        "annotators": repr(outcomes.annotators.to_pylist()),
    }


@pytest.fixture
def three(make_campaign: MakeCampaign) -> Campaign:
    """Four images, about each of which three people are asked."""
    campaign = make_campaign()
    hand_out(campaign, ITEMS, annotators=3)
    return campaign


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Said], list[list[Said]]]:
    """All versions of some answers, and files that hold them: in parts, in any order, repeated."""
    whose = st.tuples(st.sampled_from(sorted(ITEMS)), st.sampled_from(["ann", "bob", "cy"]))
    values = st.lists(st.sampled_from(["cat", "dog", None]), min_size=1, max_size=4)
    said = draw(st.dictionaries(whose, values, min_size=1, max_size=12))
    versions = [Said(*key, minute, value) for key, found in said.items() for minute, value in enumerate(found)]
    number = st.integers(0, 3)
    files = [[version for version in versions if draw(number) == 0] for _ in range(2)]
    parts: dict[int, list[Said]] = {}
    for version in draw(st.permutations(versions)):
        parts.setdefault(draw(number), []).append(version)
    order = draw(st.permutations([file for file in [*files, *parts.values()] if file]))
    return versions, order


@pytest.mark.heavy
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), named=st.booleans())
def test_what_votes_come_to_does_not_depend_on_how_they_came(
    three: Campaign, history: tuple[list[Said], list[list[Said]]], named: bool
) -> None:
    versions, files = history
    home = Path(three.home.path)
    untouched = home.parent / "untouched"
    if not untouched.exists():
        shutil.copytree(home, untouched)

    def again() -> None:
        shutil.rmtree(home)
        shutil.copytree(untouched, home)

    again()
    newest = {(said.item, said.person): said for said in versions}
    ingest(three, list(newest.values()), named=named)
    expected = come_to(three)
    again()
    kept: dict[str, bytes] = {}
    for file in files:
        ingest(three, file, named=named)
        there = {path.name: path.read_bytes() for path in (home / "votes").glob("*.parquet")}
        assert kept.items() <= there.items()
        kept = there
    assert come_to(three) == expected
    # All of it once more, in one file.
    before = read_votes(three.home)
    found = ingest(three, versions, named=named)
    assert (found.votes, found.versions, found.repeated) == (0, 0, len(versions))
    assert read_votes(three.home) == before
    assert come_to(three) == expected


def test_an_answer_that_comes_back_to_what_it_was_counts(three: Campaign) -> None:
    there, back, again = (Said("aa", "ann", minute, value) for minute, value in enumerate(("cat", "dog", "cat")))
    for files in ([[there], [back], [again]], [[again], [there], [back]], [[there, back, again]]):
        shutil.rmtree(Path(three.home.path, "votes"), ignore_errors=True)
        for file in files:
            ingest(three, file)
        assert newest_versions(read_votes(three.home))["value"].to_pylist() == ["cat"]


def test_of_snapshots_without_times_the_newest_counts_and_an_older_one_changes_nothing(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = make_campaign()
    hand_out(campaign, ITEMS, vendor="imagefolder")

    def export(name: str, **classes: str) -> Path:
        for item_id, label in classes.items():
            file = tmp_path / name / label / f"{item_id}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\x89PNG\r\n\x1a\n")
        return tmp_path / name

    def labels() -> list[str | None]:
        values = labelled_values(campaign.home)
        return [values.get(item) for item in ITEMS.values()]

    old, new = export("old", aa="cat", bb="cat"), export("new", aa="dog", bb="cat", cc="dog")
    take_in(campaign, old, "imagefolder")
    lines: list[str] = []
    found = take_in(campaign, new, "imagefolder", log=lines.append)
    assert (found.new, found.replaced, found.versions) == (1, 1, 1)
    assert "1 answer replaced by newer versions" in lines
    assert labels() == ["dog", "cat", "dog", None]
    found = take_in(campaign, old, "imagefolder")
    assert (found.new, found.replaced, found.votes, found.corrected) == (0, 0, 0, 1)
    assert labels() == ["dog", "cat", "dog", None]


def test_two_answers_of_one_name_for_two_images_are_two(three: Campaign) -> None:
    """Two servers, or two projects, both begin to count at 1."""
    rows = [{"item_id": name, "label": "cat", "annotator": "ann", "answer_id": "1"} for name in ("aa", "bb")]
    assert ingest(three, rows[:1]).votes == ingest(three, rows[1:]).votes == 1
    assert read_ledger(three).outcomes.num_votes.tolist() == [1, 1, 0, 0]


def test_more_votes_than_were_asked_for_are_votes_and_late_ones_may_flip_a_label(three: Campaign) -> None:
    def label() -> str | None:
        return labelled_values(three.home).get(ITEMS["aa"])

    ingest(three, [Said("aa", "p0", 0, "cat"), Said("aa", "p1", 0, "cat")])
    assert (label(), come_to(three)["states"][0]) == (None, "answered in part")
    assert ingest(three, [Said("aa", "p2", 0, "dog")]).new == 1
    assert (label(), come_to(three)["states"][0]) == ("cat", "settled")
    assert ingest(three, [Said("aa", f"p{number}", 0, "dog") for number in range(3, 9)]).replaced == 1
    assert (label(), come_to(three)["counts"][0][0]) == ("dog", 9)


def test_disputed_images_have_no_label_until_more_people_were_asked(three: Campaign) -> None:
    votes = ["cat", "dog", "owl"]
    ingest(three, [Said("aa", f"p{number}", 0, value) for number, value in enumerate(votes)])
    assert ITEMS["aa"] not in labelled_values(three.home)
    assert come_to(three)["states"][0] == "disputed"
    hand_out(three, {"aa": ITEMS["aa"]}, number=1, answered={"aa": 3}, annotators=3, disputed=True)
    found = ingest(three, [Said("aa", "p3", 0, "cat"), Said("aa", "p4", 0, "cat")])
    assert (found.new, come_to(three)["states"][0]) == (0, "answered in part")
    assert ingest(three, [Said("aa", "p5", 0, "cat")]).new == 1
    assert come_to(three)["states"][0] == "settled"
    assert labelled_values(three.home)[ITEMS["aa"]] == "cat"


def test_a_task_that_one_person_did_twice_has_asked_one_person(three: Campaign) -> None:
    """Tasks that were imported twice have two answers of one person, each with its name."""

    def twice(person: str, *values: str) -> None:
        rows = [Said("aa", person, minute, value).row for minute, value in enumerate(values)]
        ingest(three, [{**row, "answer_id": f"{person}-{number}"} for number, row in enumerate(rows)])

    twice("ann", "cat", "dog", "dog")
    assert come_to(three)["states"][0] == "answered in part"
    for person in ("bob", "cy"):
        twice(person, "dog")
    # The newest answer of each person counts.
    assert come_to(three)["states"][0] == "settled"
    assert labelled_values(three.home)[ITEMS["aa"]] == "dog"


def test_who_is_asked_again_about_a_disputed_image_has_answered_again(three: Campaign) -> None:
    """A team of three has no others to ask: their second answers are those that were asked for, and their opinions."""
    people = ("ann", "bob", "cy")
    for number, values in enumerate((("cat", "dog", "owl"), ("owl", "owl", "owl"))):
        rows = [Said("aa", who, number, value).row for who, value in zip(people, values, strict=True)]
        ingest(three, [{**row, "answer_id": f"{row['annotator']}-{number}"} for row in rows])
        if not number:
            assert come_to(three)["states"][0] == "disputed"
            hand_out(three, {"aa": ITEMS["aa"]}, number=1, answered={"aa": 3}, annotators=3, disputed=True)
    assert (come_to(three)["states"][0], labelled_values(three.home)[ITEMS["aa"]]) == ("settled", "owl")


@pytest.mark.parametrize(("task", "label"), [("classes", '["cat"]'), ("boxes", "cat"), ("mask", "cat")])
def test_answers_to_a_question_of_another_kind_are_kept_and_decide_nothing_wrong(
    three: Campaign, task: str, label: str
) -> None:
    ingest(three, [Said("aa", person, 0, "cat") for person in ("ann", "bob", "cy")])
    ingest(three, [Said("bb", "ann", 0, "cat")])
    other = with_settings(three, handoff__question__task=task)
    settle(other)
    # One class is an answer to a question for several; it is none to one for shapes, and the label stays as it was.
    assert labelled_values(other.home)[ITEMS["aa"]] == label
    assert read_ledger(other).came_U.tolist() == [3, 1, 0, 0]


def test_a_final_answer_is_all_that_its_vendor_was_asked_for_before_it_came(three: Campaign) -> None:
    """Also when more people are asked, and then a vendor's newer answer replaces its first one."""
    final = {"item_id": "aa", "label": "cat", "labelled_at": BEGIN.isoformat()}
    ingest(three, [final, Said("aa", "p0", 0, "dog")])
    assert come_to(three)["states"][0] == "disputed"
    hand_out(three, {"aa": ITEMS["aa"]}, number=1, answered={"aa": 4}, annotators=3, disputed=True)
    assert come_to(three)["states"][0] == "answered in part"
    ingest(three, [{**final, "label": "dog", "labelled_at": (BEGIN + timedelta(days=1)).isoformat()}])
    assert come_to(three)["states"][0] == "settled"
    assert labelled_values(three.home)[ITEMS["aa"]] == "dog"


def test_a_final_answer_says_nothing_of_what_another_vendor_was_asked_since(three: Campaign) -> None:
    final = {"item_id": "aa", "label": "cat", "labelled_at": BEGIN.isoformat()}
    ingest(three, [final, Said("aa", "p0", 0, "dog")])
    hand_out(three, {"aa": ITEMS["aa"]}, vendor="scale", answered={"aa": 4}, annotators=3, disputed=True)
    ingest(three, [{**final, "label": "dog", "labelled_at": (BEGIN + timedelta(days=1)).isoformat()}])
    assert come_to(three)["states"][0] == "answered in part"


def test_what_most_people_skip_is_settled_without_a_label(three: Campaign) -> None:
    said = [Said("aa", "ann", 0, None), Said("aa", "bob", 0, None), Said("aa", "cy", 0, "cat")]
    found = ingest(three, said)
    assert (found.skipped, found.out, found.new) == (2, 3, 0)
    assert come_to(three)["states"][0] == "skipped"
    assert set(read_votes(three.home)["reason"].to_pylist()) == {"blurred", None}
    # One of them looks again.
    assert ingest(three, [Said("aa", "ann", 1, "cat")]).new == 1


def test_of_shapes_the_newest_answer_counts_whenever_it_came(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("handoff.question.task=boxes")
    hand_out(campaign, ITEMS)
    boxes = [json.dumps([{"label": name, "box": [0, 0, 1, 1]}]) for name in ("old", "new")]
    late, early = (Said("aa", person, minute, box) for person, minute, box in (("a", 9, boxes[1]), ("b", 1, boxes[0])))
    ingest(campaign, [late])
    ingest(campaign, [early])
    assert json.loads(labelled_values(campaign.home)[ITEMS["aa"]])[0]["label"] == "new"
    # The earlier answer is the newest version of the last that came.
    ingest(campaign, [early._replace(minute=10)])
    assert json.loads(labelled_values(campaign.home)[ITEMS["aa"]])[0]["label"] == "old"


def test_the_same_votes_and_options_write_no_further_table(three: Campaign) -> None:
    ingest(three, [Said("aa", "ann", 0, "cat")])
    folder = three.home / "consensus"
    assert list(folder.children()) == ["000001.parquet"]
    ingest(three, [Said("aa", "ann", 0, "cat")])
    assert list(folder.children()) == ["000001.parquet"]
    first = (folder / "000001.parquet").read_bytes()
    ingest(three, [Said("aa", "bob", 0, "dog")])
    assert list(folder.children()) == ["000001.parquet", "000002.parquet"]
    assert (folder / "000001.parquet").read_bytes() == first
    assert files_of_votes(three.home) == ["000001-generic.parquet", "000002-generic.parquet"]
    table: pa.Table = (folder / "000002.parquet").read_table()
    assert table.schema.metadata[b"ingests"].split() == [b"000001-generic", b"000002-generic"]
    assert (table.schema.metadata[b"method"], table.schema.metadata[b"min_posterior"]) == (b"one_coin", b"0.6")
