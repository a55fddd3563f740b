"""Images by number are those that the batches and selections name, and their texts are read again from there."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign import settling
from engine.campaign.folder import Campaign
from engine.campaign.handed_out import IMAGES_SCHEMA, all_batches, are_out, picked_items
from engine.campaign.known_images import KNOWN_SCHEMA, read_sent
from engine.campaign.labels import append_labels, identities, labelled_values
from engine.campaign.ledger import Ledger, read_ledger
from engine.campaign.origins import origins_among, picked_origins
from engine.errors import InputError
from engine.tables.item_keys import ItemKeys
from tests.conftest import MakeCampaign
from tests.sendings import hand_out, pretend_selected, take_in
from tests.small import with_settings

A, B, C, D, E = ((f"s{number % 2}.tar", f"{number:06d}") for number in range(5))
NAMES = [f"{letter * 32}" for letter in "abcdef"]
GOLD = ["1" * 32, "2" * 32]


@pytest.fixture
def sent(make_campaign: MakeCampaign) -> Campaign:
    """Three batches of two rounds: an image is sent again, and one is gold in both rounds, by another name in each."""
    first = make_campaign()
    hand_out(first, dict(zip([NAMES[3], GOLD[0], NAMES[0]], [D, C, A], strict=True)), gold=(GOLD[0],))
    hand_out(first, {NAMES[1]: B, NAMES[0]: A}, number=1, vendor="coco", annotators=2, answered={NAMES[0]: 1})
    second = replace(first, round=1)
    hand_out(second, dict(zip([GOLD[1], NAMES[4]], [C, E], strict=True)), gold=(GOLD[1],), annotators=3)
    return second


def expected_rows(campaign: Campaign) -> list[dict[str, Any]]:
    """As tables say it: the picks, and then gold images under their names for vendors."""
    picks = picked_items(campaign.home, campaign.round + 1, with_released=True).to_pylist()
    rows = [{**row, "gold": False} for row in picks]
    for batch in all_batches(campaign.home, campaign.round + 1):
        more = {"round": batch.manifest["round"]}
        rows += [
            {name: (row | more)[name] for name in KNOWN_SCHEMA.names} for row in batch.rows().to_pylist() if row["gold"]
        ]
    return rows


def test_images_are_those_of_the_tables_and_are_read_again_in_any_order(sent: Campaign) -> None:
    images, expected = read_sent(sent).images, expected_rows(sent)
    assert [row["item_id"] for row in expected] == [NAMES[3], NAMES[0], NAMES[1], NAMES[4], *GOLD]
    assert images.table().to_pylist() == expected
    assert images.table().schema.equals(KNOWN_SCHEMA)
    rng = np.random.default_rng(0)
    for size in (0, 1, 4, 20):
        places = rng.integers(0, len(images), size)
        for columns in (["key", "gold"], ["round"], ["item_id", "shard", "content_hash"]):
            found = images.rows(places, columns)
            assert found.to_pylist() == [{name: expected[place][name] for name in columns} for place in places]
    assert images.round_U.tolist() == [row["round"] for row in expected]
    assert images.are_gold.tolist() == [row["gold"] for row in expected]


def test_images_are_found_by_their_names_and_by_their_items(sent: Campaign) -> None:
    images = read_sent(sent).images
    names = [*GOLD, *NAMES]
    there = [row["item_id"] for row in images.table().to_pylist()]
    assert images.places_of(pa.array(names)).tolist() == [there.index(n) if n in there else -1 for n in names]
    picked = identities(images.table())[: images.num_picked]
    assert images.picks_of(ItemKeys.of_items([A, B, C, D, E])).tolist() == [
        picked.index(item) if item in picked else -1 for item in (A, B, C, D, E)
    ]
    for some in ([], [C], [A, C], [B, E, ("s", "x")]):
        assert images.are_in(ItemKeys.of_items(some)).tolist() == [item in some for item in identities(images.table())]


def test_rows_are_those_of_the_batches(sent: Campaign) -> None:
    found, batches = read_sent(sent), all_batches(sent.home, sent.round + 1)
    rows = pa.concat_tables([batch.rows() for batch in batches])
    ledger = read_ledger(sent)
    assert ledger.rows(IMAGES_SCHEMA.names).equals(rows)
    mask = np.array([row["key"] in {A[1], C[1]} for row in rows.to_pylist()])
    assert ledger.rows(["key", "sha256"], mask).equals(rows.filter(pa.array(mask)).select(["key", "sha256"]))
    assert found.images.rows(found.item_R, ["item_id"])["item_id"].to_pylist() == rows["item_id"].to_pylist()
    assert found.gold_R.tolist() == rows["gold"].to_pylist()
    assert np.asarray(found.answered_R).tolist() == [count or 0 for count in rows["answered"].to_pylist()]
    assert found.batch_of_each().tolist() == found.batches_of(np.arange(len(rows))).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert [found.asked(number) for number in range(3)] == [1, 2, 3]


def test_of_an_earlier_round_the_rows_of_later_ones_are_left_out(sent: Campaign) -> None:
    earlier = replace(sent, round=0)
    found = read_sent(earlier)
    assert len(found.batches) == 2
    assert [row["item_id"] for row in found.images.table().to_pylist()] == [NAMES[3], NAMES[0], NAMES[1], GOLD[0]]


def test_outcomes_are_of_the_images_that_votes_name(sent: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text(f"item_id,label\n{NAMES[1]},cat\n{NAMES[3]},dog\n{GOLD[0]},cat\n{NAMES[0]},cat\n")
    take_in(sent, file)
    ledger = read_ledger(sent)
    outcomes, names = ledger.outcomes, ledger.items.table()["item_id"]
    said = zip(names.take(pa.array(outcomes.item_V)).to_pylist(), outcomes.votes["value"].to_pylist(), strict=True)
    assert set(said) == {(NAMES[1], "cat"), (NAMES[3], "dog"), (GOLD[0], "cat"), (NAMES[0], "cat")}
    assert outcomes.num_votes.tolist() == [1, 1, 1, 0, 1, 0]
    every = np.arange(len(names))
    assert outcomes.labels_at(every).to_pylist() == ["dog", "cat", "cat", None, "cat", None]
    assert np.isnan(outcomes.posteriors_at(every)).tolist() == [False, False, False, True, False, True]
    assert outcomes.numbers_of(every).tolist() == [0, 1, 2, -1, 3, -1]


def test_what_is_out_is_what_was_sent(sent: Campaign) -> None:
    for before in range(3):
        out = {
            row["item_id"]
            for batch in all_batches(sent.home, before)
            for row in batch.rows().to_pylist()
            if not row["gold"]
        }
        names = [*NAMES, *GOLD]
        found = are_out(sent.home, before, pa.chunked_array([pa.array(names)]))
        assert found.tolist() == [name in out for name in names]


def test_origins_of_few_are_those_of_all(sent: Campaign) -> None:
    everything = picked_origins(sent.home, [0, 1])
    assert set(everything) == {A, B, D, E}
    asked = [C, A, A, E]
    assert origins_among(sent.home, [0, 1], ItemKeys.of_items(asked)).to_pylist() == list(map(everything.get, asked))


def test_what_an_ingest_knows_at_its_end_is_what_is_read_again(sent: Campaign, tmp_path: Path) -> None:
    sent, ended = with_settings(sent, labels__min_posterior=0.6), list[Ledger]()
    for number, lines in enumerate(
        ([f"{NAMES[1]},cat,x", f"{NAMES[4]},dog,x"], [f"{NAMES[1]},dog,y", f"{NAMES[3]},cat,y", f"{GOLD[0]},cat,y"])
    ):
        file = tmp_path / f"{number}.csv"
        file.write_text("\n".join(["item_id,label,annotator", *lines]) + "\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settling, "share", lambda _, ledger: ended.append(ledger))
            take_in(sent, file)
        again = read_ledger(sent)
        for name in ("state_R", "paid_R", "state_U", "by_votes_U", "stands_U", "word_votes_U", "came_U", "labelled_U"):
            assert getattr(ended[-1], name).tolist() == getattr(again, name).tolist(), name


def test_a_selection_that_is_made_again_meanwhile_is_an_error_that_names_it(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    pretend_selected(campaign, [A, B])
    images = read_sent(campaign).images
    assert identities(images.table()) == [A, B]
    pretend_selected(campaign, [B, D])
    with pytest.raises(InputError, match=r"selection\.parquet: made again while it was read; run the command again"):
        images.table()
    assert identities(read_sent(campaign).images.table()) == [B, D]


def test_what_replaces_a_label_does_so_under_all_names_of_its_image(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    campaign = make_campaign()
    hand_out(campaign, {NAMES[0]: A, NAMES[1]: A, NAMES[2]: B})
    append_labels(campaign.home, "set", [(*item, "dog", 0, "person", None, datetime.now(UTC)) for item in (A, B)])
    file = tmp_path / "answers.csv"
    file.write_text("item_id,label\n" + "".join(f"{name},cat\n" for name in NAMES[:3]))
    found = take_in(campaign, file, replace=True)
    assert (found.votes, found.replaced) == (3, 2)
    assert labelled_values(campaign.home) | {A: "cat", B: "cat"} == labelled_values(campaign.home)
