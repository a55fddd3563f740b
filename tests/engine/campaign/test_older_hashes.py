"""A campaign that kept no hashes of its labelled images gets them when training reads these images."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_values
from engine.campaign.positions import all_positions
from engine.errors import InputError
from engine.pool.identity import content_hash
from engine.training.plan import plan_training
from tests.engine.campaign.test_changes import (  # noqa: F401
    labelled_images,
    made,
    members,
    original,
    pool_of,
    refreshed,
    remake,
)
from tests.rounds import Made


def plan(campaign: Campaign) -> list[tuple[str, str, int, int, str | None]]:
    """The labelled images as training plans to read them."""
    found = plan_training(campaign)
    # An image that is lost is labelled all the same: nothing trains on it as unlabelled.
    assert dict(found.labels) == labelled_values(campaign.home)
    return list(found.positions)


@pytest.fixture
def older(made: Made) -> Made:  # noqa: F811
    (items,) = (Path(made.campaign.home.path) / "pool/items").iterdir()
    pq.write_table(pq.read_table(items).drop_columns(["content_hash"]), items)
    assert all_positions(made.campaign.home)["content_hash"].null_count == len(made.labelled)
    return made


def test_the_hashes_are_those_of_the_images_and_are_read_once(older: Made) -> None:
    found = plan(older.campaign)
    assert {row[:2]: row[4] for row in found} == {item: content_hash(older.images[item]) for item in older.labelled}
    files = (older.campaign.home / "pool/items").children()
    assert plan(older.campaign) == found
    assert (older.campaign.home / "pool/items").children() == files
    assert not all_positions(older.campaign.home)["content_hash"].null_count


@pytest.mark.heavy
def test_the_next_change_is_seen(older: Made) -> None:
    before = plan(older.campaign)
    items = members(older, "s-0.tar")
    spoilt = next(key for name, key in sorted(older.labelled) if name == "s-0.tar")
    content = items[f"{spoilt}.png"]
    # The same size in the same place: without a hash nothing would show it.
    remake(older, "s-0.tar", items | {f"{spoilt}.png": content[:-1] + bytes([content[-1] ^ 1])})
    assert [line for line in refreshed(older.campaign) if line.startswith(f"s-0.tar: item {spoilt} has other bytes")]
    assert plan(older.campaign) == [row for row in before if row[:2] != ("s-0.tar", spoilt)]
    # And an image that moves is found.
    remake(older, "s-0.tar", dict(reversed(items.items())))
    refreshed(older.campaign)
    assert labelled_images(older.campaign) == {item: older.images[item] for item in older.labelled}


def test_a_shard_that_is_away_is_named_and_nothing_is_remembered(older: Made) -> None:
    (pool_of(older) / "s-1.tar").unlink()
    with pytest.raises(InputError, match=r"s-1.tar: the shard is gone; restore it"):
        plan(older.campaign)
    assert all_positions(older.campaign.home)["content_hash"].null_count == len(older.labelled)
