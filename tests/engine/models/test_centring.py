"""The centres of a train folder give every scored item its cluster."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.campaign.folder import Campaign
from engine.errors import InputError
from engine.models.centring import CENTRES_FILE, load_centres, make_centres, sample_of_pool, save_centres
from engine.scoring.scorer import load_scorer
from engine.tables.scores import latents_of, unpack
from tests.conftest import MakeCampaign, pretend_trained
from tests.engine.scoring.test_chunks import chunk_of


def with_centres(campaign: Campaign, num_centres: int = 20) -> dict[str, str]:
    """Train files of the campaign, with centres of random latents. Returns SHA-256 by name."""
    pretend_trained(campaign)
    manifest = json.loads((campaign.stage("train") / "manifest.json").read_bytes())
    centres = make_centres(torch.randn(600, 32, generator=torch.Generator().manual_seed(1)) / 4, num_centres, 0)
    assert centres is not None
    manifest["files"] |= save_centres(campaign.stage("train"), centres)
    (campaign.stage("train") / "manifest.json").write_json(manifest)
    files: dict[str, str] = manifest["files"]
    return files


def test_scores_have_clusters_where_there_are_centres(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    files = with_centres(campaign)
    table = unpack(
        load_scorer(campaign.stage("train"), campaign.config, files, "cpu")
        .score_chunk(chunk_of(campaign))["scored"][0]
        .as_py()
    )
    assert table.schema.names[-4:] == ["logit", "cluster", "distance", "latent"]
    centres = load_centres(campaign.stage("train"), files)
    assert centres is not None
    cluster_N, distance_N = centres.of(torch.from_numpy(latents_of(table)))
    assert table["cluster"].to_pylist() == cluster_N.tolist()
    assert table["distance"].to_pylist() == distance_N.tolist()
    plain = {name: sha for name, sha in files.items() if name != CENTRES_FILE}
    alone = load_scorer(campaign.stage("train"), campaign.config, plain, "cpu").score_chunk(chunk_of(campaign))
    assert unpack(alone["scored"][0].as_py()) == table.drop_columns(["cluster", "distance"])


def test_clusters_do_not_depend_on_the_batch(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    files = with_centres(campaign)
    found = []
    for size in (7, 64):
        score = campaign.config.score.model_copy(update={"batch_size": size})
        config = campaign.config.model_copy(update={"score": score})
        scorer = load_scorer(campaign.stage("train"), config, files, "cpu")
        pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
        pixels = np.resize(pixels, (64, config.image.size, config.image.size, 1))
        scores = scorer(pixels, np.zeros(64, np.int64))
        found.append(scores)
    same = (found[0].latent_NZ == found[1].latent_NZ).all(axis=1)
    assert same.mean() > 0.5
    for name in ("cluster", "distance"):
        assert found[0].columns[name].dtype == np.int32
        assert (found[0].columns[name] == found[1].columns[name])[same].all()


def test_centres_of_another_training_are_refused(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    files = with_centres(campaign)
    with pytest.raises(InputError, match=r"centres\.safetensors"):
        load_centres(campaign.stage("train"), {**files, CENTRES_FILE: "0" * 64})
    assert load_centres(replace(campaign, round=1).stage("train"), {}) is None


def test_few_items_have_few_centres() -> None:
    latent_NZ = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    latent_NZ[3, 2] = torch.nan
    centres = make_centres(latent_NZ, 1000, 0)
    assert centres is not None
    assert len(centres.centre_CZ) <= 9
    assert make_centres(torch.zeros(0, 5), 10, 0) is None


def test_the_sample_has_its_share_of_the_labels() -> None:
    unlabelled_NZ, labelled_NZ = torch.zeros(100, 3), torch.arange(30.0)[:, None].expand(30, 3)
    found = [sample_of_pool(unlabelled_NZ, labelled_NZ, 400, seed) for seed in (0, 0, 1)]
    assert [len(sample) for sample in found] == [108, 108, 108]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert len(sample_of_pool(unlabelled_NZ, labelled_NZ, 100, 0)) == 130
    assert len(sample_of_pool(unlabelled_NZ, labelled_NZ, 10**9, 0)) == 101
    assert len(sample_of_pool(unlabelled_NZ, torch.empty(0, 1), 400, 0)) == 100
