"""Without a signal the logits decide nothing: each way to pick is its definition, whatever the shards are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import picked_items
from engine.campaign.labels import labelled_items
from engine.campaign.stages import Run
from engine.config.toml import override
from engine.errors import NotAcceptableError
from engine.pool.identity import draw_of
from engine.selection import candidates
from engine.selection.draws import distinct
from engine.selection.select import select
from tests.committed import with_entries_inside
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from vaal.diversity.k_center import k_center_greedy

pytestmark = pytest.mark.heavy

Row = dict[str, Any]
PLAIN = (
    "select.duplicates=off",
    "select.control_fraction=0",
    "select.diversity=none",
    "select.when_no_signal=diversity",
)
Array = NDArray[np.float32]


def latents_of(shard: str, keys: list[str]) -> Array:
    """Two numbers that differ between items, in a space of 32 units."""
    draws = [draw_of(shard, key, 99) for key in keys]
    found = np.zeros((len(keys), 32), np.float32)
    found[:, 0] = [draw % 1009 / 100 for draw in draws]
    found[:, 1] = [draw // 1009 % 1013 / 100 for draw in draws]
    return found


def scored(campaign: Campaign, signal: str | None = "none", seed: int = 0) -> Campaign:
    rng = np.random.default_rng(seed)
    pretend_trained(campaign, signal)
    fabricate_scores(campaign, lambda _, keys: rng.normal(size=len(keys)), quarantine_every=50, latents=latents_of)
    return campaign


def rows(campaign: Campaign, stage: str) -> list[Row]:
    files = sorted(Path(campaign.stage(stage).path).glob("*.parquet"))
    return list(pa.concat_tables([(campaign.stage(stage) / f.name).read_table() for f in files]).to_pylist())


def identity(row: Row) -> tuple[str, str]:
    return row["shard"], row["key"]


def eligible(campaign: Campaign) -> list[Row]:
    """What can be picked, by shard, in archive order."""
    before = picked_items(campaign.home, before=campaign.round)
    taken = labelled_items(campaign.home) | set(map(identity, before.to_pylist()))
    left = [row for row in rows(campaign, "scores") if identity(row) not in taken]
    return sorted(left, key=lambda row: (row["shard"], row["offset"]))


def drawn(campaign: Campaign, size: int) -> list[Row]:
    """The definition: places among all that can be picked, of the round's generator."""
    items, seed = (
        eligible(campaign),
        json.loads((campaign.stage("selection") / "manifest.json").read_bytes())["round_seed"],
    )
    return [items[place] for place in distinct(len(items), min(size, len(items)), np.random.default_rng([seed, 2]))]


def latents(items: list[Row]) -> Array:
    return np.array([row["latent"] for row in items], np.float32)


@pytest.mark.parametrize("seed", [0, 7])
def test_random_takes_the_first_draws(make_campaign: MakeCampaign, seed: int) -> None:
    campaign = scored(make_campaign(*PLAIN, "select.when_no_signal=random", f"select.seed={seed}"))
    manifest = select(campaign)
    picks = rows(campaign, "selection")
    expected = drawn(campaign, 300)[:100]
    for column in ("shard", "key", "offset", "size_bytes", "logit"):
        assert [pick[column] for pick in picks] == [row[column] for row in expected]
    assert [pick["rank"] for pick in picks] == list(range(100))
    assert {(pick["arm"], pick["reason"]) for pick in picks} == {("query", "random, because no signal was found")}
    assert {pick["displaced_key"] for pick in picks} == {None}
    assert (manifest["signal"], manifest["when_no_signal"], manifest["seed"]) == ("none", "random", seed)
    assert manifest["highest_picked_score"] is manifest["highest_candidate_score"] is None
    assert manifest["counts"]["eligible"] == len(eligible(campaign))


@pytest.mark.parametrize("diversity", ["clusters", "none"])
def test_that_no_diversity_method_is_applied_is_said(make_campaign: MakeCampaign, diversity: str) -> None:
    log: list[str] = []
    campaign = scored(make_campaign("select.when_no_signal=random", f"select.diversity={diversity}"))
    select(campaign, Run(log=log.append))
    line = (
        "no signal, AUC 0.52 (0.46 to 0.58): select.when_no_signal=random picks, and select.diversity=clusters is not "
        "applied"
    )
    assert (line in log) == (diversity != "none")
    assert sum("is not applied" in said for said in log) == (diversity != "none")


@pytest.mark.parametrize(("diversity", "how"), [("none", "margin"), ("class_balanced", "margin, class balanced")])
def test_how_another_score_picks_is_said(make_campaign: MakeCampaign, diversity: str, how: str) -> None:
    log: list[str] = []
    settings = ("train.task=classification", "score.acquisition=['vaal','margin']", "select.acquisition=margin")
    campaign = make_campaign(*settings, f"select.diversity={diversity}")
    pretend_trained(campaign, "none")
    rng = np.random.default_rng(0)
    fabricate_scores(
        campaign,
        lambda _, keys: rng.normal(size=len(keys)),
        margins=lambda _, keys: (rng.random(len(keys), np.float32), np.zeros(len(keys), np.int32)),
    )
    select(campaign, Run(log=log.append))
    assert f"images are picked by {how}" in log


