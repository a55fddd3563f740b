"""Agreement and annotators on the page about answers, against plain counts."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from engine.campaign.votes import annotator_hash
from engine.report import round_answers as of
from engine.report.crowd import alpha_in_words, annotators_of, concord_of
from engine.report.round_answers import read_round
from tests.conftest import MakeCampaign
from tests.engine.report.test_answer_facts import SHARD, answer
from tests.sendings import hand_out
from vaal.proportions import wilson


def test_confusions_are_those_of_a_plain_count(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign, rng = make_campaign(), np.random.default_rng(0)
    names = [f"i{number}" for number in range(40)]
    hand_out(campaign, {name: (SHARD, name) for name in names}, annotators=6)
    said = {name: {f"a{who}": str(rng.integers(4)) for who in range(6)} for name in names}
    answer(campaign, said, tmp_path)  # type: ignore[arg-type]
    found = concord_of(read_round(campaign, 0))
    assert found is not None
    pairs = [tuple(sorted(pair)) for by in said.values() for pair in combinations(by.values(), 2)]
    expected = Counter(pair for pair in pairs if pair[0] != pair[1])
    assert {(row.first, row.second): row.pairs for row in found.confusions} == expected
    assert [row.pairs for row in found.confusions] == sorted(expected.values(), reverse=True)
    for row in found.confusions:
        assert row.images == sum({row.first, row.second} <= set(by.values()) for by in said.values())


@pytest.mark.parametrize(("hits", "is_flagged"), [(9, True), (16, False)])
def test_who_is_right_on_gold_less_than_the_others_is_flagged(
    make_campaign: MakeCampaign, tmp_path: Path, hits: int, is_flagged: bool
) -> None:
    campaign = make_campaign()
    labels = (campaign.home / "labels/initial.parquet").read_table().to_pylist()[:20]
    gold = {f"g{number}": (row["shard"], row["key"]) for number, row in enumerate(labels)}
    truth = {f"g{number}": row["label"] for number, row in enumerate(labels)}
    hand_out(campaign, {**gold, "a": (SHARD, "a")}, annotators=3, gold=tuple(gold))
    right = {"ann": 20, "bob": 20, "cem": hits}
    said: dict[str, dict[str, str | None]] = {
        name: {who: truth[name] if place < count else "other" for who, count in right.items()}
        for place, name in enumerate(gold)
    }
    answer(campaign, {**said, "a": {"ann": "1"}}, tmp_path)
    found = {row.name: row for row in annotators_of(read_round(campaign, 0))}
    cem = found.pop(annotator_hash(campaign.config.salt, "generic", "cem")[:8])
    # 16 of 20 is less than the lower end of 40 of 40; but it may be chance: its interval reaches higher.
    assert cem.is_low == is_flagged
    assert cem.gold is not None
    assert [round(20 * row.gold.value) for row in [cem, *found.values()] if row.gold] == [hits, 20, 20]
    assert not any(row.is_low for row in found.values())
    assert cem.gold.value < wilson(40, 40).low
    # Gold images are answered, and are no images that were sent to be labelled.
    assert of.states(read_round(campaign, 0)) == {"answered in part": 1}


def test_answers_that_nothing_can_be_compared_with_have_no_accuracy(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = make_campaign()
    hand_out(campaign, {name: (SHARD, name) for name in "abc"}, annotators=2)
    answer(campaign, {"a": {"ann": "1"}, "b": {"ann": "2"}, "c": {"ann": "3", "bob": None}}, tmp_path)
    assert [row.accuracy for row in annotators_of(read_round(campaign, 0))] == [None, None]
    answer(campaign, {"b": {"bob": "2"}}, tmp_path)
    assert all(row.accuracy for row in annotators_of(read_round(campaign, 0)))


def test_a_vendors_final_answers_are_of_nobody(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = make_campaign()
    hand_out(campaign, {"x": (SHARD, "x")}, annotators=2)
    answer(campaign, {"x": {"ann": "1", "bob": "1", "": "2"}}, tmp_path)
    answers = read_round(campaign, 0)
    found = concord_of(answers)
    assert found is not None
    assert (found.pairs, found.agreeing) == (1, 1)
    assert sorted((row.name != "", row.answers) for row in annotators_of(answers)) == [(False, 1), (True, 1), (True, 1)]


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (0.8, "can be relied on"),
        (0.7, "with care"),
        (0.3, "cannot be relied on"),
        (-0.2, "random"),
        (float("nan"), "one class"),
    ],
)
def test_alpha_has_words(alpha: float, words: str) -> None:
    assert words in alpha_in_words(alpha)
