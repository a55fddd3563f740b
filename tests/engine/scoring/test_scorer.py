"""Law 3 for the networks alone: a score is the image's, whatever the batch, the memory and the others in the chunk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.opening import open_campaign
from engine.config.options import CampaignConfig
from engine.config.texts import parse_settings
from engine.config.toml import override
from engine.errors import ConfigError
from engine.scoring.scorer import Scorer, load_scorer
from engine.tables.scores import unpack
from tests.conftest import MakeCampaign, pretend_trained

TOLERANCE = 1e-5
"""Of a logit, over batch sizes: convolutions sum in another order."""


def make_scorer(campaign: Campaign, **settings: object) -> Scorer:
    options = campaign.config.score.model_copy(update=settings)
    weights = read_manifest(campaign, "train", TrainManifest)["files"]
    return load_scorer(campaign.stage("train"), campaign.config.model_copy(update={"score": options}), weights, "cpu")


@pytest.fixture
def campaign(make_campaign: MakeCampaign) -> Campaign:
    made = make_campaign("image.size=32")
    pretend_trained(made)
    return made


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 1), np.uint8), rng.integers(0, 2, count)


def test_a_score_does_not_depend_on_the_batch(campaign: Campaign) -> None:
    pixels, fold = images(50)
    one, all_at_once, auto = (make_scorer(campaign, batch_size=size)(pixels, fold) for size in (1, 64, "auto"))
    np.testing.assert_allclose(one.columns["logit"], all_at_once.columns["logit"], atol=TOLERANCE)
    np.testing.assert_allclose(one.columns["logit"], auto.columns["logit"], atol=TOLERANCE)
    np.testing.assert_allclose(one.latent_NZ, auto.latent_NZ, atol=1e-3)
    order = np.random.default_rng(1).permutation(50)
    mixed = make_scorer(campaign, batch_size=7)(pixels[order], fold[order])
    np.testing.assert_allclose(mixed.columns["logit"], one.columns["logit"][order], atol=TOLERANCE)
    assert (one.columns["logit"].dtype, one.latent_NZ.dtype) == (np.float32, np.float16)


def test_the_same_batches_give_the_same_bits(campaign: Campaign) -> None:
    pixels, fold = images(40)
    first, second = (make_scorer(campaign)(pixels, fold) for _ in range(2))
    assert first.columns["logit"].tobytes() == second.columns["logit"].tobytes()
    assert first.latent_NZ.tobytes() == second.latent_NZ.tobytes()


def test_every_acquisition_that_is_asked_for_is_a_column(make_campaign: MakeCampaign) -> None:
    from tests.engine.scoring.test_chunks import chunk_of

    campaign = make_campaign("train.task=classification", "score.acquisition=['margin','vaal']")
    pretend_trained(campaign)
    scorer = make_scorer(campaign)
    items = unpack(scorer.score_chunk(chunk_of(campaign))["scored"][0].as_py())
    assert items.schema.names[-4:] == ["logit", "margin", "predicted", "latent"]
    alone = unpack(make_scorer(campaign, acquisition=["vaal"]).score_chunk(chunk_of(campaign))["scored"][0].as_py())
    assert alone.schema.names[-2:] == ["logit", "latent"]
    assert items.drop_columns(["margin", "predicted"]) == alone
    margin = items["margin"].to_numpy()
    assert 0 <= margin.min() < margin.max() <= 1
    assert set(items["predicted"].to_pylist()) <= set(range(7))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["score.acquisition=['margin']"], r"does not have select.acquisition=vaal; --set select.acquisition=margin"),
        (["score.acquisition=['vaal','vaal']"], "name each acquisition once"),
        (
            ["score.acquisition=['vaal','margin']"],
            "^--set: score.acquisition=margin needs a task learner: --set train.task=.* --set task.model=... for ",
        ),
        (["select.acquisition=margin"], "select.acquisition=margin needs a task learner"),
        # What decides between equal scores was set by nobody.
        (["select.acquisition=variation_ratio"], "^--set: select.acquisition=variation_ratio needs a task learner"),
        (
            ["score.acquisition=['vaal','bald']", "score.dropout=network", "pool.embeddings=member:npy"],
            "score.dropout=network: a linear head on embeddings has no layer of dropout",
        ),
        (
            ["score.acquisition=['vaal','bald']", "score.dropout=network", "train.task=classification"],
            "train.task_network=small has no layer of dropout; --set score.dropout=features, or train.task_network=vgg",
        ),
        (
            ["select.acquisition=entropy", "train.task=classification", "select.diversity=completion"],
            "chooses by VAAL's discriminators, not by select.acquisition=entropy; use auto",
        ),
        (["score.acquisition=['entropy']", "select.acquisition=entropy"], "needs a task learner"),
        (["select.diversity=badge"], "select.diversity=badge needs a task learner"),
        (["score.acquisition=['vaal','magic']"], "give 'vaal', 'least_confidence', "),
    ],
)
def test_an_acquisition_that_cannot_be_had_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(CampaignConfig(), parse_settings(settings), "--set")


def test_nothing_is_scored_as_nothing(campaign: Campaign) -> None:
    scores = make_scorer(campaign)(*images(0))
    assert scores.columns["logit"].shape == (0,)
    assert scores.latent_NZ.shape == (0, 32)


def test_half_precision_is_the_encoders_alone(campaign: Campaign) -> None:
    pixels, fold = images(30)
    exact, half = make_scorer(campaign)(pixels, fold), make_scorer(campaign, precision="bf16")(pixels, fold)
    np.testing.assert_allclose(half.columns["logit"], exact.columns["logit"], atol=0.05)
    assert (half.columns["logit"] != exact.columns["logit"]).any()
    assert (half.columns["logit"] != torch.tensor(half.columns["logit"]).bfloat16().float().numpy()).any()


def test_an_image_without_a_finite_score_is_quarantined_alone(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.engine.scoring.test_chunks import chunk_of

    scorer = make_scorer(campaign)
    row = chunk_of(campaign)
    whole = scorer.score_chunk(row).to_pylist()[0]
    items = unpack(whole["scored"]).to_pylist()
    spoilt_calls = [False] * 100 + [True]
    # The weights of a network may be finite and still overflow on some image.
    score = scorer._functions["logit"]
    monkeypatch.setitem(scorer._functions, "logit", lambda *inputs: spoil(score(*inputs)))

    def spoil(scored: torch.Tensor) -> torch.Tensor:
        logit = scored.clone()
        if spoilt_calls.pop():
            logit[2] = float("nan")
        return logit

    spoilt = scorer.score_chunk(row).to_pylist()[0]
    assert unpack(spoilt["scored"]).to_pylist() == items[:2] + items[3:]
    (bad,) = unpack(spoilt["bad"]).to_pylist()
    assert (bad["key"], bad["stage"], bad["error"]) == (items[2]["key"], "score", "NotFinite")
    assert spoilt["num_items"] == len(items)


TIGHT = f"""
import pickle, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from {open_campaign.__module__} import open_campaign
from {read_manifest.__module__} import TrainManifest, read_manifest
from {Scorer.__module__} import load_scorer
campaign = open_campaign(sys.argv[1], ["score.batch_size=2048"])
weights = read_manifest(campaign, "train", TrainManifest)["files"]
scorer = load_scorer(campaign.stage("train"), campaign.config, weights, "cpu")
rng = np.random.default_rng(0)
pixels, fold = rng.integers(0, 256, (2048, 32, 32, 1), np.uint8), rng.integers(0, 2, 2048)
scorer(pixels[:8], fold[:8])
used = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
scores = scorer(pixels, fold)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
pickle.dump((scores.columns["logit"], scorer._notes), sys.stdout.buffer)
"""


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_noted(campaign: Campaign) -> None:
    import pickle

    ended = subprocess.run(
        [sys.executable, "-c", TIGHT, str(campaign.home)], capture_output=True, timeout=100, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()
    logit, notes = pickle.loads(ended.stdout)
    assert notes[0].startswith(
        "a batch of 2048 images does not fit the memory of cpu; continuing with 1024: --set score."
    )
    np.testing.assert_allclose(logit, make_scorer(campaign)(*images(2048)).columns["logit"], atol=TOLERANCE)
