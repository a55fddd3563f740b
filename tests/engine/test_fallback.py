"""Without a signal the logits decide nothing: each way to pick is its definition, whatever the shards are."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from engine import fallback
from engine.campaign import Campaign
from engine.config import override
from engine.errors import NotAcceptableError
from engine.identity import draw_of, fold_of
from engine.labels import labelled_items
from engine.selection.picks import picked_items
from engine.selection.stage import select
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from vaal.diversity.k_center import k_center_greedy

Row = dict[str, Any]
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
    before = picked_items(campaign.home, before=campaign.round)
    taken = labelled_items(campaign.home) | set(map(identity, before.to_pylist()))
    return [row for row in rows(campaign, "scores") if identity(row) not in taken]


def by_draw(items: list[Row], seed: int) -> list[Row]:
    return sorted(items, key=lambda row: draw_of(*identity(row), seed))


def latents(items: list[Row]) -> Array:
    return np.array([row["latent"] for row in items], np.float32)


@pytest.mark.parametrize("seed", [0, 7])
def test_random_takes_the_lowest_draws(make_campaign: MakeCampaign, seed: int) -> None:
    campaign = scored(make_campaign("select.when_no_signal=random", f"select.seed={seed}"))
    manifest = select(campaign)
    picks = rows(campaign, "selection")
    expected = by_draw(eligible(campaign), seed)[:100]
    for column in ("shard", "key", "offset", "size_bytes", "logit"):
        assert [pick[column] for pick in picks] == [row[column] for row in expected]
    assert [pick["rank"] for pick in picks] == list(range(100))
    assert {(pick["arm"], pick["reason"]) for pick in picks} == {("query", "random, for want of a signal")}
    assert (manifest["signal"], manifest["when_no_signal"], manifest["seed"]) == ("none", "random", seed)
    assert manifest["highest_picked_logit"] is None
    assert manifest["counts"]["candidates"] == len(eligible(campaign))


def test_diversity_is_k_center_on_a_random_sample_away_from_what_is_taken(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "LEAST_CANDIDATES", 50)
    monkeypatch.setattr(fallback, "CANDIDATES_PER_PICK", 3)
    monkeypatch.setattr("engine.selection.MOST_CENTERS", 40)
    campaign = scored(make_campaign("select.seed=3"))
    manifest = select(campaign)
    candidates = by_draw(eligible(campaign), 3)[:300]
    labelled = labelled_items(campaign.home)
    centers = by_draw([row for row in rows(campaign, "scores") if identity(row) in labelled], 3)[:40]
    expected = [candidates[i] for i in k_center_greedy(latents(candidates), latents(centers), 100)]
    picks = rows(campaign, "selection")
    for column in ("shard", "key", "offset", "size_bytes", "logit"):
        assert [pick[column] for pick in picks] == [row[column] for row in expected]
    assert {(p["arm"], p["reason"]) for p in picks} == {("query", "spread over the latents, for want of a signal")}
    assert (manifest["signal"], manifest["when_no_signal"], manifest["seed"]) == ("none", "diversity", 3)
    assert manifest["highest_picked_logit"] is None
    assert manifest["counts"]["candidates"] == len(eligible(campaign)) > 300


def test_a_small_pool_is_a_candidate_as_a_whole(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=20"))
    select(campaign)
    labelled = labelled_items(campaign.home)
    candidates = by_draw(eligible(campaign), 0)
    centers = by_draw([row for row in rows(campaign, "scores") if identity(row) in labelled], 0)
    expected = k_center_greedy(latents(candidates), latents(centers), 20)
    assert list(map(identity, rows(campaign, "selection"))) == [identity(candidates[i]) for i in expected]


def test_refuse_picks_nothing_and_says_why(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.when_no_signal=refuse"))
    mend = r"train: no signal, AUC 0.52 \(0.46 to 0.58\): .*label other images.*--set select.when_no_signal=diversity"
    with pytest.raises(NotAcceptableError, match=mend) as caught:
        select(campaign)
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)
    assert not Path(campaign.stage("selection").path).exists()


@pytest.mark.parametrize("signal", ["present", None])
@pytest.mark.parametrize("method", ["refuse", "random", "diversity"])
def test_with_a_signal_or_before_it_was_measured_the_logits_decide(
    make_campaign: MakeCampaign, signal: str | None, method: str
) -> None:
    campaign = scored(make_campaign(f"select.when_no_signal={method}"), signal)
    manifest = select(campaign)
    expected = sorted(eligible(campaign), key=lambda row: (row["logit"], *identity(row)))[:100]
    assert list(map(identity, rows(campaign, "selection"))) == list(map(identity, expected))
    assert (manifest["signal"], manifest["when_no_signal"]) == ("present", None)
    assert manifest["highest_picked_logit"] == expected[-1]["logit"]


def test_diversity_keeps_away_from_what_is_out_at_a_vendor(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign())
    select(campaign)
    later = scored(dataclasses.replace(campaign, round=1))
    select(later)
    candidates = by_draw(eligible(later), 0)
    left = set(map(identity, candidates))
    centers = [row for row in rows(later, "scores") if identity(row) not in left]
    assert len(centers) > len(labelled_items(campaign.home))
    expected = k_center_greedy(latents(candidates), latents(centers), 100)
    assert list(map(identity, rows(later, "selection"))) == [identity(candidates[i]) for i in expected]


@pytest.mark.parametrize("method", ["random", "diversity"])
def test_nothing_taken_is_picked(make_campaign: MakeCampaign, method: str) -> None:
    campaign = scored(make_campaign(f"select.when_no_signal={method}"))
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
    campaign = scored(make_campaign(f"select.when_no_signal={method}"))
    manifest = campaign.stage("scores") / "manifest.json"
    select(campaign)
    first = rows(campaign, "selection")
    scores = manifest.read_json()
    manifest.write_json({**scores, "shards": scores["shards"][::-1]})
    (campaign.stage("selection") / "manifest.json").delete()
    select(campaign)
    assert rows(campaign, "selection") == first


def test_the_seed_changes_what_is_picked(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.when_no_signal=random"))
    select(campaign)
    other = scored(make_campaign("select.when_no_signal=random", "select.seed=1", name="other"))
    select(other)
    first, second = (set(map(identity, rows(c, "selection"))) for c in (campaign, other))
    assert len(first & second) < 30


def test_pieces_of_any_size_reduce_to_the_same_rows_and_few_are_held() -> None:
    items = [("s", str(n)) for n in range(1000)]
    table = fallback.with_draws(pa.table({"shard": [s for s, _ in items], "key": [k for _, k in items]}), seed=5)
    expected = sorted(items, key=lambda item: draw_of(*item, 5))[:30]
    for piece in (1, 7, 100, 1000):
        lowest = _Lowest(30, fallback.first_drawn)
        for begin in range(0, 1000, piece):
            lowest.add(table.slice(begin, piece))
            assert sum(map(len, lowest._tables)) < 60
        assert [(row["shard"], row["key"]) for row in lowest.rows().to_pylist()] == expected
        assert lowest.num_seen == 1000


def test_draws_are_uniform_and_independent_of_the_folds() -> None:
    shares = np.array([draw_of("s", str(n), 0) / 2**64 for n in range(4000)])
    folds = np.array([fold_of("s", str(n), 2) for n in range(4000)])
    # Standard errors: 0.29 / sqrt(4000) = 0.005, and 0.006 within a fold.
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares[folds == 0].mean() - shares[folds == 1].mean()) < 0.04
    assert 0 <= shares.min() < 0.01 < 0.99 < shares.max() < 1
    assert draw_of("a", "bc", 0) != draw_of("ab", "c", 0)


def test_the_choice_follows_the_configuration_of_the_round(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.when_no_signal=refuse"))
    config = override(campaign.config, {"select.when_no_signal": "random"}, "test")
    assert select(dataclasses.replace(campaign, config=config))["when_no_signal"] == "random"
