"""A campaign that begins without a label: a spread first batch, and a normal second round."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_labels
from engine.campaign.manifests import SelectionManifest, TrainManifest, read_manifest
from engine.campaign.opening import create, open_campaign
from engine.campaign.stages import STAGES, Run, run_stage
from engine.campaign.unlabelled import begins_without_labels
from engine.config.first_round import without_labels
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import ConfigError
from engine.planning.next_round import plan_round
from engine.planning.trial import run_trial
from engine.report.lacking import NO_LABELS, finding_in_words
from engine.simulation.demo_pools import DemoPool
from tests.engine.training.test_rounds_on_embeddings import embeddings, table_of
from tests.sendings import take_in

SETTINGS = ("select.budget=40", "device=cpu", "score.workers=1", "train.epochs=2", "labels.close_when=all")


def configured(pool: DemoPool, *settings: str) -> CampaignConfig:
    return override(CampaignConfig(), parse_settings([*pool.settings, *SETTINGS, *settings]), "test")


def begun(folder: Path, pool: DemoPool, lines: list[str], *settings: str) -> Campaign:
    return create(str(folder / "campaign"), pool.shards, "", configured(pool, *settings), lines.append)


def test_init_says_what_the_first_round_does_and_its_configuration_is_kept_for_the_next(
    pool: DemoPool, tmp_path: Path
) -> None:
    lines: list[str] = []
    campaign = begun(tmp_path, pool, lines, "train.task=classification", "score.acquisition=['vaal','margin']")
    assert lines[-1] == (
        "no labels yet: nothing is trained on labels in this round, and its 40 picks are a random sample of the pool; "
        "with embeddings (pool.embeddings) they would be spread"
    )
    assert len(read_labels(campaign.home)) == 0
    opened = open_campaign(str(campaign.home), ["select.budget=41"])
    assert (opened.config.select.acquisition, opened.config.select.budget) == ("random", 41)
    assert (opened.config.score.acquisition, opened.config.train.task) == (["random"], "none")
    assert begins_without_labels(opened)
    text = (campaign.home / "campaign.toml").read_bytes().decode()
    assert 'task = "classification"' in text
    with pytest.raises(ConfigError, match=r"labels.classes=from-init: there are no labels at init; name the classes"):
        begun(tmp_path / "other", pool, lines, "labels.classes=from-init")
    assert not (tmp_path / "other/campaign/labels").exists()


def test_the_rule_is_replaced_where_it_needs_labels_and_alone_there(pool: DemoPool) -> None:
    embedded = configured(pool, "pool.embeddings=member:npy")
    assert without_labels(embedded).select.diversity == "herding"
    many = override(embedded, {"select.budget": 2501}, "test")
    assert without_labels(many).select.diversity == "typiclust"
    own = override(
        embedded, {"score.acquisition": ["random"], "select.acquisition": "random", "train.task": "none"}, "test"
    )
    assert without_labels(own) == own
    kept = without_labels(override(embedded, {"select.per_group": 2, "pool.group": "x", "select.seed": 3}, "test"))
    assert (kept.select.per_group, kept.select.seed) == (2, 3)


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embeddings", "pixels"])
def test_two_rounds(pool: DemoPool, tmp_path: Path, kind: str) -> None:
    settings = []
    if kind == "embeddings":
        pq.write_table(table_of(embeddings(pool)), tmp_path / "vectors.parquet")
        settings = [f"pool.embeddings={tmp_path}/vectors.parquet"]
    lines: list[str] = []
    campaign = begun(tmp_path, pool, lines, *settings)
    url = str(campaign.home)
    for stage in STAGES:
        run_stage(stage.command, open_campaign(url), Run(log=lines.append))
    assert sum(line.startswith("no labels yet") for line in lines) == 2
    trained = read_manifest(campaign, "train", TrainManifest)
    assert (trained["counts"]["labelled"], trained["diagnosis"]["is_trained"]) == (0, False)
    assert trained["diagnosis"]["findings"] == ["VAAL was not trained: there are no labels yet"]
    manifest = read_manifest(campaign, "selection", SelectionManifest)
    assert manifest["branch"] == ("herding" if kind == "embeddings" else "none")
    if kind == "embeddings":
        assert finding_in_words(manifest) == (NO_LABELS, "")
    picks = (campaign.stage("selection") / "selection.parquet").read_table().to_pylist()
    classes = Counter(pool.oracle[pick["shard"], pick["key"]] for pick in picks)
    # A spread batch of 40 has nearly all ten digits.
    assert len(classes) >= (9 if kind == "embeddings" else 6)
    whole = open_campaign(url, with_labels=True)
    planned = plan_round(whole, "cpu", lambda shard: run_trial(whole.config, shard, "cpu"))
    # On embeddings VAAL is fitted at once.
    assert (planned.round, planned.num_labels, planned.stages[0].steps > 0) == (1, 40, kind == "pixels")
    answers = tmp_path / "answers.jsonl"
    rows = ({"item_id": pick["item_id"], "label": pool.oracle[pick["shard"], pick["key"]]} for pick in picks)
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    take_in(open_campaign(url), answers)
    second = open_campaign(url)
    assert (second.round, second.config.select.acquisition) == (1, "vaal")
    run_stage("train", open_campaign(url), Run(log=lines.append))
    assert read_manifest(second, "train", TrainManifest)["counts"]["labelled"] == 40
    # What was made without labels is still as it was made.
    assert begins_without_labels(open_campaign(url, (), 0))
    assert open_campaign(url, (), 0).config.select.acquisition == "random"
