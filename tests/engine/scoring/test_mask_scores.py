"""Scores of images by a task learner of masks: the definition on its maps, reduced, whatever the batch."""

import numpy as np
import pytest
import torch

from engine.campaign.folder import Campaign
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.models.weights import load_networks, to_input
from engine.scoring.scorer import Scorer, load_scorer
from tests.conftest import pretend_trained
from tests.masks import mask_campaign

COLUMNS = [
    "least_confidence", "margin", "ratio", "entropy", "bald", "predictive_entropy", "variation_ratio", "mean_std",
    "expected_gradient_length", "gradient_norm", "margin_drop", "random",
]  # fmt: skip


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    made = mask_campaign(
        tmp_path_factory.mktemp("scored"), score__acquisition=["vaal", *COLUMNS], select__diversity="none"
    )
    pretend_trained(made)
    return made


def scorer_of(campaign: Campaign, **settings: object) -> Scorer:
    options = campaign.config.score.model_copy(update=settings)
    config = campaign.config.model_copy(update={"score": options})
    files = read_manifest(campaign, "train", TrainManifest)["files"]
    return load_scorer(campaign.stage("train"), config, files, "cpu")


def images(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    grain, colour = rng.integers(0, 128, (count, 16, 16, 1)), rng.integers(0, 128, (count, 1, 1, 1))
    return (grain + colour).astype(np.uint8), rng.integers(0, 2, count), rng.integers(0, 1 << 60, count)


@pytest.mark.heavy
def test_a_score_by_maps_does_not_depend_on_the_batch(campaign: Campaign) -> None:
    given = images(12)
    whole, one, five = (scorer_of(campaign, batch_size=size)(*given).columns for size in (64, 1, 5))
    assert {*COLUMNS, "predicted"} <= {*whole}
    for name in COLUMNS:
        assert whole[name].dtype == np.float32
        assert len(np.unique(whole[name])) == 12, name
        for other in (one, five):
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-4, atol=1e-5)


def test_the_image_has_the_mean_of_its_pixels_or_what_is_asked_for(campaign: Campaign) -> None:
    pixels, *others = images(6)
    files = read_manifest(campaign, "train", TrainManifest)["files"]
    task = load_networks(campaign.stage("train"), campaign.config, files, with_task=True).task
    assert task is not None
    with torch.no_grad():
        p = task(to_input(pixels, torch.device("cpu"))).double().softmax(dim=1).flatten(2).numpy()
    assert p.shape[2] == 8 * 8
    score, predicted = (p * np.log(p)).sum(axis=1), p.argmax(axis=1)
    balanced = [
        np.mean([own[classes == c].mean() for c in np.unique(classes)])
        for own, classes in zip(score, predicted, strict=True)
    ]
    expected = {
        "mean": score.mean(axis=1), "lowest": score.min(axis=1), "class_balanced": np.array(balanced),
        "lowest_tenth": np.sort(score, axis=1)[:, :7].mean(axis=1),
    }  # fmt: skip
    for reduction, values in expected.items():
        found = scorer_of(campaign, reduction=reduction)(pixels, *others).columns
        np.testing.assert_allclose(found["entropy"], values, rtol=1e-4)
        np.testing.assert_array_equal(found["predicted"], p.mean(axis=2).argmax(axis=1))
