"""Laws 5 and 6: the selection equals its definition, and picks nothing labelled, quarantined or picked before."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.freshness import content_of
from engine.campaign.handed_out import picked_items
from engine.campaign.labels import labelled_items
from engine.campaign.manifests import Manifest, read_manifest
from engine.campaign.opening import create
from engine.campaign.stages import Run
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError, InputError
from engine.pool.identity import item_id_of
from engine.selection import parts
from engine.selection.select import select
from engine.tables.selections import HISTOGRAM_FILE, SAMPLE_FILE, SAMPLE_SIZE
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores
from tests.rounds import encoded, write_shard

PAPER = ("select.diversity=none", "select.duplicates=off", "select.control_fraction=0")


@pytest.fixture
def scored(make_campaign: MakeCampaign) -> Campaign:
    """Scores with many ties, and every 50th item in quarantine."""
    campaign = make_campaign(*PAPER)
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(campaign, lambda _, keys: rng.integers(-20, 20, len(keys)), quarantine_every=50)
    return campaign


def rows(campaign: Campaign, stage: str, pattern: str = "*.parquet") -> list[dict[str, object]]:
    files = sorted(Path(campaign.stage(stage).path).glob(pattern))
    return pa.concat_tables([(campaign.stage(stage) / f.name).read_table() for f in files]).to_pylist()


def test_selection_is_sort_everything_and_take_b(scored: Campaign) -> None:
    manifest = select(scored)
    labelled = labelled_items(scored.home)
    everything = [row for row in rows(scored, "scores") if (row["shard"], row["key"]) not in labelled]
    expected = sorted(everything, key=lambda row: (row["logit"], row["shard"], row["key"]))[:100]
    picks = rows(scored, "selection")
    for column in ("logit", "shard", "key", "offset", "size_bytes"):
        assert [pick[column] for pick in picks] == [row[column] for row in expected]
    assert [pick["rank"] for pick in picks] == list(range(100))
    assert {pick["arm"] for pick in picks} == {"query"}
    counts = manifest["counts"]
    assert counts["eligible"] == len(everything)
    assert (counts["candidates"], counts["control"], counts["picked"], counts["picked_before"]) == (300, 0, 100, 0)
    assert manifest["highest_candidate_score"] == sorted(row["logit"] for row in everything)[299]
    assert {pick["displaced_key"] for pick in picks} == {None}
    assert manifest["highest_picked_score"] == expected[-1]["logit"]
    assert {pick["reason"] for pick in picks} == {"least like the labelled images (lowest logit)"}
    assert (manifest["signal"], manifest["when_no_signal"]) == ("present", None)
    for stage in ("train", "scores"):
        assert manifest["inputs"][stage] == content_of(read_manifest(scored, stage, Manifest))


def test_tasks_of_a_cluster_pick_what_one_process_picks(
    make_campaign: MakeCampaign, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = make_campaign("select.diversity=gumbel")
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(campaign, lambda _, keys: rng.integers(-20, 20, len(keys)), quarantine_every=50)
    select(campaign)
    folder = Path(campaign.stage("selection").path)
    alone = {file.name: file.read_bytes() for file in folder.rglob("*.parquet")}
    assert len(alone) == 4
    (campaign.stage("selection") / "manifest.json").delete()
    monkeypatch.setattr(parts, "PART_ROWS", 300)
    shares: list[float] = []
    select(campaign, Run(on_progress=lambda share, _: shares.append(share)))
    assert {file.name: file.read_bytes() for file in folder.rglob("*.parquet")} == alone
    assert {pick["arm"] for pick in rows(campaign, "selection")} == {"query", "control"}
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (15, 1)


def test_a_picture_is_paid_for_once_in_whatever_clothes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        np.kron(rng.integers(0, 256, (8, 8, 1), np.uint8), np.ones((8, 8, 3), np.uint8)).astype(np.uint8)
        for _ in range(30)
    ]
    members = {f"{number:02d}.png": encoded(picture) for number, picture in enumerate(pictures)}
    # Copies that score lower than their originals: the same bytes, as a JPEG, mirrored.
    for number in range(10):
        members[f"{number:02d}-bytes.png"] = members[f"{number:02d}.png"]
        members[f"{number:02d}-jpeg.jpg"] = encoded(pictures[number], "JPEG")
        members[f"{number:02d}-mirror.png"] = encoded(np.ascontiguousarray(pictures[number][:, ::-1]))
    write_shard(tmp_path / "a.tar", members)
    (tmp_path / "labels.csv").write_text("shard,key,label\na.tar,00,x\na.tar,01-jpeg,x\n")
    settings = {"image.size": 32, "select.budget": 20, "select.control_fraction": 0.0, "select.diversity": "none"}
    config = override(CampaignConfig(), settings, "test")
    campaign = create(str(tmp_path / "c"), [f"{tmp_path}/a.tar"], f"{tmp_path}/labels.csv", config, lambda _: None)
    pretend_trained(campaign)
    fabricate_scores(campaign, lambda _, keys: np.array([-len(key) + int(key[:2]) / 100 for key in keys]))
    manifest = select(campaign)
    picks = rows(campaign, "selection")
    originals = [str(pick["key"])[:2] for pick in picks]
    assert len(set(originals)) == len(originals) == 20
    assert not {"00", "01"} & set(originals)
    assert {f"{number:02d}-mirror" for number in range(2, 10)} <= {pick["key"] for pick in picks}
    assert manifest["counts"]["duplicates_bytes"] > 0 < manifest["counts"]["duplicates_picture"]
    assert [pick["group_size"] for pick in picks[:8]] == [4] * 8


def test_nothing_labelled_quarantined_or_picked_before_is_picked(scored: Campaign) -> None:
    taken = labelled_items(scored.home)
    taken |= {(row["shard"], row["key"]) for row in rows(scored, "quarantine")}  # type: ignore[misc]
    assert len(taken) > 200
    for number in range(3):
        round_campaign = dataclasses.replace(scored, round=number)
        rng = np.random.default_rng(number)
        pretend_trained(round_campaign)
        fabricate_scores(round_campaign, lambda _, keys, rng=rng: rng.normal(size=len(keys)), quarantine_every=50)
        select(round_campaign)
        picks = {(row["shard"], row["key"]) for row in rows(round_campaign, "selection")}
        assert len(picks) == 100
        assert not picks & taken
        taken |= picks  # type: ignore[arg-type]
    assert picked_items(scored.home, before=3).num_rows == 300


def test_a_second_call_changes_nothing(scored: Campaign) -> None:
    first = select(scored)
    file = Path((scored.stage("selection") / "selection.parquet").path)
    before = file.stat().st_mtime_ns
    assert select(scored) == first
    assert file.stat().st_mtime_ns == before


def test_item_ids_are_opaque_and_follow_the_salt(scored: Campaign) -> None:
    select(scored)
    for pick in rows(scored, "selection"):
        assert pick["item_id"] == item_id_of(str(pick["shard"]), str(pick["key"]), scored.config.salt)
    assert item_id_of("a", "b", "1" * 32) != item_id_of("a", "b", "2" * 32)
    assert item_id_of("a", "bc", "1" * 32) != item_id_of("ab", "c", "1" * 32)


def test_a_budget_above_the_candidates_is_refused(scored: Campaign) -> None:
    config = scored.config.model_copy(update={"select": scored.config.select.model_copy(update={"budget": 1597})})
    with pytest.raises(ConfigError, match=r"select.budget=1597: only \d+ items are neither labelled, .*--set select"):
        select(dataclasses.replace(scored, config=config))
    assert not (scored.stage("selection") / "manifest.json").exists()


def test_scores_that_were_damaged_are_refused_by_name(scored: Campaign) -> None:
    file = sorted(Path(scored.stage("scores").path).glob("*.parquet"))[3]
    content = bytearray(file.read_bytes())
    logits = pq.read_metadata(file).row_group(0).column(6)
    assert logits.path_in_schema == "logit"
    content[logits.data_page_offset + logits.total_compressed_size - 1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{file.name}: damaged since it was committed"):
        select(scored)


def test_selection_needs_scores(make_campaign: MakeCampaign) -> None:
    with pytest.raises(InputError, match=r"scores: not complete; run: vaal score"):
        select(make_campaign())


def sample_of(campaign: Campaign) -> list[tuple[object, object]]:
    table = (campaign.stage("selection") / SAMPLE_FILE).read_table()
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


@pytest.mark.heavy
def test_the_sample_for_the_report_is_uniform_over_what_was_not_picked(scored: Campaign) -> None:
    open_to_picks = {(row["shard"], row["key"]) for row in rows(scored, "scores")} - labelled_items(scored.home)
    drawn: Counter[tuple[object, object]] = Counter()
    first: Counter[tuple[object, object]] = Counter()
    for seed in range(20):
        config = scored.config.model_copy(update={"select": scored.config.select.model_copy(update={"seed": seed})})
        campaign = dataclasses.replace(scored, config=config)
        select(campaign)
        sample, picks = sample_of(campaign), {(row["shard"], row["key"]) for row in rows(campaign, "selection")}
        assert len(sample) == len(set(sample)) == SAMPLE_SIZE
        assert set(sample) <= open_to_picks - picks
        drawn.update(sample)
        first.update(sample[:6])
    # 20 x 48 draws of some 1,460 items: 0.66 a piece. Any prefix of a sample is a sample too.
    assert max(drawn.values()) <= 7
    assert len(drawn) > 0.4 * len(open_to_picks - picks)
    by_shard = Counter(shard for shard, _ in first.elements())
    assert all(3 <= by_shard[shard] <= 30 for shard in {shard for shard, _ in open_to_picks})
    select(campaign, force=True)
    assert sample_of(campaign) == sample


def test_a_sample_of_what_is_left_has_all_of_it_where_that_is_little(scored: Campaign) -> None:
    total = select(scored)["counts"]["eligible"]
    options = scored.config.select.model_copy(update={"budget": total - 5})
    campaign = dataclasses.replace(scored, config=scored.config.model_copy(update={"select": options}))
    select(campaign)
    picks = {(row["shard"], row["key"]) for row in rows(campaign, "selection")}
    assert len(set(sample_of(campaign)) - picks) == 5


def test_the_histogram_counts_every_score_in_its_group(scored: Campaign) -> None:
    manifest = select(scored)
    table = (scored.stage("selection") / HISTOGRAM_FILE).read_table()
    found, labelled = rows(scored, "scores"), labelled_items(scored.home)
    for row in table.to_pylist():
        here = [item for item in found if row["low"] <= item["logit"] < row["high"]]
        assert row["labelled"] == sum((item["shard"], item["key"]) in labelled for item in here)
        assert row["eligible"] + row["labelled"] == len(here)
        assert row["out"] == 0
    assert sum(table["eligible"].to_pylist()) == manifest["counts"]["eligible"]