def test_diversity_is_k_center_on_a_random_sample_away_from_what_is_taken(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "LEAST_WITHOUT_SIGNAL", 300)
    campaign = scored(make_campaign(*PLAIN, "select.seed=3", "select.oversample=2"))
    manifest = select(campaign)
    sample = drawn(campaign, 300)
    left = set(map(identity, eligible(campaign)))
    taken = sorted((row for row in rows(campaign, "scores") if identity(row) not in left), key=identity)
    expected = [sample[i] for i in k_center_greedy(latents(sample), latents(taken), 100)]
    picks = rows(campaign, "selection")
    for column in ("shard", "key", "offset", "size_bytes", "logit"):
        assert [pick[column] for pick in picks] == [row[column] for row in expected]
    assert {(p["arm"], p["reason"]) for p in picks} == {
        ("query", "spread over latent space, because no signal was found")
    }
    assert (manifest["signal"], manifest["when_no_signal"], manifest["seed"]) == ("none", "diversity", 3)
    assert manifest["counts"]["candidates"] == 300 < manifest["counts"]["eligible"]


def test_refuse_picks_nothing_and_says_why(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.when_no_signal=refuse", "select.diversity=clusters"))
    line = r"train: no signal, AUC 0.52 \(0.46 to 0.58\): .*label other images.*--set select.when_no_signal=uncertainty"
    with pytest.raises(NotAcceptableError, match=line) as caught:
        select(campaign)
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)
    assert not Path(campaign.stage("selection").path).exists()


@pytest.mark.parametrize("method", ["refuse", "random", "diversity"])
def test_with_a_signal_the_logits_decide(make_campaign: MakeCampaign, method: str) -> None:
    campaign = scored(make_campaign(*PLAIN, f"select.when_no_signal={method}"), "present")
    manifest = select(campaign)
    expected = sorted(eligible(campaign), key=lambda row: (row["logit"], *identity(row)))[:100]
    assert list(map(identity, rows(campaign, "selection"))) == list(map(identity, expected))
    assert (manifest["signal"], manifest["when_no_signal"]) == ("present", None)
    assert manifest["highest_picked_score"] == expected[-1]["logit"]


def test_diversity_keeps_away_from_what_is_out_at_a_vendor(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*PLAIN))
    select(campaign)
    later = scored(dataclasses.replace(campaign, round=1))
    select(later)
    sample = drawn(later, 10_000)
    left = set(map(identity, sample))
    centers = sorted((row for row in rows(later, "scores") if identity(row) not in left), key=identity)
    assert len(centers) > len(labelled_items(campaign.home))
    expected = k_center_greedy(latents(sample), latents(centers), 100)
    assert list(map(identity, rows(later, "selection"))) == [identity(sample[i]) for i in expected]


def test_the_draws_of_two_rounds_differ(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*PLAIN, "select.when_no_signal=random"))
    seeds = [select(scored(dataclasses.replace(campaign, round=number)))["round_seed"] for number in range(3)]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("method", ["random", "diversity"])
def test_nothing_taken_is_picked(make_campaign: MakeCampaign, method: str) -> None:
    campaign = scored(make_campaign(*PLAIN, f"select.when_no_signal={method}"))
    taken = labelled_items(campaign.home) | set(map(identity, rows(campaign, "quarantine")))
    for number in range(3):
        later = dataclasses.replace(campaign, round=number)
        select(scored(later, seed=number))
        picks = list(map(identity, rows(later, "selection")))
        assert len(set(picks)) == 100
        assert not set(picks) & taken
        taken |= set(picks)


@pytest.mark.parametrize("method", ["random", "diversity"])
def test_the_choice_does_not_depend_on_the_order_of_the_shards(make_campaign: MakeCampaign, method: str) -> None:
    campaign = scored(make_campaign(*PLAIN, f"select.when_no_signal={method}"))
    manifest = campaign.stage("scores") / "manifest.json"
    select(campaign)
    first = rows(campaign, "selection")
    scores = with_entries_inside(campaign)
    manifest.write_json({**scores, "shards": scores["shards"][::-1]})
    (campaign.stage("selection") / "manifest.json").delete()
    select(campaign)
    assert rows(campaign, "selection") == first


def test_the_seed_changes_what_is_picked(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*PLAIN, "select.when_no_signal=random"))
    select(campaign)
    other = scored(make_campaign(*PLAIN, "select.when_no_signal=random", "select.seed=1", name="other"))
    select(other)
    first, second = (set(map(identity, rows(c, "selection"))) for c in (campaign, other))
    assert len(first & second) < 30


def test_the_choice_follows_the_configuration_of_the_round(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*PLAIN, "select.when_no_signal=refuse"))
    config = override(campaign.config, {"select.when_no_signal": "random"}, "test")
    assert select(dataclasses.replace(campaign, config=config))["when_no_signal"] == "random"
