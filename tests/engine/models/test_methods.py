"""The paper's ablations and its own networks train, and what has a way to see a missing mode finds it."""

from pathlib import Path

import pytest
import torch

from engine.models.weights import make_networks
from engine.training.plan import phase_of, plan_training
from tests.constructed import missing_mode
from tests.learn import learn, optimize, share_of_picks
from vaal.step import Updates

STEPS = 60

"""Without these, features has nothing to compare latents in."""
METHODS = ("frozen_vae", "vae_only", "pixels", "features")


@pytest.mark.parametrize("method", METHODS)
def test_an_ablation_finds_the_missing_mode(tmp_path: Path, method: str) -> None:
    made = missing_mode(tmp_path, 0, f"train.max_steps={STEPS}", f"train.method={method}")
    learnt = learn(made.campaign)
    diagnosis = learnt.entries["diagnosis"]
    assert learnt.entries["signal"] == "present"
    assert diagnosis["auc"] > 0.9
    assert share_of_picks(learnt, 100, made.is_wanted) > 0.95
    assert (learnt.networks.vae is None) == (method in {"pixels", "features"}) == (not diagnosis["latent_units"])
    if method == "vae_only":
        # Three distances in four are larger than a sound logit.
        assert learnt.networks.discriminators is None
        assert diagnosis["saturation"] == 0
        assert not diagnosis["findings"]


def test_a_frozen_vae_is_trained_alone_and_then_left_as_it_is(tmp_path: Path) -> None:
    settings = ("train.max_steps=5", "train.method=frozen_vae", "train.discriminator_steps=2", "train.vae_steps=3")
    made = missing_mode(tmp_path, 0, *settings)
    plan, networks = plan_training(made.campaign), make_networks(made.campaign.config)
    phases = [phase_of(plan, step, is_holding=False) for step in range(plan.num_steps)]
    assert phases == [(Updates(3, 0), False)] * 3 + [(Updates(0, 2), True)] * 2
    assert phase_of(plan, 4, is_holding=True) == (Updates(0, 0), True)
    assert networks.vae is not None
    assert networks.discriminators is not None
    states = []

    def keep(step: int, losses: object) -> None:
        modules = (networks.vae, networks.discriminators)
        states.append([torch.cat([p.detach().flatten() for p in module.parameters()]) for module in modules if module])

    optimize(plan, made.campaign, networks, guarded=False, on_step=keep)
    for step in range(1, plan.num_steps):
        moved = [not torch.equal(now, before) for now, before in zip(states[step], states[step - 1], strict=True)]
        assert moved == ([True, False] if step < 3 else [False, True])


def test_the_papers_networks_train_and_score(tmp_path: Path) -> None:
    settings = ("train.preset=paper", "image.size=32", "train.max_steps=2", "train.batch_size=8")
    made = missing_mode(tmp_path, 0, *settings, num_images=300)
    learnt = learn(made.campaign)
    diagnosis = learnt.entries["diagnosis"]
    assert diagnosis["latent_units"] == 32
    assert 0 < diagnosis["auc"] < 1
    assert 0 < share_of_picks(learnt, 100, made.is_wanted) <= 1
