"""Every label knows by which rule its image was picked, whatever version or program wrote it."""

import json

import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import append_labels, identities, read_labels
from engine.campaign.origins import origins_of, picked_origins
from engine.selection.select import select
from engine.selection.unpickable import find_unpickable
from engine.storage.location import Location
from engine.tables.shard_records import table_of
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.selection.test_completing import scored
from tests.fabricate import fabricate_scores
from tests.sendings import take_in

pytestmark = pytest.mark.heavy


def answered(campaign: Campaign) -> list[dict[str, str]]:
    """Label every pick. Returns the picks."""
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    file = Location.of(f"{campaign.home.path}-answers.jsonl")
    file.write_bytes("".join(json.dumps({"item_id": p["item_id"], "label": "1"}) + "\n" for p in picks).encode())
    take_in(campaign, file)
    return list(picks)


def origins_by_item(campaign: Campaign) -> dict[tuple[str, str], str]:
    labels = read_labels(campaign.home)
    return dict(zip(identities(labels), origins_of(campaign.home, labels).to_pylist(), strict=True))


def test_labels_have_the_origin_of_their_picks(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=40"), biased=False, margins=True)
    first = {(row["shard"], row["key"]) for row in read_labels(campaign.home).to_pylist()}
    assert set(read_labels(campaign.home)["origin"].to_pylist()) == {"initial"}
    select(campaign)
    picks = answered(campaign)
    found = origins_by_item(campaign)
    assert {found[item] for item in first} == {"initial"}
    assert [found[pick["shard"], pick["key"]] for pick in picks] == [pick["origin"] for pick in picks]
    assert {pick["origin"] for pick in picks} == {"control", "uncertainty"}
    written = {(row["shard"], row["key"]): row["origin"] for row in read_labels(campaign.home).to_pylist()}
    assert written == found
    sources = find_unpickable(campaign, table_of(records_of(campaign)), 1, lambda _: None).sources
    uncertain = {(s.record.shard, key) for s in sources for key in s.uncertain.to_pylist()}
    assert uncertain == {item for item, origin in found.items() if origin == "uncertainty"}


def test_what_an_earlier_version_wrote_is_read(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("select.budget=40", "select.diversity=none")
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: pa.array(range(len(keys))).to_numpy())
    select(campaign)
    file = campaign.stage("selection") / "selection.parquet"
    manifest = json.loads((campaign.stage("selection") / "manifest.json").read_bytes())
    table = file.read_table().drop_columns(["origin"])
    manifest["files"]["selection.parquet"] = file.write_table(table)
    (campaign.stage("selection") / "manifest.json").write_json(manifest)
    picks = table.to_pylist()
    assert set(picked_origins(campaign.home, [0]).values()) == {"control", "query"}
    rows = [(pick["shard"], pick["key"], "1", 0, "generic", None, None) for pick in picks]
    append_labels(campaign.home, "ingest", rows)
    found = origins_by_item(campaign)
    assert [found[pick["shard"], pick["key"]] for pick in picks] == [
        "control" if pick["arm"] == "control" else "query" for pick in picks
    ]
