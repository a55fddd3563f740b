"""Facts about shards: taken in whole or refused by line, and what the control arm is stratified by."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items
from engine.errors import ConfigError, InputError
from engine.pool.metadata import import_metadata, read_strata
from engine.selection.select import select
from engine.simulation.demo_pools import DemoPool
from engine.storage.location import Location
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores

SHARDS = [f"digits-{number:05d}.tar" for number in range(8)]
CAMERAS = ["left", "left", "left", "left", "left", "left", "right", ""]


def table(folder: Path, rows: list[str]) -> Path:
    file = folder / "facts.csv"
    file.write_text("\n".join(["shard,camera,year", *rows]) + "\n")
    return file


@pytest.fixture
def campaign(make_campaign: MakeCampaign, tmp_path: Path) -> Campaign:
    facts = table(
        tmp_path, [f"{shard},{camera},20{n}" for n, (shard, camera) in enumerate(zip(SHARDS, CAMERAS, strict=True))]
    )
    return make_campaign(
        f"pool.metadata={facts}", "select.stratify=camera", "select.budget=100", "select.control_fraction=0.4",
        "select.duplicates=off",
    )  # fmt: skip


def test_every_shard_keeps_its_row(campaign: Campaign) -> None:
    assert read_strata(campaign.home, "camera") == dict(zip(SHARDS, CAMERAS, strict=True))
    assert read_strata(campaign.home, "year")[SHARDS[3]] == "203"


def test_the_control_arm_has_each_stratum_in_proportion_to_what_can_be_picked(campaign: Campaign) -> None:
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(campaign, lambda _, keys: rng.normal(size=len(keys)), quarantine_every=20)
    manifest = select(campaign)
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    camera = dict(zip(SHARDS, CAMERAS, strict=True))
    found = Counter(camera[pick["shard"]] for pick in picks if pick["arm"] == "control")
    labelled = Counter(camera[shard] for shard, _ in labelled_items(campaign.home))
    eligible = manifest["counts"]["eligible"]
    assert sum(found.values()) == 40
    for name, shards in Counter(CAMERAS).items():
        items = sum(1797 - 7 * 225 if n == 7 else 225 for n in range(8) if CAMERAS[n] == name)
        # Some 5 % of the items are in quarantine.
        assert abs(found[name] - 40 * (0.95 * items - labelled[name]) / eligible) < 1.5, shards


def test_a_column_that_is_not_there_is_refused_at_init_with_those_that_are(
    make_campaign: MakeCampaign, tmp_path: Path, pool: DemoPool
) -> None:
    facts = table(tmp_path, [f"{shard},x,1" for shard in SHARDS])
    with pytest.raises(
        ConfigError, match=r"select.stratify=lens: pool.metadata has no such column; it has: camera, year"
    ):
        make_campaign(f"pool.metadata={facts}", "select.stratify=lens")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{shard},x,1" for shard in SHARDS[:-2]], "no row for 2 of 8 shards, first 'digits-00006.tar'; add them"),
        (["digits-00000.tar,x,1", "digits-00000.tar,y,1"], "line 3: shard 'digits-00000.tar' has two rows; keep one"),
        (["other.tar,x,1"], "line 2: shard 'other.tar' is not in the pool, whose first is 'digits-00000.tar'"),
    ],
)
def test_a_table_that_does_not_fit_the_pool_is_refused_by_line(
    make_campaign: MakeCampaign, tmp_path: Path, rows: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=rf"facts.csv: {message}"):
        make_campaign(f"pool.metadata={table(tmp_path, rows)}")


def test_a_column_may_be_named_line(tmp_path: Path) -> None:
    file = tmp_path / "facts.csv"
    file.write_text("shard,line\na.tar,north\nb.tar,south\n")
    import_metadata(Location(str(tmp_path)), Location(str(file)), ["a.tar", "b.tar"])
    assert read_strata(Location(str(tmp_path)), "line") == {"a.tar": "north", "b.tar": "south"}
