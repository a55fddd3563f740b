"""`vaal select --explain`: of every item of the pool, the truth about why it was or was not picked."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import labelled_items
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import InputError
from engine.selection.explanation import explain, for_people
from engine.selection.select import select
from engine.tables.selections import CANDIDATES_FILE, CLUSTERS_FILE
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.selection.test_completing import PLAIN, eligible, names, scored
from tests.fabricate import fabricate_scores

Row = dict[str, Any]


@pytest.fixture
def selected(make_campaign: MakeCampaign) -> Campaign:
    """Round 1, with picks of round 0 still out. Every 20th latent is that of the item before it."""
    campaign = make_campaign(
        "select.budget=40", "select.oversample=3", "select.duplicates=near", "select.diversity=clusters"
    )
    for number in (0, 1):
        campaign = dataclasses.replace(campaign, round=number)
        pretend_trained(campaign)
        rng = np.random.default_rng(number)

        def latents(_: str, keys: list[str], rng: np.random.Generator = rng) -> Any:
            found = rng.normal(size=(len(keys), 32))
            found[1::20] = found[0::20][: len(found[1::20])]
            return found

        fabricate_scores(
            campaign, lambda _, keys, r=rng: r.normal(size=len(keys)), quarantine_every=50, latents=latents
        )
        select(campaign)
    return campaign


def rows(campaign: Campaign, name: str) -> list[Row]:
    return list((campaign.stage("selection") / name).read_table().to_pylist())


def why(campaign: Campaign, row: Row) -> Row:
    return explain(campaign, row["shard"], row["key"])


def test_of_a_pick_rank_arm_and_what_it_displaced(selected: Campaign) -> None:
    picks = rows(selected, "selection.parquet")
    for pick in picks:
        found = why(selected, pick)
        assert found["outcome"] == "picked"
        assert (found["rank"], found["arm"], found["reason"]) == (pick["rank"], pick["arm"], pick["reason"])
        assert f"rank {pick['rank'] + 1} of 40: {pick['reason']}" in found["why"]
        assert (pick["displaced_key"] is not None) == ("by the scores alone" in found["why"])
    assert any(pick["displaced_key"] for pick in picks)
    assert {pick["arm"] for pick in picks} == {"query", "control"}


def test_of_candidates_what_they_duplicate_or_that_others_came_first(selected: Campaign) -> None:
    candidates = rows(selected, CANDIDATES_FILE)
    duplicates = [row for row in candidates if row["fate"] == "duplicate"]
    assert duplicates
    for row in duplicates:
        found = why(selected, row)
        assert found["outcome"] == "duplicate"
        assert f"with nearly the same latent as {row['of_shard']} {row['of_key']}" in found["why"]
    place, passed = next((n, row) for n, row in enumerate(candidates) if row["fate"] == "passed over")
    found = why(selected, passed)
    assert (found["outcome"], found["candidate"]) == ("not picked", place)
    assert found["why"].startswith(f"candidate {place + 1} of 120; others were picked first")


def test_of_all_others_what_kept_them_out(selected: Campaign) -> None:
    shard, key = sorted(labelled_items(selected.home))[0]
    assert explain(selected, shard, key)["outcome"] == "labelled"
    out = dataclasses.replace(selected, round=0)
    found = why(selected, rows(out, "selection.parquet")[3])
    assert found["outcome"] == "out at a vendor"
    assert "picked in round 000" in found["why"]
    file = records_of(selected)[2].file
    bad = (selected.stage("quarantine") / file).read_table().to_pylist()[0]
    assert why(selected, bad) | {"why": ""} == {
        "shard": bad["shard"], "key": bad["key"], "outcome": "quarantined", "why": "",
    }  # fmt: skip
    scores = (selected.stage("scores") / file).read_table()
    highest = scores.filter(pc.equal(scores["logit"], pc.max(scores["logit"]))).to_pylist()[0]
    found = why(selected, highest)
    assert found["outcome"] == "not a candidate"
    assert re.search(r"its logit [\d.]+ is above −[\d.]+, the highest of the 120 candidates", found["why"])


def test_what_is_not_in_the_pool_is_an_error(selected: Campaign, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.tar: no such shard in the pool; .* like digits-00000.tar"):
        explain(selected, "nowhere.tar", "1")
    with pytest.raises(InputError, match=r"digits-00000.tar: no item 'x', neither scored nor quarantined"):
        explain(selected, "digits-00000.tar", "x")


@pytest.mark.heavy
@pytest.mark.parametrize("diversity", ["none", "clusters"])
def test_another_score_ranks_and_what_the_labels_lack_is_measured(make_campaign: MakeCampaign, diversity: str) -> None:
    asked = ("train.task=classification", 'score.acquisition=["vaal","margin"]', "select.acquisition=margin")
    campaign = scored(make_campaign(*PLAIN, *asked, f"select.diversity={diversity}"), margins=True)
    manifest = select(campaign)
    picks, gate = rows(campaign, "selection.parquet"), manifest["gate"]
    if diversity == "none":
        lowest = sorted(eligible(campaign), key=lambda row: (row["margin"], row["shard"], row["key"]))[:60]
        assert names(picks) == names(lowest)
        assert [pick["cluster"] for pick in picks] == [row["cluster"] for row in lowest]
        (part,) = (row for row in rows(campaign, CLUSTERS_FILE) if row["cluster"] == picks[0]["cluster"])
        found = why(campaign, picks[0])
        assert (found["cluster_images"], found["cluster_labels"]) == (part["pool"], part["labels"])
    # A method that chooses among clusters makes them of the candidates.
    assert (CLUSTERS_FILE in manifest["files"]) == (diversity == "none")
    by_vaal = override(campaign.config, parse_settings(["select.acquisition=vaal"]), "test")
    other = select(dataclasses.replace(campaign, config=by_vaal))["gate"]
    assert (gate["by"], gate["speaks"], gate["lacking"] > 0.1) == ("select.acquisition", True, True)
    assert {**gate, "by": other["by"], "speaks": other["speaks"]} == other


def test_a_person_reads_places_from_1_few_digits_and_nothing_that_is_not_known(selected: Campaign) -> None:
    (first, *_) = rows(selected, "selection.parquet")
    found = why(selected, first)
    shown = for_people(found)
    assert (found["rank"], shown["rank"]) == (0, 1)
    assert found["score"] == first["score"]
    assert len(shown["score"].strip("−").replace(".", "").lstrip("0")) == 4
    assert shown["decided_by"] == "vaal"
    assert None not in shown.values()
    assert not shown.keys() & {"shard", "key", "outcome", "predicted"}
