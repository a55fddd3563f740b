"""The rule of completion: what the gate says decides what is picked, and every branch is its definition."""

import dataclasses
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.campaign.decided import decided_by
from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.stages import Run
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import NotAcceptableError
from engine.models.centring import make_centres, save_centres
from engine.pool.identity import draw_of, shard_number_of
from engine.selection import parts
from engine.selection.candidates import plan_pass
from engine.selection.explanation import explain
from engine.selection.select import describe, select
from engine.selection.unpickable import find_unpickable
from engine.tables.selections import CANDIDATES_FILE, CLUSTERS_FILE, SAMPLE_FILE
from engine.tables.shard_records import table_of
from tests.committed import records_of, with_entries_inside
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from vaal.completion import draws_of, keys_of, weight_of

pytestmark = pytest.mark.heavy
Row = dict[str, Any]
PLAIN = ("select.budget=60", "select.duplicates=off", "select.control_fraction=0")
Array = NDArray[np.float32]


def scored(campaign: Campaign, *, biased: bool = True, num_centres: int = 200, margins: bool = False) -> Campaign:
    """A scored campaign with latents about a hundred places; the labels are of half of them if they are biased."""
    pretend_trained(campaign, "none")
    labelled, places = labelled_items(campaign.home), np.random.default_rng(0).normal(size=(100, 32))

    def latents(shard: str, keys: list[str]) -> Array:
        draws = np.array([draw_of(shard, key, 5) % 2**32 for key in keys])
        place = draws % 100
        is_labelled = np.array([(shard, key) in labelled for key in keys], np.bool_)
        place = np.where(is_labelled & biased, place // 2, place)
        return (3 * places[place] + np.random.default_rng(draws[0]).normal(size=(len(keys), 32)) / 4).astype(np.float32)

    def logits(shard: str, keys: list[str]) -> Array:
        return np.array([draw_of(shard, key, 6) % 1009 / 200 - 3 for key in keys], np.float32)

    def sure(shard: str, keys: list[str]) -> tuple[Array, NDArray[np.int32]]:
        draws = np.array([draw_of(shard, key, 7) % 10_007 for key in keys])
        return (draws % 97 / 97).astype(np.float32), np.where(draws % 9 < 6, 0, draws % 9).astype(np.int32)

    if num_centres:
        manifest = json.loads((campaign.stage("train") / "manifest.json").read_bytes())
        sample = np.concatenate([latents(f"digits-{n:05d}.tar", [f"{key:06d}" for key in range(1000)]) for n in (0, 1)])
        centres = make_centres(torch.from_numpy(sample), num_centres, 0)
        assert centres is not None
        manifest["files"] |= save_centres(campaign.stage("train"), centres)
        (campaign.stage("train") / "manifest.json").write_json(manifest)
    fabricate_scores(campaign, logits, quarantine_every=50, latents=latents, margins=sure if margins else None)
    return campaign


def rows(campaign: Campaign, stage: str) -> list[Row]:
    names = [name for name in campaign.stage(stage).children() if name.endswith(".parquet")]
    return [row for name in names for row in (campaign.stage(stage) / name).read_table().to_pylist()]


def eligible(campaign: Campaign) -> list[Row]:
    taken = labelled_items(campaign.home)
    left = [row for row in rows(campaign, "scores") if (row["shard"], row["key"]) not in taken]
    return sorted(left, key=lambda row: (row["shard"], row["offset"]))


def names(found: list[Row]) -> list[tuple[str, str]]:
    return [(row["shard"], row["key"]) for row in found]


def in_keys_order(campaign: Campaign) -> list[Row]:
    """The definition of weight completion."""
    items = eligible(campaign)
    key_N = drawn_keys(campaign, items, weights(campaign, items))
    return [items[n] for n in sorted(range(len(items)), key=lambda n: (key_N[n], items[n]["logit"]))]


def weights(campaign: Campaign, items: list[Row]) -> NDArray[np.float64]:
    logit_N = np.array([row["logit"] for row in items], np.float32)
    return weight_of(logit_N, len(labelled_items(campaign.home)), 60)


def drawn_keys(campaign: Campaign, items: list[Row], weight_N: NDArray[np.float64]) -> list[float]:
    seed = json.loads((campaign.stage("selection") / "manifest.json").read_bytes())["round_seed"]
    draw_N = [draws_of(shard_number_of(row["shard"]), np.array([row["offset"]]), seed)[0] for row in items]
    return keys_of(weight_N, np.array(draw_N, np.uint64)).tolist()


def in_clusters_order(campaign: Campaign) -> list[list[Row]]:
    """The definition of cluster completion: the clusters, those first whose squared sum of weights over their number of
    items is largest, and in each the nearest items first."""
    clusters: dict[int, list[Row]] = {}
    for row in eligible(campaign):
        clusters.setdefault(row["cluster"], []).append(row)
    whole = {c: sum(round(w * 2**20) for w in weights(campaign, found).tolist()) for c, found in clusters.items()}
    order = sorted(clusters, key=lambda cluster: (-Fraction(whole[cluster] ** 2, len(clusters[cluster])), cluster))
    return [sorted(clusters[c], key=lambda row: (row["distance"], row["shard"], row["offset"])) for c in order]


def test_where_labels_are_lacking_clusters_are_completed(make_campaign: MakeCampaign) -> None:
    log: list[str] = []
    campaign = scored(make_campaign(*PLAIN))
    manifest = select(campaign, Run(log=log.append))
    picks = rows(campaign, "selection")
    assert names(picks) == names([found[0] for found in in_clusters_order(campaign)[:60]])
    assert {(pick["arm"], pick["origin"]) for pick in picks} == {("query", "completion")}
    assert {pick["reason"] for pick in picks} == {"nearest the centre of a part of the pool that the labels lack"}
    assert (manifest["signal"], manifest["when_no_signal"], manifest["branch"]) == (
        "present",
        None,
        "cluster_completion",
    )
    gate = manifest["gate"]
    assert (gate["speaks"], gate["by"]) == (True, "deficit")
    assert 30 < gate["clusters"] <= 40
    assert gate["lacking"] == gate["value"] - gate["by_chance"] > 0.1 > gate["p"]
    assert f"{gate['lacking']:.0%} of the pool lacks labels" in describe(campaign, manifest)["labels"]
    assert any("of the pool lacks labels" in line and "cluster completion" in line for line in log)


def test_the_table_of_the_clusters_adds_up(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=60"))
    select(campaign)
    table = (campaign.stage("selection") / CLUSTERS_FILE).read_table().to_pylist()
    listed = in_clusters_order(campaign)
    everything = rows(campaign, "scores")
    assert sum(row["pool"] for row in table) == len(everything)
    assert sum(row["labels"] for row in table) == len(everything) - len(eligible(campaign))
    assert sum(row["picks"] for row in table) == 60
    assert [row["cluster"] for row in table[: len(listed)]] == [found[0]["cluster"] for found in listed]
    assert [row["key"] for row in table[:60]] == [found[0]["key"] for found in listed[:60]]
    assert [row["content_hash"] for row in table[:60]] == [found[0]["content_hash"] for found in listed[:60]]
    means = [weights(campaign, found).mean() for found in listed]
    np.testing.assert_allclose([row["mean_weight"] for row in table[: len(listed)]], means, atol=1e-5)


def test_the_control_arm_is_random_and_never_a_completion(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=60", "select.control_fraction=0.25"))
    select(campaign)
    picks = rows(campaign, "selection")
    assert [(pick["arm"], pick["origin"]) for pick in picks].count(("control", "control")) == 15
    assert [(pick["arm"], pick["origin"]) for pick in picks].count(("query", "completion")) == 45
    assert len(set(names(picks))) == 60
    assert not set(names(picks)) & labelled_items(campaign.home)


@pytest.mark.parametrize("num_centres", [40, 0])
def test_with_few_clusters_weights_decide(make_campaign: MakeCampaign, num_centres: int) -> None:
    campaign = scored(make_campaign(*PLAIN, "labels.are_biased=yes"), num_centres=num_centres)
    manifest = select(campaign)
    picks = rows(campaign, "selection")
    assert names(picks) == names(in_keys_order(campaign)[:60])
    assert {(pick["origin"], pick["reason"]) for pick in picks} == {
        ("completion", "drawn by how much the labels lack images like it")
    }
    assert (manifest["signal"], manifest["branch"], manifest["gate"]["by"]) == (
        "present", "weight_completion", "labels.are_biased",
    )  # fmt: skip
    assert "the likelier that was" in explain(campaign, *names(in_keys_order(campaign))[-1])["why"]


def test_where_nothing_is_lacking_margins_draw_in_turn(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign(*PLAIN), biased=False, margins=True)
    manifest = select(campaign)
    items = eligible(campaign)
    key_N = drawn_keys(campaign, items, 1 - np.array([row["margin"] for row in items], np.float32).astype(float))
    items = [row | {"draw": key} for row, key in zip(items, key_N, strict=True)]
    left = sorted(items, key=lambda row: (row["draw"], row["shard"], row["offset"]))
    expected: list[Row] = []
    while len(expected) < 60:
        turn: dict[int, Row] = {}
        for row in left:
            turn.setdefault(row["predicted"], row)
        expected += sorted(turn.values(), key=lambda row: (row["draw"], row["shard"], row["offset"]))
        left = [row for row in left if row not in expected]
    picks = rows(campaign, "selection")
    assert names(picks) == names(expected[:60])
    assert {pick["origin"] for pick in picks} == {"uncertainty"}
    # The score that decided is kept, of the picks and of all that the report compares them with.
    assert manifest["scored_by"] == decided_by(manifest) == "margin"
    margins = {(row["shard"], row["key"]): row["margin"] for row in rows(campaign, "scores")}
    for name in ("selection.parquet", CANDIDATES_FILE, SAMPLE_FILE):
        for row in (campaign.stage("selection") / name).read_table().to_pylist():
            assert row["score"] == margins[row["shard"], row["key"]]
    out = explain(campaign, *max(margins, key=lambda item: (item not in names(picks), margins[item])))
    assert (out["decided_by"], out["outcome"]) == ("margin", "not a candidate")
    assert "margin" in out
    assert (manifest["signal"], manifest["when_no_signal"], manifest["branch"]) == (
        "none", "uncertainty", "uncertainty_sampling",
    )  # fmt: skip


def test_without_margins_picks_are_as_random(make_campaign: MakeCampaign) -> None:
    log: list[str] = []
    campaign = scored(make_campaign(*PLAIN), biased=False)
    manifest = select(campaign, Run(log=log.append))
    picks = rows(campaign, "selection")
    assert names(picks) == names(in_keys_order(campaign)[:60])
    unsure = "no task learner says what it is unsure of"
    assert {pick["reason"] for pick in picks} == {
        f"as random, because the labels lack no part of the pool and {unsure}"
    }
    assert (manifest["signal"], manifest["branch"], decided_by(manifest)) == ("none", "as_random", "")
    (said,) = (line for line in log if line.startswith("the labels lack no part of the pool for certain, "))
    assert "of the pool lacks labels" in said
    assert said.endswith(f"select.when_no_signal=uncertainty picks as random, because {unsure}")


@pytest.mark.parametrize(
    ("word", "biased", "branch"), [("yes", False, "cluster_completion"), ("no", True, "as_random")]
)
def test_the_users_word_counts_more_than_the_test(
    make_campaign: MakeCampaign, word: str, biased: bool, branch: str
) -> None:
    campaign = scored(make_campaign(*PLAIN), biased=biased)
    first = select(campaign)
    config = override(campaign.config, parse_settings([f"labels.are_biased={word}"]), "test")
    other = select(dataclasses.replace(campaign, config=config))
    assert first["branch"] != other["branch"] == branch
    assert (first["gate"]["value"], first["gate"]["p"]) == (other["gate"]["value"], other["gate"]["p"])


def test_refuse_says_that_nothing_is_lacking(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.when_no_signal=refuse"), biased=False)
    with pytest.raises(NotAcceptableError, match="images lack no part of the pool, by deficit; label other"):
        select(campaign)
    assert select(scored(make_campaign("select.when_no_signal=refuse", name="other")))["signal"] == "present"


@pytest.mark.usefixtures("local_ray")
def test_the_choice_does_not_depend_on_the_order_of_shards_or_the_number_of_parts(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = scored(make_campaign("select.budget=60"))
    manifest = campaign.stage("scores") / "manifest.json"
    select(campaign)
    first = rows(campaign, "selection")
    clusters = (campaign.stage("selection") / CLUSTERS_FILE).read_table()
    scores = with_entries_inside(campaign)
    manifest.write_json({**scores, "shards": scores["shards"][::-1]})
    (campaign.stage("selection") / "manifest.json").delete()
    monkeypatch.setattr(parts, "PART_ROWS", 300)
    monkeypatch.setattr(parts, "MERGED_AT_ONCE", 2)
    select(campaign)
    assert rows(campaign, "selection") == first
    assert (campaign.stage("selection") / CLUSTERS_FILE).read_table() == clusters


def test_a_duplicate_gives_way_to_the_next_of_its_cluster(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=60", "select.duplicates=near", "select.control_fraction=0"))
    select(campaign)
    listed = {found[0]["cluster"]: names(found[:3]) for found in in_clusters_order(campaign)}
    picks = rows(campaign, "selection")
    place = [listed[pick["cluster"]].index((pick["shard"], pick["key"])) for pick in picks]
    assert len({pick["cluster"] for pick in picks}) == 60
    assert set(place) <= {0, 1, 2}
    # The same order of clusters, where those without an item that is no duplicate are passed over.
    order = [cluster for cluster in listed if cluster in {pick["cluster"] for pick in picks}]
    assert [pick["cluster"] for pick in picks] == order


def test_nothing_and_everything_can_be_picked(make_campaign: MakeCampaign) -> None:
    campaign = scored(make_campaign("select.budget=0"))
    assert (select(campaign)["branch"], rows(campaign, "selection")) == ("cluster_completion", [])
    total = len(eligible(campaign))
    for word in ("yes", "no"):
        words = [f"select.budget={total}", "select.duplicates=off", "select.oversample=1", f"labels.are_biased={word}"]
        config = override(campaign.config, parse_settings(words), "test")
        select(dataclasses.replace(campaign, config=config))
        assert sorted(names(rows(campaign, "selection"))) == sorted(names(eligible(campaign)))


@pytest.mark.parametrize(("word", "columns"), [("yes", []), ("no", ["logit", "offset", "margin", "predicted"])])
def test_other_rules_read_no_more_than_they_need(make_campaign: MakeCampaign, word: str, columns: list[str]) -> None:
    settings = ("select.diversity=none", f"labels.are_biased={word}")
    campaign = scored(make_campaign(*settings), num_centres=0, margins=True)
    sources = find_unpickable(campaign, table_of(records_of(campaign)), 0, lambda _: None).sources
    wish, centres = plan_pass(campaign, read_manifest(campaign, "train", TrainManifest), sources, 0)
    assert (wish.columns, wish.num_lowest > 0, centres) == (columns, word == "yes", None)
