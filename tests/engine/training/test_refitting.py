"""What is done at the end of training: folds are made comparable, whatever was trained."""

import numpy as np
import pytest
import torch

from engine.config.toml import override
from engine.models.fitting import _folds_of_groups
from engine.models.front import Front
from engine.models.weights import make_networks
from engine.training.batches import unlabelled_images
from engine.training.describing import Reader
from engine.training.plan import augment_of, plan_training
from engine.training.refitting import _read, fit_at_last
from tests.conftest import MakeCampaign

FRONT = Front(torch.device("cpu"))


@pytest.mark.parametrize("method", ["vaal", "features", "pixels"])
def test_folds_are_comparable_at_the_end(make_campaign: MakeCampaign, method: str) -> None:
    campaign = make_campaign(f"train.method={method}", "train.folds=2")
    plan = plan_training(campaign)
    networks = make_networks(campaign.config).ready()
    assert networks.discriminators is not None
    with torch.no_grad():
        # Discriminators of two folds that ended far apart, and all too sure.
        for number, fold in enumerate(networks.discriminators.folds):
            last = [layer for layer in fold.modules() if isinstance(layer, torch.nn.Linear)][-1]
            last.bias.add_(20.0 * number)
            last.weight.mul_(30)
    made, _, _ = fit_at_last(plan, networks, FRONT)
    read = _read(
        plan, made, Reader(plan.pool, FRONT.__call__), unlabelled_images(plan.pool, plan.deal, 2000), with_logits=True
    )
    assert read.logit_N is not None
    low_K = [float(read.logit_N[read.fold_N == number].quantile(0.5)) for number in range(2)]
    assert low_K[0] == pytest.approx(low_K[1], abs=0.15)
    lowest = read.fold_N[read.logit_N.argsort()[: len(read.fold_N) // 10]].double().mean()
    assert float(lowest) == pytest.approx(0.5, abs=0.2)
    assert float(read.logit_N.abs().max()) < 12


@pytest.mark.parametrize("settings", [("train.refit=false",), ("train.method=vae_only",)])
def test_without_a_refit_nothing_changes(make_campaign: MakeCampaign, settings: tuple[str, ...]) -> None:
    campaign = make_campaign(*settings)
    networks = make_networks(campaign.config).ready()
    before = [tensor.clone() for module in networks.files().values() for tensor in module.state_dict().values()]
    made, _, _ = fit_at_last(plan_training(campaign), networks, FRONT)
    after = [tensor for module in made.files().values() for tensor in module.state_dict().values()]
    assert all(torch.equal(*pair) or pair[0].isnan().all() for pair in zip(before, after, strict=True))


def test_a_single_discriminator_is_calibrated_on_what_is_held_out(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("train.folds=1")
    networks = make_networks(campaign.config).ready()
    assert networks.discriminators is not None
    before = networks.discriminators.folds[0].state_dict()["4.weight"].clone()
    made, _, _ = fit_at_last(plan_training(campaign), networks, FRONT)
    assert made.discriminators is not None
    factor = made.discriminators.folds[0].state_dict()["4.weight"] / before
    assert float(factor.min()) == pytest.approx(float(factor.max()), rel=1e-4)
    assert float(factor.mean()) != pytest.approx(1)


@pytest.mark.parametrize("folds", [1, 2])
def test_what_is_fitted_at_the_end_knows_the_groups(make_campaign: MakeCampaign, folds: int) -> None:
    campaign = make_campaign("pool.group='(.*).'", f"train.folds={folds}")
    plan = plan_training(campaign)
    reader, networks = Reader(plan.pool, FRONT.__call__), make_networks(campaign.config).ready()
    images = list(reader.sample(plan))
    read = _read(plan, networks, reader, images, with_logits=False)
    assert read.group_N is not None
    clips = [key[:-1] for _, key, _ in images]
    assert [clips.index(clip) for clip in clips] == [read.group_N.tolist().index(n) for n in read.group_N.tolist()]
    assert 30 < len(set(clips)) < len(clips) / 3
    fold_N = _folds_of_groups(read.seen.cached, folds)
    assert fold_N is not None
    assert len(set(zip(clips, fold_N.tolist(), strict=True))) == len(set(clips))
    assert len(fold_N.unique()) == (3 if folds == 1 else 2)
    alone = read.seen.cached._replace(group_N=torch.zeros(len(clips), dtype=torch.int64))
    assert _folds_of_groups(alone, 1) is None


def test_only_discriminators_that_learn_features_see_changed_images(make_campaign: MakeCampaign) -> None:
    config = make_campaign().config
    features = override(config, {"train.method": "features"}, "test")
    assert augment_of(config) is None
    assert augment_of(override(features, {"train.task_augmentation": "none"}, "test")) is None
    augment = augment_of(features)
    assert augment is not None
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    assert augment(pixels, np.random.default_rng(1)).shape == pixels.shape
