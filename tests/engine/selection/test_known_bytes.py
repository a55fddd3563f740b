"""What is known is found by its bytes, and what was picked before is what the campaign's records say."""

import hashlib

import pyarrow as pa

from engine.campaign.freshness import digest_of_names
from engine.campaign.handed_out import picked_items
from engine.campaign.labels import POSITIONS_SCHEMA
from engine.campaign.packed_positions import as_packed, as_texts
from engine.campaign.positions import all_positions, positions_with
from engine.selection.known_bytes import KnownImages, known_images
from engine.selection.picked_before import picked_before
from tests.conftest import MakeCampaign
from tests.sendings import hand_out


def test_those_with_the_bytes_asked_for_in_their_order(make_campaign: MakeCampaign) -> None:
    home = make_campaign().home
    labelled = all_positions(home).to_pylist()
    twice = {**labelled[3], "shard": "another.tar"}
    others = [twice, {**labelled[5], "content_hash": None}, labelled[0], {**labelled[1], "content_hash": "f" * 32}]
    known = known_images(home, pa.Table.from_pylist(others, POSITIONS_SCHEMA))
    # One that is labelled, with the same bytes, is there once; what has no hash is not known by its bytes.
    assert len(known) == len(labelled) + 2
    asked = pa.chunked_array([[labelled[3]["content_hash"], "0" * 32], ["f" * 32]])
    assert known.like(asked).to_pylist() == [labelled[3], twice, {**labelled[1], "content_hash": "f" * 32}]
    assert not len(KnownImages().like(asked))


def test_positions_come_in_the_order_of_the_items(make_campaign: MakeCampaign) -> None:
    home = make_campaign().home
    table = all_positions(home)
    items = table.select(["shard", "key"]).take(pa.array(range(len(table) - 1, -1, -1)))
    gone = pa.table({"shard": ["gone.tar"], "key": ["0"]})
    asked = pa.concat_tables([gone, items.cast(gone.schema)])
    assert positions_with(home, asked).to_pylist() == table.to_pylist()[::-1]
    assert as_texts(as_packed(table)).equals(table)


def test_what_was_picked_before_is_each_image_once_and_its_digest_that_of_the_names(
    make_campaign: MakeCampaign,
) -> None:
    campaign = make_campaign()
    items = [tuple(row.values()) for row in all_positions(campaign.home).select(["shard", "key"]).to_pylist()[:4]]
    names = [f"{number:032x}" for number in (9, 7, 8, 3)]
    hand_out(campaign, dict(zip(names, items, strict=True)))
    hand_out(campaign, dict(zip(names[:2], items[:2], strict=True)), number=1)
    found, expected = picked_before(campaign.home, 1), picked_items(campaign.home, 1)
    assert as_texts(found.rows).to_pylist() == expected.select(POSITIONS_SCHEMA.names).to_pylist()
    assert len(expected) == 4
    assert found.digest == digest_of_names(picked_items(campaign.home, 1, columns=["item_id"])["item_id"])
    assert found.digest == hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def test_an_item_with_two_names_is_one_row_and_both_names(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    hand_out(campaign, {"a" * 32: ("digits-00001.tar", "k"), "b" * 32: ("digits-00001.tar", "k")})
    hand_out(campaign, {"c" * 32: ("a shard that left.tar", "k")}, number=1)
    found = picked_before(campaign.home, 1)
    assert as_texts(found.rows)["shard"].to_pylist() == ["digits-00001.tar", "a shard that left.tar"]
    assert found.digest == digest_of_names(picked_items(campaign.home, 1, columns=["item_id"])["item_id"])
