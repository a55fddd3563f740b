"""What the page about answers says follows from the votes: each number against one that is counted by hand."""

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.decisions import USER
from engine.campaign.folder import Campaign
from engine.campaign.ledger import NO_REASON, STATES
from engine.campaign.opening import open_campaign
from engine.campaign.recalling import recall
from engine.campaign.votes import annotator_hash
from engine.config.toml import override
from engine.report import round_answers as of
from engine.report.answers_page import answers_page
from engine.report.crowd import annotators_of, concord_of
from engine.report.disputes import MOST_DISPUTED, MOST_NAMES, disputes_of
from engine.report.round_answers import RoundAnswers, read_round, value_text
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, take_in

SHARD = "digits-00001.tar"
SKIP = None
SAID: dict[str, dict[str, str | None]] = {
    "settled": {"ann": "1", "bob": "1", "cem": "1"},
    "majority": {"ann": "2", "bob": "2", "cem": "3"},
    "split": {"ann": "2", "bob": "3", "cem": "4"},
    "torn": {"ann": "2", "bob": "3", "cem": SKIP},
    "skipped": {"ann": SKIP, "bob": SKIP, "cem": "3"},
    "part": {"ann": "1"},
    "out": {},
}
"""What each annotator said of each image; all have three."""
SECONDS = {"ann": [1.0, 9.0, 2.0, 4.0, 3.0, 5.0], "bob": [7.0, 8.0]}


def options(campaign: Campaign, **values: Any) -> Campaign:
    """The campaign with other options."""
    names = {key.replace("__", "."): value for key, value in values.items()}
    return replace(campaign, config=override(campaign.config, names, "test"))


def answer(campaign: Campaign, said: dict[str, dict[str, str | None]], folder: Path, **rows: Any) -> None:
    """Ingest answers: what each annotator said of each image."""
    seconds = {who: iter(values) for who, values in rows.get("seconds", {}).items()}
    lines = []
    for item, by in said.items():
        for who, value in by.items():
            label = {"skipped": True, "reason": rows.get("reason", {}).get(item)} if value is None else {"label": value}
            row = {"item_id": item, "annotator": who, **label, "seconds": next(seconds.get(who, iter([])), None)}
            lines.append(json.dumps({name: value for name, value in row.items() if value is not None}))
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
    take_in(campaign, folder / "answers.jsonl")


@pytest.fixture
def answered(make_campaign: MakeCampaign, tmp_path: Path) -> RoundAnswers:
    """Seven images that three people were asked about, for 0.5 an answer."""
    campaign = options(make_campaign(), labels__consensus="majority", labels__min_posterior=0.7)
    images = {name: (SHARD, name) for name in SAID}
    hand_out(campaign, images, annotators=3, price=0.5)
    reasons = {"skipped": "blurred <b>"}
    answer(campaign, {name: by for name, by in SAID.items() if by}, tmp_path, seconds=SECONDS, reason=reasons)
    return read_round(campaign, 0)


def test_every_image_is_counted_in_one_state(answered: RoundAnswers) -> None:
    assert of.states(answered) == {"settled": 1, "disputed": 3, "skipped": 1, "answered in part": 1, "out": 1}
    assert of.headline(answered, 3) == {
        "images sent": 7, "answers that came": 16, "annotators": 3, "images settled": 1, "images disputed": 3,
        "images skipped": 1, "images still out": 2, "spent on these answers": "8.00",
    }  # fmt: skip


def test_batches_say_what_was_asked_and_what_it_costs(answered: RoundAnswers) -> None:
    (batch,) = of.batches(answered)
    shown = {
        name: batch[name] for name in ("vendor", "images", "gold", "annotators", "settled", "disputed_images", "out")
    }
    assert shown == {
        "vendor": "generic", "images": 7, "gold": 0, "annotators": 3, "settled": 1, "disputed_images": 3, "out": 2,
    }  # fmt: skip
    assert (batch["asked"], batch["came"]) == (21, 16)
    assert (batch["spent"], batch["reserved"]) == (Decimal("8.0"), Decimal("2.5"))


