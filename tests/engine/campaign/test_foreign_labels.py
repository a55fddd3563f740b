"""What another program puts into labels/ is read as everything else, and refused by name where it cannot be."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.corrections import set_label
from engine.campaign.folder import Campaign
from engine.campaign.labels import LABELS_SCHEMA, append_labels, labelled_values
from engine.campaign.opening import current_round
from engine.errors import InputError
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign


def put(campaign: Campaign, rows: list[tuple[tuple[str, str], str | None, int | None]], name: str = "a") -> None:
    columns = zip(*((*item, label, number, "other", *[None] * 4) for item, label, number in rows), strict=True)
    table = pa.table([list(column) for column in columns], schema=LABELS_SCHEMA)
    pq.write_table(table, Path(campaign.home.path, f"labels/{name}.parquet"))


def test_labels_are_read_as_in_every_other_file(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    before = labelled_values(campaign.home)
    items = sorted(set(pool.oracle) - set(before))[:5]
    labels = (" cat ", "3.0", "True", "", "nan")
    put(campaign, [(item, label, 0) for item, label in zip(items, labels, strict=True)] + [(min(before), " ", 0)])
    found = labelled_values(campaign.home)
    assert [found.get(item) for item in (*items, min(before))] == ["cat", "3", "true", None, None, None]
    assert set_label(campaign, items[0], "cat", print) == "cat"


@pytest.mark.parametrize("number", [-7, 1, 5])
def test_a_round_that_cannot_be_is_refused(make_campaign: MakeCampaign, pool: DemoPool, number: int) -> None:
    campaign = make_campaign()
    item = min(set(pool.oracle) - set(labelled_values(campaign.home)))
    put(campaign, [(item, "cat", number)])
    for read in (labelled_values, current_round):
        with pytest.raises(InputError, match=rf"labels/a.parquet: .* round {number}, and the campaign came to round 0"):
            read(campaign.home)


def test_the_present_round_and_those_before_it_are_accepted(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    campaign = make_campaign()
    items = sorted(set(pool.oracle) - set(labelled_values(campaign.home)))
    append_labels(campaign.home, "ingest", [(*items[0], "cat", 0, "generic", None, None)])
    put(campaign, [(items[1], "cat", 1), (items[2], "cat", 0), (items[3], "cat", None)])
    assert current_round(campaign.home) == 2
    # The names of files say nothing of their rounds.
    put(campaign, [(items[4], "cat", 2)], "0")
    assert current_round(campaign.home) == 3
