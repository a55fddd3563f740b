"""A simulated round gives the scores that the commands give on the same embeddings and labels."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.campaign.labels import read_labels
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.scoring.score import score
from engine.simulation.demo_pools import DemoPool
from engine.simulation.vector_round import train_and_score
from engine.training.train import train
from tests.conftest import MakeCampaign
from tests.engine.training.test_rounds_on_embeddings import embeddings, table_of

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("local_ray")]


def test_scores_clusters_and_margins_are_those_of_the_commands(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    vectors = embeddings(pool)
    pq.write_table(table_of(vectors), tmp_path / "embeddings.parquet")
    campaign = make_campaign(f"pool.embeddings={tmp_path}/embeddings.parquet", "select.budget=50", "device=cpu")
    train(campaign)
    score(campaign)
    names = list(vectors)
    place = {name: number for number, name in enumerate(names)}
    labels = read_labels(campaign.home).sort_by([("shard", "ascending"), ("key", "ascending")]).to_pylist()
    place_L = np.array([place[row["shard"], row["key"]] for row in labels], np.intp)
    vector_ND = np.stack(list(vectors.values()))
    found = train_and_score(campaign, names, vector_ND, place_L, [row["label"] for row in labels])
    columns = ["key", "logit", "margin", "predicted", "cluster", "distance"]
    for entry in read_manifest(campaign, "scores", ScoresManifest)["shards"]:
        for row in (campaign.stage("scores") / entry["file"]).read_table(columns).to_pylist():
            at = place[entry["shard"], row["key"]]
            for name in ("logit", "margin"):
                assert row[name] == pytest.approx(found.scores.columns[name][at], abs=1e-4)
            for name in ("predicted", "cluster", "distance"):
                assert row[name] == found.scores.columns[name][at]
    trained = read_manifest(campaign, "train", TrainManifest)
    assert trained["task"] == found.details["task"]
    assert trained["diagnosis"]["auc"] == pytest.approx(found.diagnosis.auc.value, abs=1e-4)
