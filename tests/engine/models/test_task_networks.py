"""The networks of a task learner that the engine trains."""

import pytest
import torch

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError
from engine.models.task_networks import make_task_network
from engine.training.plan import plan_training
from tests.conftest import MakeCampaign

FEATURES = {"small": 128, "resnet18": 512, "vgg16_bn": 4096}


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "size", "channels"), [("small", 32, 3), ("resnet18", 32, 1), ("resnet18", 64, 3)])
def test_a_network_gives_an_image_the_same_logits_whatever_its_batch_mates(name: str, size: int, channels: int) -> None:
    torch.manual_seed(0)
    # In training too: any number of workers trains alike.
    network = make_task_network(name, size, channels, 5).train()
    x = torch.rand(3, channels, size, size) * 2 - 1
    features = network.features(x)
    assert features.shape == (3, FEATURES[name])
    together = network.head(features)
    assert together.shape == (3, 5)
    torch.testing.assert_close(network(x), together)
    torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-4, rtol=1e-4)
    assert isinstance(network.head, torch.nn.Linear)


@pytest.mark.heavy
def test_the_papers_network_mixes_no_images_once_it_is_trained() -> None:
    torch.manual_seed(0)
    network = make_task_network("vgg16_bn", 32, 3, 5).eval()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        together = network(x)
        assert network.features(x).shape == (3, FEATURES["vgg16_bn"])
        torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-4, rtol=1e-4)
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in network.modules()) == 2


@pytest.mark.heavy
def test_resnet_keeps_small_images_large_and_halves_large_ones_at_once() -> None:
    for size, side in ((32, 32), (64, 16)):
        network = make_task_network("resnet18", size, 3, 5)
        seen: list[torch.Size] = []
        body: torch.nn.Module = network.get_submodule("body.layer1")
        body.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].shape))
        network(torch.rand(1, 3, size, size))
        assert seen == [torch.Size((1, 64, side, side))]


@pytest.mark.parametrize("setting", ["train.workers", "train.gradient_accumulation"])
def test_a_network_that_mixes_images_has_one_worker(setting: str) -> None:
    words = r"train.task_network=vgg16_bn needs train.workers=1 and train.gradient_accumulation=1, because BatchNorm"
    with pytest.raises(ConfigError, match=words):
        override(CampaignConfig(), {"train.task_network": "vgg16_bn", setting: 2}, "test")


def test_an_image_that_is_too_small_is_refused(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("train.task=classification", "train.task_network=vgg16_bn")
    with pytest.raises(ConfigError, match=r"vgg16_bn needs image.size=32 or more, it is 8; use small"):
        plan_training(campaign)
    with pytest.raises(ConfigError, match=r"train.task=segmentation cannot be trained here yet"):
        plan_training(make_campaign("train.task=segmentation", "handoff.question.task=mask", name="mask"))
