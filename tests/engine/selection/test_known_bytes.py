"""What is known is found by its bytes, and what was picked before is what the campaign's records say."""

import hashlib

import pyarrow as pa
import pytest

from engine.campaign.freshness import digest_of_picks
from engine.campaign.handed_out import picked_items
from engine.campaign.labels import POSITIONS_SCHEMA
from engine.campaign.packed_positions import PACKED_SCHEMA, as_packed, as_texts
from engine.campaign.positions import all_positions, positions_with
from engine.errors import InputError
from engine.selection.known_bytes import KnownImages, known_images
from engine.selection.picked_before import picked_before
from engine.tables.digests import DIGEST
from tests.conftest import MakeCampaign
from tests.sendings import hand_out


def test_those_with_the_bytes_asked_for_in_their_order(make_campaign: MakeCampaign) -> None:
    labelled = all_positions(make_campaign().home)
    rows = labelled.to_pylist()
    twice = {**rows[3], "shard": "another.tar"}
    others = [twice, {**rows[5], "content_hash": None}, rows[0], {**rows[1], "content_hash": "f" * 32}]
    picked = [{**rows[0], "shard": "picked.tar", "content_hash": "e" * 32}]
    tables = [as_packed(pa.Table.from_pylist(some, POSITIONS_SCHEMA)) for some in (picked, others)]
    known = known_images(as_packed(labelled), *tables)
    # One that is labelled, with the same bytes, is there once; what has no hash is not known by its bytes.
    assert len(known) == len(rows) + 3
    asked = pa.chunked_array([[rows[3]["content_hash"], "0" * 32], ["f" * 32, "e" * 32]])
    assert known.like(asked).to_pylist() == [rows[3], *picked, twice, {**rows[1], "content_hash": "f" * 32}]
    assert not len(KnownImages().like(asked))


def test_positions_come_in_the_order_of_the_items(make_campaign: MakeCampaign) -> None:
    home = make_campaign().home
    table = all_positions(home)
    items = table.select(["shard", "key"]).take(pa.array(range(len(table) - 1, -1, -1)))
    gone = pa.table({"shard": ["gone.tar"], "key": ["0"]})
    asked = pa.concat_tables([gone, items.cast(gone.schema)])
    assert positions_with(home, asked).to_pylist() == table.to_pylist()[::-1]
    more = table.append_column("label", pa.array(map(str, range(len(table)))))
    assert as_texts(as_packed(more)).equals(more)


def test_what_was_picked_before_is_each_image_once_and_its_digest_that_of_the_names(
    make_campaign: MakeCampaign,
) -> None:
    campaign = make_campaign()
    items = [tuple(row.values()) for row in all_positions(campaign.home).select(["shard", "key"]).to_pylist()[:4]]
    names = [f"{number:032x}" for number in (9, 7, 8, 3)]
    hand_out(campaign, dict(zip(names, items, strict=True)))
    hand_out(campaign, dict(zip(names[:2], items[:2], strict=True)), number=1)
    found, expected = picked_before(campaign.home, 1, PACKED_SCHEMA.empty_table()), picked_items(campaign.home, 1)
    assert as_texts(found.rows).to_pylist() == expected.select(POSITIONS_SCHEMA.names).to_pylist()
    assert found.num_images == len(expected) == 4
    assert found.digest == digest_of_picks(campaign.home, 1)
    assert found.digest == hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def test_a_pick_that_is_labelled_is_a_row_where_its_bytes_were_others_the_first_time(
    make_campaign: MakeCampaign,
) -> None:
    campaign = make_campaign()
    labelled = as_packed(all_positions(campaign.home)).slice(0, 3)
    same = pa.array([bytes.fromhex("f" * 32)] * 2 + [bytes(16)], DIGEST)
    labelled = labelled.set_column(4, PACKED_SCHEMA.field(4), same)
    items = [tuple(row.values()) for row in labelled.select(["shard", "key"]).to_pylist()]
    hand_out(campaign, {"a" * 32: items[0], "b" * 32: items[1], "c" * 32: items[2], "d" * 32: ("a.tar", "k")})
    hand_out(campaign, {"e" * 32: items[0], "1" * 32: items[2], "2" * 32: ("a.tar", "k")}, number=1)
    # Its place then, of the first batch, and not of the second one, is that of the third image sent.
    found = picked_before(campaign.home, 1, labelled)
    assert found.num_images == 4
    assert as_texts(found.rows).select(["shard", "key", "offset"]).to_pylist() == [
        {"shard": items[2][0], "key": items[2][1], "offset": 3},
        {"shard": "a.tar", "key": "k", "offset": 4},
    ]


def test_an_item_with_two_names_is_one_row_and_both_names(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    hand_out(campaign, {"a" * 32: ("digits-00001.tar", "k"), "b" * 32: ("digits-00001.tar", "k")})
    hand_out(campaign, {"c" * 32: ("a shard that left.tar", "k")}, number=1)
    found = picked_before(campaign.home, 1, PACKED_SCHEMA.empty_table())
    assert as_texts(found.rows)["shard"].to_pylist() == ["digits-00001.tar", "a shard that left.tar"]
    assert found.num_images == 2
    assert found.digest == digest_of_picks(campaign.home, 1)
    assert found.digest == hashlib.sha256("\n".join(name * 32 for name in "abc").encode()).hexdigest()


def test_a_name_of_a_pick_that_is_no_hash_is_an_error(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    hand_out(campaign, {"g" * 32: ("digits-00001.tar", "k")})
    for read in (
        lambda: picked_before(campaign.home, 1, PACKED_SCHEMA.empty_table()),
        lambda: digest_of_picks(campaign.home, 1),
    ):
        with pytest.raises(InputError, match="rounds: a record of what was picked has a hash that is none"):
            read()
