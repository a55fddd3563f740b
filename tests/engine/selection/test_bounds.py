"""select.per_group: no batch has more picks of a group, by whichever method, its control arm included."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.stages import Run
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import ConfigError
from engine.pool.identity import Groups
from engine.selection.bounds import Bound, Room
from engine.selection.explanation import explain
from engine.selection.select import select
from engine.tables.selections import CANDIDATES_FILE, GROUP_FULL
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.selection.test_completing import scored
from tests.fabricate import fabricate_scores

TENS = "pool.group=^([0-9]{5})"
"""The digits' keys are 000000 to 001796: ten are a group."""


def with_settings(campaign: Campaign, *settings: str) -> Campaign:
    return dataclasses.replace(campaign, config=override(campaign.config, parse_settings(settings), "test"))


@pytest.fixture
def made(make_campaign: MakeCampaign) -> Campaign:
    """Whole groups of ten have low logits: the lowest 40 are of four groups or a few more."""
    campaign = make_campaign(TENS, "select.budget=40", "select.duplicates=off")
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(
        campaign, lambda _, keys: np.array([int(key) // 10 % 50 + int(key) % 10 / 100 for key in keys]),
        latents=lambda _, keys: rng.normal(size=(len(keys), 32)),
    )  # fmt: skip
    return campaign


def groups(campaign: Campaign, arm: str = "") -> Counter[str]:
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    return Counter(pick["key"][:5] for pick in picks if not arm or pick["arm"] == arm)


def test_of_the_lowest_the_first_of_each_group_are_picked(made: Campaign) -> None:
    paper = ("select.diversity=none", "select.control_fraction=0")
    select(with_settings(made, *paper))
    assert max(groups(made).values()) > 3
    campaign = with_settings(made, *paper, "select.per_group=3")
    manifest = select(campaign)
    rows = [(campaign.stage("scores") / name).read_table(["shard", "key", "logit"]).to_pylist()
            for name in campaign.stage("scores").children() if name.endswith(".parquet")]  # fmt: skip
    taken = {(row["shard"], row["key"]) for row in (campaign.home / "labels/initial.parquet").read_table().to_pylist()}
    room, expected = Counter[str](), []
    for row in sorted((row for part in rows for row in part), key=lambda row: (row["logit"], row["shard"], row["key"])):
        if (row["shard"], row["key"]) not in taken and room[row["key"][:5]] < 3:
            room[row["key"][:5]] += 1
            expected.append((row["shard"], row["key"]))
    picks = (campaign.stage("selection") / "selection.parquet").read_table()
    assert list(zip(picks["shard"].to_pylist(), picks["key"].to_pylist(), strict=True)) == expected[:40]
    assert manifest["counts"]["group_full"] > 0
    candidates = (campaign.stage("selection") / CANDIDATES_FILE).read_table().to_pylist()
    full = next(row for row in candidates if row["fate"] == GROUP_FULL)
    found = explain(campaign, full["shard"], full["key"])
    assert found["outcome"] == "group full"
    assert re.fullmatch(r"candidate \d+ of \d+, after select.per_group=3 others of its group", found["why"])


@pytest.mark.heavy
@pytest.mark.parametrize("control", ["0", "0.5", "1"])
@pytest.mark.parametrize("method", ["gumbel", "clusters", "k_center", "facility", "typiclust", "mini_batches", "none"])
def test_no_method_and_no_control_arm_goes_beyond_it(made: Campaign, method: str, control: str) -> None:
    settings = (f"select.diversity={method}", f"select.control_fraction={control}", "select.per_group=1")
    manifest = select(with_settings(made, *settings))
    found = groups(made)
    assert (sum(found.values()), max(found.values())) == (40, 1)
    assert manifest["counts"]["control"] == round(40 * float(control))
    assert sum(groups(made, "control").values()) == round(40 * float(control))


@pytest.mark.heavy
@pytest.mark.parametrize("word", ["yes", "no"])
def test_the_completion_keeps_to_it(make_campaign: MakeCampaign, word: str) -> None:
    campaign = make_campaign(TENS, f"labels.are_biased={word}", "select.budget=60", "select.duplicates=off")
    scored(campaign, biased=word == "yes", margins=word == "no")
    select(campaign)
    assert max(groups(campaign).values()) > 1
    select(with_settings(campaign, "select.per_group=1"))
    found = groups(campaign)
    assert (sum(found.values()), max(found.values())) == (60, 1)


def test_too_few_groups_for_the_budget_are_said_with_what_there_is(made: Campaign) -> None:
    campaign = with_settings(made, "select.per_group=1", "select.budget=200", "select.diversity=none")
    why = r"only 180 of the \d+ items left are not duplicates and no more than select.per_group=1 of a group"
    with pytest.raises(ConfigError, match=f"select.budget=200: {why}; lower it: --set select.budget=180, or raise"):
        select(campaign)


def test_without_groups_it_is_refused_and_a_pattern_that_matches_nothing_is_at_init(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"select.per_group=2 needs pool.group, which says what belongs together"):
        make_campaign("select.per_group=2")
    why = r"pool.group=\^clip: it names a group of none of the [\d,]+ items .* for example digits-.*; correct it, or"
    with pytest.raises(ConfigError, match=why):
        make_campaign("select.per_group=2", "pool.group=^clip")
    # Later it may be that only some shards have clips: it is logged.
    campaign = make_campaign("pool.group=^clip", "select.budget=5", name="unbounded")
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.arange(len(keys)))
    lines: list[str] = []
    select(with_settings(campaign, "select.per_group=2"), Run(log=lines.append))
    assert "select.per_group=2 bounds nothing: pool.group names no group of any candidate" in lines


def test_items_without_a_group_have_no_bound() -> None:
    groups = Groups(r"^(clip\d)_")
    bound = Bound(2, groups)
    assert Room(2, Counter({"clip1": 1})).fits(["clip1", "", "clip1", "clip2", "", "clip2", "clip2", ""]).tolist() == [
        True, True, False, True, True, True, False, True,
    ]  # fmt: skip
    assert Bound(0, groups).after(_items([("a", "clip1_0")] * 9)).take("clip1")
    assert not bound.after(_items([("a", "clip1_0"), ("b", "clip1_1")])).take("clip1")


def _items(names: list[tuple[str, str]]) -> pa.Table:
    return pa.table({"shard": [shard for shard, _ in names], "key": [key for _, key in names]})
