"""What is fitted at the end of training: from which labels, by which folds; and what an older version fitted."""

import numpy as np
import pytest
import torch

from engine.config.toml import override
from engine.errors import InputError
from engine.models.fitting import MOST_CLASSES, _are_classes
from engine.models.weights import load_networks, make_networks, save_weights
from tests.conftest import MakeCampaign
from vaal.linear_head import fit_linear_head
from vaal.networks import Discriminators


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog"] * 10, True),
        # A rare class is one, too.
        (["cat", "dog"] * 10 + ["owl"], True),
        (["cat"] * 10, False),
        ([f"a note on image {n}" for n in range(50)], False),
        (["ok"] * 50 + [f"a note on image {n}" for n in range(14)], False),
        ([str(n // 2) for n in range(2 * MOST_CLASSES + 2)], False),
        ([], False),
    ],
)
def test_labels_are_classes_if_most_images_share_theirs(labels: list[str], expected: bool) -> None:
    assert _are_classes(labels) == expected


def test_networks_of_a_version_that_fitted_none_at_the_end_are_loaded(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    assert campaign.config.refits
    networks, folder = make_networks(campaign.config), campaign.stage("train")
    found = load_networks(folder, campaign.config, save_weights(folder, networks.files()))
    assert isinstance(found.discriminators, Discriminators)
    torch.testing.assert_close(found.discriminators.state_dict(), networks.discriminators.state_dict())


def test_weights_of_another_network_are_refused_with_advice(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    folder = campaign.stage("train")
    files = save_weights(folder, make_networks(campaign.config).files())
    other = override(campaign.config, {"image.size": 4 * campaign.config.image.size}, "test")
    with pytest.raises(InputError, match=r"vae.safetensors: weights of another network .* and train again"):
        load_networks(folder, other, files)


def test_a_clip_is_in_one_fold_of_the_head() -> None:
    rng = np.random.default_rng(0)
    clip_N = np.repeat(np.arange(40), 6)
    x_ND = torch.from_numpy(rng.normal(size=(40, 16))[clip_N] + 0.01 * rng.normal(size=(240, 16))).float()
    label_N = torch.from_numpy(rng.integers(4, size=40)[clip_N])
    apart = fit_linear_head(x_ND, label_N, 4, 0).held_out_accuracy
    together = fit_linear_head(x_ND, label_N, 4, 0, torch.from_numpy(clip_N % 5)).held_out_accuracy
    assert apart is not None and together is not None  # noqa: PT018
    # Frames of a clip tell each other's label; of clips apart nothing is known.
    assert together < 0.5 < apart
