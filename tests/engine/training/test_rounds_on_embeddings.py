"""A whole round on embeddings, from files and by an encoder: trained, scored, with faults named and nothing decoded;
and a simulated round that gives the scores that the commands give on the same embeddings and labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.campaign.folder import Campaign
from engine.campaign.labels import read_labels
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.stages import Run
from engine.config.input_options import ImageConfig
from engine.errors import InputError
from engine.models.encoders import load_encoder
from engine.models.weights import load_networks
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards
from engine.scoring.score import score
from engine.selection.select import select
from engine.simulation.demo_pools import DemoPool
from engine.simulation.vector_round import train_and_score
from engine.training.train import train
from tests.committed import records_of
from tests.conftest import MakeCampaign
from vaal.standardise import Standardiser

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("local_ray")]
SETTINGS = (
    "train.batch_size=16", "score.workers=1", "select.budget=40", "score.max_bad_fraction=0.1", "device=cpu",
)  # fmt: skip
IMAGE = ImageConfig(size=8, channels=1)


def embeddings(pool: DemoPool) -> dict[tuple[str, str], Any]:
    """The pixels of each digit as a vector of 64, and another 100 of noise, so that directions are left out."""
    rng, found = np.random.default_rng(0), {}
    for shard in list_shards(pool.shards, "")[0]:
        for item in read_shard(shard, IMAGE):
            pixels = decode(item.data, IMAGE).astype(np.float32).ravel() / 64
            found[shard.shard, item.key] = np.concatenate([pixels, rng.normal(0, 0.1, 100)]).astype(np.float32)
    return found


def table_of(vectors: dict[tuple[str, str], Any]) -> pa.Table:
    shards, keys = zip(*vectors, strict=True)
    values = pa.array(np.concatenate(list(vectors.values())))
    return pa.table({"shard": shards, "key": keys, "embedding": pa.FixedSizeListArray.from_arrays(values, 164)})


def a_round(campaign: Campaign) -> None:
    train(campaign, Run(log=lambda _: None))
    score(campaign, Run(log=lambda _: None))


def scores(campaign: Campaign) -> dict[tuple[str, str], tuple[float, Any]]:
    found = {}
    for record in records_of(campaign):
        table = (campaign.stage("scores") / record.file).read_table(["key", "logit", "latent"])
        found |= {(record.shard, row["key"]): (row["logit"], row["latent"]) for row in table.to_pylist()}
    return found


def assert_simulated_the_same(campaign: Campaign, vectors: dict[tuple[str, str], Any]) -> None:
    """Of the round of a method without a VAE, by the items that have a vector."""
    names = list(vectors)
    place = {name: number for number, name in enumerate(names)}
    rows = sorted(read_labels(campaign.home).to_pylist(), key=lambda row: (row["shard"], row["key"]))
    labels = [row for row in rows if (row["shard"], row["key"]) in place]
    place_L = np.array([place[row["shard"], row["key"]] for row in labels], np.intp)
    vector_ND = np.stack(list(vectors.values()))
    found = train_and_score(campaign, names, vector_ND, place_L, [row["label"] for row in labels])
    columns = ["key", "logit", "margin", "predicted", "cluster", "distance"]
    num_compared = 0
    for record in records_of(campaign):
        for row in (campaign.stage("scores") / record.file).read_table(columns).to_pylist():
            at, num_compared = place[record.shard, row["key"]], num_compared + 1
            for name in ("logit", "margin"):
                assert row[name] == pytest.approx(found.scores.columns[name][at], abs=1e-4)
            for name in ("predicted", "cluster", "distance"):
                assert row[name] == found.scores.columns[name][at]
    assert num_compared == len(names)
    trained = read_manifest(campaign, "train", TrainManifest)
    assert trained["task"] == found.details["task"]
    assert trained["diagnosis"]["auc"] == pytest.approx(found.diagnosis.auc.value, abs=1e-4)


# Without a limit on the steps the pool is read whole and in its order, as a simulated round reads it.
@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize(("method", "steps"), [("vaal", ("train.max_steps=40",)), ("features", ())])
def test_a_round_on_embeddings_in_parquet(
    make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path, method: str, steps: tuple[str, ...]
) -> None:
    vectors = embeddings(pool)
    whole = dict(vectors)
    faulty = [item for item in vectors if item[0] == "digits-00003.tar"][:6]
    usable = {item: vector for item, vector in vectors.items() if item not in faulty}
    for item in faulty[:3]:
        vectors[item] = np.full(164, np.nan, np.float32)
    for item in faulty[3:]:
        del vectors[item]
    pq.write_table(table_of(vectors), tmp_path / "e.parquet", row_group_size=300)
    campaign = make_campaign(*SETTINGS, *steps, f"train.method={method}", f"pool.embeddings={tmp_path}/e.parquet")
    a_round(campaign)
    if method == "features":
        assert_simulated_the_same(campaign, usable)
    manifest = read_manifest(campaign, "train", TrainManifest)
    assert manifest["embedding"]["length"] == 164
    assert ("vae.safetensors" in manifest["files"]) == (method == "vaal")
    found = scores(campaign)
    assert found.keys() == whole.keys() - set(faulty)
    networks = load_networks(campaign.stage("train"), campaign.config, manifest["files"])
    assert isinstance(networks.embedding, Standardiser)
    items = list(found)[::50]
    latents = networks.embedding(torch.from_numpy(np.stack([whole[item] for item in items])))
    np.testing.assert_array_equal(np.array([found[item][1] for item in items]), latents.half().numpy())
    (bad,) = Path((campaign.stage("quarantine")).path).glob("*.parquet")
    rows = pq.read_table(bad).to_pylist()
    assert {(row["stage"], row["error"]) for row in rows} == {("embedding", "NotFinite"), ("embedding", "NoVector")}
    assert {(row["shard"], row["key"]) for row in rows} == set(faulty)
    select(campaign)
    picks = (campaign.stage("selection") / "selection.parquet").read_table(["shard", "key"]).to_pylist()
    assert len(picks) == 40
    assert not {(pick["shard"], pick["key"]) for pick in picks} & set(faulty)
    # Other vectors under the same keys are not scored by networks that never saw the like.
    pq.write_table(table_of(dict(zip(vectors, reversed(vectors.values()), strict=True))), tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"e\.parquet: the embeddings changed since the networks were trained on them"):
        score(campaign)


@pytest.mark.timeout(480)
def test_a_round_with_an_encoder(make_campaign: MakeCampaign, pool: DemoPool) -> None:
    encoder = (
        "encoder.model=tests.encoders:Blocks", "encoder.arguments={length=12, channels=1}", "encoder.size=16",
        "encoder.mean=[0.5]", "encoder.std=[0.25]",
    )  # fmt: skip
    campaign = make_campaign(*SETTINGS, *encoder, "train.method=features")
    a_round(campaign)
    manifest = read_manifest(campaign, "train", TrainManifest)
    assert manifest["embedding"]["length"] == 12
    networks = load_networks(campaign.stage("train"), campaign.config, manifest["files"])
    assert networks.embedding is not None
    (shard, *_), image = list_shards(pool.shards, "")[0], ImageConfig(size=16, channels=1)
    items = list(read_shard(shard, image))
    pixels = torch.from_numpy(np.stack([decode(item.data, image) for item in items]))
    latents = networks.embedding(load_encoder(campaign.config.encoder, "cpu").encoder(pixels)).numpy()
    found = scores(campaign)
    assert len(found) == 1797
    stored = np.array([found[shard.shard, item.key][1] for item in items])
    # The encoder's sums may be in another order, and float16 rounds.
    np.testing.assert_allclose(stored, latents, atol=5e-3)
