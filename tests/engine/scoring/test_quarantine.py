"""How much may be in quarantine: a share of the pool and of each shard, and what is shown where it is too much."""

import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.errors import NotAcceptableError
from engine.scoring.quarantine import require_acceptable
from engine.tables.scores import ShardRecord
from engine.tables.shard_records import table_of
from tests.conftest import MakeCampaign


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    return make_campaign("score.max_bad_fraction=0.25")


def shard(listed: int, bad: int, failure: str = "") -> ShardRecord:
    """A committed shard whose quarantine file is not read: it names no error."""
    return ShardRecord("a.tar", "a.parquet", listed, listed - bad, bad, "00", 99, failure)


def named(shards: dict[str, ShardRecord]) -> pa.Table:
    return table_of(record._replace(shard=name) for name, record in shards.items())


def refused(campaign: Campaign, **shards: ShardRecord) -> str:
    with pytest.raises(NotAcceptableError) as caught:
        require_acceptable(campaign, named(shards), lambda _: None)
    return str(caught.value)


def accepted(campaign: Campaign, **shards: ShardRecord) -> None:
    require_acceptable(campaign, named(shards), lambda _: None)


def test_the_share_holds_for_each_shard(campaign: Campaign) -> None:
    accepted(campaign, good=shard(1000, 0), some=shard(8, 2))
    assert "too many in 1 of 2 shards: some;" in refused(campaign, good=shard(1000, 0), some=shard(8, 3))


def test_the_share_holds_for_the_pool_where_no_single_shard_is_bad(campaign: Campaign) -> None:
    small = {f"s{n}": shard(3, 1) for n in range(4)}
    accepted(campaign, **small, good=shard(4, 0))
    line = refused(campaign, **small, good=shard(3, 0))
    assert line.startswith("4 of 15 items (26.7%) are quarantined; score.max_bad_fraction=0.25 is the limit")


@pytest.mark.parametrize("listed", [1, 2, 3])
def test_one_bad_item_is_accepted_even_in_a_small_shard(campaign: Campaign, listed: int) -> None:
    accepted(campaign, good=shard(1000, 0), small=shard(listed, 1))
    assert "1 of 2 shards: small;" in refused(campaign, good=shard(1000, 0), small=shard(listed + 1, 2))


def test_a_shard_that_failed_as_a_whole_is_not_accepted(campaign: Campaign) -> None:
    line = refused(campaign, good=shard(1000, 0), lost=shard(1, 1, "byte 0: not a tar header"))
    assert "too many in 1 of 2 shards: lost;" in line


def test_a_limit_of_one_accepts_every_loss(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("score.max_bad_fraction=1")
    accepted(campaign, none=shard(20, 20), lost=shard(1, 1, "byte 0: not a tar header"))
