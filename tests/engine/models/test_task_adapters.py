"""Adapters give what the library's own network gives, by features and a head, with the library's names of weights."""

import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from engine.errors import ConfigError
from engine.models.adapters import timm_classifier, torchvision_classifier, torchvision_segmentation
from tests.tasks import ready
from vaal.acquisition.dropout import check_dropout
from vaal.frozen_encoder import Preprocessing
from vaal.network_trial import noise_pixels

X = Preprocessing([0.5], [0.5])(noise_pixels(64, 3))[:3]


def with_weights_of(original: nn.Module, adapter: nn.Module) -> None:
    """The adapter takes the original's weights, strictly, under their own names."""
    state = original.state_dict()
    assert adapter.state_dict().keys() == state.keys()
    adapter.load_state_dict(state)
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, state[name])
    # Also inside of another module.
    inside = nn.Sequential(adapter)
    assert {*inside.state_dict()} == {f"0.{name}" for name in state}
    inside.load_state_dict({f"0.{name}": tensor for name, tensor in state.items()})


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_classifier_of_torchvision_is_its_features_and_its_last_layer(name: str) -> None:
    original = models.get_model(name, weights=None, num_classes=5).eval()
    adapter = torchvision_classifier(name, 5)
    with_weights_of(original, adapter)
    task = ready(adapter)
    with torch.no_grad():
        torch.testing.assert_close(task(X), original(X), rtol=0, atol=0)
    assert task.linear is not None
    assert task.linear.out_features == 5
    assert task.linear.in_features == task.features(X).shape[1]
    assert len(task.linear._forward_hooks) == 0
    if name == "resnet18":
        with pytest.raises(ValueError, match="dropout"):
            check_dropout(task, X)
    else:
        check_dropout(task, X)


@pytest.mark.heavy
def test_gradients_by_the_input_go_through_an_adapter() -> None:
    original = models.get_model("resnet18", weights=None, num_classes=5).eval()
    adapter = torchvision_classifier("resnet18", 5)
    adapter.load_state_dict(original.state_dict())
    found, expected = (
        torch.autograd.grad(network(x).square().sum(), x)[0]
        for network in (ready(adapter), original)
        for x in (X.clone().requires_grad_(),)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_segmentation_of_torchvision_gives_its_logits_before_they_are_enlarged(name: str) -> None:
    original = models.get_model(name, weights=None, weights_backbone=None, num_classes=7).eval()
    adapter = torchvision_segmentation(name, 7)
    with_weights_of(original, adapter)
    task = ready(adapter, "segmentation")
    with torch.no_grad():
        logits, expected = task(X), original(X)["out"]
        enlarged = F.interpolate(logits, size=X.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged, expected, rtol=1e-4, atol=1e-5)
    assert logits.shape[2] < X.shape[2]
    assert task.features(X).shape[2:] == logits.shape[2:]
    head: Any = adapter.head
    assert isinstance(head, nn.Conv2d)
    assert (head.kernel_size, head.weight.shape[0]) == ((1, 1), 7)


@pytest.mark.heavy
def test_a_joint_head_passes_gradients_on_to_its_two_layers() -> None:
    adapter: Any = torchvision_segmentation("lraspp_mobilenet_v3_large", 7)
    features = torch.randn(2, 168, 4, 4)
    state = torch.random.get_rng_state()
    adapter.head(features).square().sum().backward()
    assert torch.equal(torch.random.get_rng_state(), state)
    classifier = adapter.network.classifier
    for layer, part in ((classifier.low_classifier, features[:, :40]), (classifier.high_classifier, features[:, 40:])):
        logits = adapter.head(features).detach()
        expected = torch.einsum("bchw,bdhw->cd", 2 * logits, part)
        torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="torchvision's squeezenet1_1 has no linear layer at its end"):
        torchvision_classifier("squeezenet1_1", 5)
    with pytest.raises(ConfigError, match="shufflenet_v2_x0_5 is no network for segmentation; there are deeplabv3_"):
        torchvision_segmentation("shufflenet_v2_x0_5", 5)


class GoesOn(nn.Module):
    """Something follows its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(x.mean(dim=(2, 3))).tanh()
        return found


def test_a_network_that_goes_on_after_its_last_linear_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "get_model", lambda *_, **__: GoesOn())
    adapter: Any = torchvision_classifier("x", 5)
    with pytest.raises(ValueError, match="the network does not end in its linear layer last"):
        adapter.features(X)


def test_a_classifier_of_timm_is_its_features_and_its_last_layer() -> None:
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(ConfigError, match=r"engine.models.adapters:timm_classifier needs timm: pip install"):
            timm_classifier("resnet10t", 5)
        return
    import timm

    original = timm.create_model("resnet10t", pretrained=False, num_classes=5).eval()
    adapter = timm_classifier("resnet10t", 5)
    with_weights_of(original, adapter)
    task = ready(adapter)
    with torch.no_grad():
        torch.testing.assert_close(task(X), original(X), rtol=0, atol=0)
    assert task.linear is not None