def test_agreement_is_that_of_pairs_of_answers(answered: RoundAnswers) -> None:
    found = concord_of(answered)
    assert found is not None
    values = [[value for value in by.values() if value] for by in SAID.values()]
    pairs = [pair for said in values for pair in combinations(said, 2)]
    assert (found.images, found.pairs, found.agreeing) == (4, len(pairs), sum(a == b for a, b in pairs))
    for row in found.values:
        of_class = [pair for pair in pairs if row.name in pair]
        both = sum(a == b for a, b in of_class)
        assert row.share == (both / len(of_class) if of_class else None)
        assert row.answers == sum(said.count(row.name) for said in values)
    assert [row.name for row in found.values] == ["3", "4", "2", "1"]
    against = Counter(tuple(sorted(pair)) for pair in pairs if len(set(pair)) > 1)
    assert {(row.first, row.second): row.pairs for row in found.confusions} == against
    assert (found.confusions[0].first, found.confusions[0].second, found.confusions[0].images) == ("2", "3", 3)
    # By hand, Krippendorff's 1 - Do / De: 11 values on images with two or more: 1 x 3, 2 x 4, 3 x 3, 4 x 1.
    observed = 2 * (0 + 2 / 2 + 3 / 2 + 1)
    expected = (11**2 - (3**2 + 4**2 + 3**2 + 1)) / 10
    assert found.alpha == pytest.approx(1 - observed / expected)


def test_annotators_have_their_answers_skips_and_seconds(answered: RoundAnswers) -> None:
    salt = answered.campaign.config.salt
    found = {row.name: row for row in annotators_of(answered)}
    ann, bob, cem = (found[annotator_hash(salt, "generic", name)[:8]] for name in ("ann", "bob", "cem"))
    assert [(row.answers, row.skipped, row.seconds) for row in (ann, bob, cem)] == [
        (5, 1, 3.5), (4, 1, 7.5), (4, 1, None),
    ]  # fmt: skip
    assert [row.gold for row in found.values()] == [None] * 3
    assert not any(row.is_low for row in found.values())


def test_skips_are_counted_by_reason(answered: RoundAnswers) -> None:
    assert of.skip_reasons(answered) == {"blurred <b>": 2, NO_REASON: 1}


def test_disputed_images_have_their_votes_the_least_certain_first(answered: RoundAnswers) -> None:
    found = disputes_of(answered)
    assert [dispute.row["item_id"] for dispute in found] == ["split", "torn", "majority"]
    assert [dispute.posterior for dispute in found] == pytest.approx([1 / 3, 1 / 2, 2 / 3])
    salt = answered.campaign.config.salt
    ann, bob, cem = (annotator_hash(salt, "generic", name)[:8] for name in ("ann", "bob", "cem"))
    assert found[2].said == [("2", 2, sorted([ann, bob])), ("3", 1, [cem])]
    assert found[1].said == [("", 1, [cem]), ("2", 1, [ann]), ("3", 1, [bob])]


