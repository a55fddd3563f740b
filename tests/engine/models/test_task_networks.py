"""The networks of a task learner that the engine trains."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import segmentation

from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError
from engine.models.task_networks import make_task_network
from engine.training.plan import plan_training
from tests.conftest import MakeCampaign
from vaal.task.model import Task

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
@pytest.mark.parametrize(("name", "channels", "side", "length"), [("unet", 3, 20, 24), ("lraspp", 1, 5, 168)])
def test_a_network_of_masks_gives_a_map_by_a_linear_head(name: str, channels: int, side: int, length: int) -> None:
    torch.manual_seed(0)
    network = make_task_network(name, 40, channels, 5).eval()
    x = torch.rand(3, channels, 40, 40) * 2 - 1
    with torch.no_grad():
        features = network.features(x)
        assert features.shape == (3, length, side, side)
        together = network(x)
        assert together.shape == (3, 5, side, side)
        torch.testing.assert_close(network.head(features), together)
        torch.testing.assert_close(network(x[1:2]), together[1:2], atol=1e-4, rtol=1e-4)
    linear = Task(network, "segmentation").linear
    assert linear is not None
    assert (linear.in_features, linear.out_features) == (length, 5)


@pytest.mark.heavy
def test_lraspp_is_torchvisions() -> None:
    """Its two last layers are one of both maps."""
    network = make_task_network("lraspp", 32, 3, 5).eval()
    whole = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    found = network.state_dict()
    state = {name.removeprefix("body.network."): value for name, value in found.items() if name.startswith("body.")}
    weight, bias = found["head.weight"], found["head.bias"]
    for name, part in (("low", weight[:, :40]), ("high", weight[:, 40:])):
        state |= {f"classifier.{name}_classifier.weight": part, f"classifier.{name}_classifier.bias": bias / 2}
    whole.load_state_dict(state)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wide = F.interpolate(network(x), size=(64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(wide, whole(x)["out"], atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize("name", ["vgg16_bn", "lraspp"])
@pytest.mark.parametrize("setting", ["train.workers", "train.gradient_accumulation"])
def test_a_network_that_mixes_images_has_one_worker(setting: str, name: str) -> None:
    words = rf"train.task_network={name} needs train.workers=1 and train.gradient_accumulation=1, because BatchNorm"
    with pytest.raises(ConfigError, match=words):
        override(CampaignConfig(), {"train.task_network": name, setting: 2}, "test")


def test_an_image_that_is_too_small_is_refused(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("train.task=classification", "train.task_network=vgg16_bn")
    with pytest.raises(ConfigError, match=r"vgg16_bn needs image.size=32 or more, it is 8; use small"):
        plan_training(campaign)
