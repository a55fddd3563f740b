"""Every score chooses with every method, unless the pair is refused by name, and the page says what was picked."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import identities, labelled_items, read_snapshot
from engine.campaign.manifests import read_committed
from engine.config.toml import override
from engine.errors import ConfigError
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.report.report import report
from engine.selection.explanation import explain
from engine.selection.select import select
from engine.simulation import vector_round
from engine.simulation.stage_files import members_of, write_stages
from engine.tables.selections import CANDIDATES_FILE
from tests.conftest import MakeCampaign
from vaal.acquisition import ACQUISITIONS
from vaal.diversity import DIVERSIFIERS

BUDGET, CONTROL = 20, 2
SETTINGS = (
    "train.task=classification", "pool.embeddings=member:npy", f"score.acquisition={json.dumps(list(ACQUISITIONS))}",
    f"select.budget={BUDGET}", f"select.control_fraction={CONTROL / BUDGET}", "select.oversample=8",
)  # fmt: skip
PAIRS = [(acquisition, diversity) for acquisition in ACQUISITIONS for diversity in DIVERSIFIERS]


def train_and_score(campaign: Campaign) -> None:
    """Its stages, of embeddings that are the pixels."""
    members, image = members_of(campaign), campaign.config.image
    pixels = {
        (shard.shard, item.key): decode(item.data, image).ravel()
        for shard in read_shards(campaign.home)
        for item in read_shard(shard, image)
    }
    vector_ND = np.stack([pixels[name] for name in members.names]).astype(np.float32)
    label, place = read_snapshot(campaign.home).values, {name: at for at, name in enumerate(members.names)}
    names = sorted(label, key=place.__getitem__)
    place_L = np.array([place[name] for name in names])
    labels = [label[name] for name in names]
    write_stages(campaign, vector_round.train_and_score(campaign, members.names, vector_ND, place_L, labels), members)


def refusal(acquisition: str, diversity: str) -> str:
    """Why a pair is refused; empty where it is not."""
    if acquisition != "vaal" and diversity in ("completion", "mini_batches"):
        return "chooses by VAAL's discriminators"
    no_worst = ("margin_drop", "dfal", "confused")
    return (
        "is that of an image worth nothing; use soft_rank" if diversity == "power" and acquisition in no_worst else ""
    )


def check(campaign: Campaign, acquisition: str, diversity: str) -> None:
    options = {"select.acquisition": acquisition, "select.diversity": diversity}
    if why := refusal(acquisition, diversity):
        with pytest.raises(ConfigError, match=why):
            override(campaign.config, options, "test")
        return
    campaign = replace(campaign, config=override(campaign.config, options, "test"))
    select(campaign)
    picks = read_committed(campaign.stage("selection"), "selection.parquet")
    items = identities(picks)
    assert len(set(items)) == BUDGET
    assert picks["arm"].to_pylist().count("control") == CONTROL
    assert not set(items) & labelled_items(campaign.home)
    assert explain(campaign, *items[0])["outcome"] == "picked"
    candidates = read_committed(campaign.stage("selection"), CANDIDATES_FILE)
    passed = next(item for item in identities(candidates) if item not in set(items))
    assert explain(campaign, *passed)["outcome"] in ("not picked", "duplicate")
    report(campaign)
    page = (campaign.stage("report") / "report.html").read_bytes().decode()
    assert picks["reason"].to_pylist()[0] in page


@pytest.mark.heavy
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_pairs_work_or_are_refused_by_name(make_campaign: MakeCampaign, every: bool) -> None:
    campaign = make_campaign(*SETTINGS)
    train_and_score(campaign)
    for number, (acquisition, diversity) in enumerate(PAIRS):
        # Each score with a method in turn.
        if every or number % (len(DIVERSIFIERS) + 1) == 0:
            check(campaign, acquisition, diversity)