def test_however_many_are_disputed_few_are_shown(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = options(make_campaign(), labels__consensus="majority")
    names = [f"i{number:03d}" for number in range(MOST_DISPUTED + 5)]
    hand_out(campaign, {name: (SHARD, name) for name in names}, annotators=20)
    by = {f"a{who:02d}": "x" if who < 10 else f"y{who}" for who in range(20)}
    answer(campaign, dict.fromkeys(names, by), tmp_path)  # type: ignore[arg-type]
    answers = read_round(campaign, 0)
    found = disputes_of(answers)
    assert len(found) == MOST_DISPUTED
    assert of.states(answers) == {"disputed": MOST_DISPUTED + 5}
    assert [(said.times, len(said.names)) for said in found[0].said] == [(10, MOST_NAMES)] + [(1, 1)] * 4
    assert found[0].num_more == 6


def test_labels_are_counted_by_class_and_new_ones_named(answered: RoundAnswers, tmp_path: Path) -> None:
    campaign = answered.campaign
    first = Counter((campaign.home / "labels/initial.parquet").read_table()["label"].to_pylist())
    answer(campaign, {"out": dict.fromkeys(("ann", "bob", "cem"), "brand new")}, tmp_path)
    answers = read_round(campaign, 0)
    assert set(of.label_counts(answers)) == {("1", 1, first["1"]), ("brand new", 1, 0)}
    assert of.new_classes(answers) == ["brand new"]


def test_a_round_shows_its_own_batches_alone(answered: RoundAnswers, tmp_path: Path) -> None:
    campaign = replace(answered.campaign, round=1)
    images = {name: (SHARD, name) for name in ("later", "torn")}
    hand_out(campaign, images, answered={"torn": 3}, annotators=3, price=0.25, disputed=True)
    answer(campaign, {"later": {"dan": "1"}, "torn": {"dan": "2", "eve": "2", "fay": "2"}}, tmp_path)
    before, now = (read_round(campaign, number) for number in (0, 1))
    assert [[batch["spent"] for batch in of.batches(answers)] for answers in (before, now)] == [
        [Decimal("8.0")], [Decimal("1.0")],
    ]  # fmt: skip
    # What more people were asked about is settled by all answers, whichever batch they came for.
    assert of.states(before) == {"settled": 2, "disputed": 2, "skipped": 1, "answered in part": 1, "out": 1}
    assert of.states(now) == {"settled": 1, "answered in part": 1}
    assert len(now.votes) == 7
    assert len(annotators_of(now)) == 6
    assert of.batches(now)[0]["disputed"]


def test_what_was_taken_back_is_counted_so(answered: RoundAnswers) -> None:
    assert recall(answered.campaign, (), USER, pick_again=False).images == 2
    answers = read_round(answered.campaign, 0)
    # Nobody waits for more than the one answer that came.
    assert of.states(answers) == {"settled": 2, "disputed": 3, "skipped": 1, "recalled": 1}
    assert of.batches(answers)[0]["rest"] == "1 recalled"
    assert of.batches(answers)[0]["reserved"] == 0


def test_several_classes_are_compared_as_they_are_and_shapes_are_not(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    several = options(make_campaign(), handoff__question={"task": "classes", "classes": ["a", "b"]})
    hand_out(several, {"x": (SHARD, "x"), "y": (SHARD, "y")}, annotators=2)
    said = {"x": {"ann": '["a", "b"]', "bob": '["b", "a"]'}, "y": {"ann": '["a"]', "bob": '["a", "b"]'}}
    answer(several, said, tmp_path)  # type: ignore[arg-type]
    answers = read_round(several, 0)
    found = concord_of(answers)
    assert found is not None
    assert (found.pairs, found.agreeing) == (2, 1)
    assert [(row.first, row.second) for row in found.confusions] == [("a, b", "a")]
    assert [row.name for row in of.label_counts(answers)][:2] == ["a", "b"]
    shapes = options(several, handoff__question={"task": "boxes"})
    assert concord_of(read_round(shapes, 0)) is None


@pytest.mark.parametrize(
    ("question", "label", "words"),
    [
        ({"task": "class"}, "1", "No image has answers of two annotators"),
        (
            {"task": "boxes"},
            '[{"label": "cat", "box": [1, 2, 3, 4]}]',
            "Answers are shapes (handoff.question.task=boxes)",
        ),
        ({"task": "classes", "classes": ["a", "b"]}, '["a", "b"]', "No image has answers of two annotators"),
    ],
)
def test_every_question_has_a_page(
    make_campaign: MakeCampaign, tmp_path: Path, question: dict[str, Any], label: str, words: str
) -> None:
    campaign = make_campaign()
    question = {"task": "class", "classes": [], "instructions": "", **question}
    (campaign.round_home / "overrides.json").write_json({"handoff.question": question})
    campaign = open_campaign(campaign.home.url)
    assert answers_page(campaign, lambda _: None) is None
    hand_out(campaign, {"x": (SHARD, "x"), "y": (SHARD, "y")})
    answer(campaign, {"x": {"ann": label}}, tmp_path)
    place = answers_page(campaign, lambda _: None)
    assert place is not None
    text = place.read_bytes().decode()
    assert words in text
    for title in ("Batches", "Annotators", "Disputed images", "Skipped", "Labels that came", "What it costs"):
        assert title in text


def test_every_state_has_a_look() -> None:
    assert set(of.LOOKS) == set(STATES)


def test_values_have_words() -> None:
    assert value_text('["b", "a"]', "classes") == "b, a"
    assert value_text("[]", "classes") == "(none)"
    assert value_text('["b", "a"]', "class") == '["b", "a"]'
    assert (
        value_text('[{"label": "cat", "box": [1, 2, 3, 4]}, {"label": "cat"}, {"label": "dog"}]', "boxes")
        == "2 × cat, dog"
    )
