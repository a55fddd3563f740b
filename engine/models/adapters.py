"""Factories of encoders from libraries of networks, without weights: nothing is downloaded.

The network keeps the layer that makes classes, which weights of the library have too, but does not use it: an embedding
is what goes into it.
"""

from typing import Any

from torch import Tensor, nn

from engine.errors import ConfigError


class _Unused(nn.Linear):
    """A layer whose weights are loaded and not used."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchvision_encoder(name: str, **arguments: Any) -> nn.Module:
    """A network of torchvision.models by its name, for example resnet50 or vit_b_16.

    Raises ConfigError if it has no linear layer at its end.
    """
    from torchvision import models

    return _without_classes(models.get_model(name, weights=None, **arguments), f"torchvision's {name}")


def timm_encoder(name: str, **arguments: Any) -> nn.Module:
    """A network of timm by its name, for example vit_small_patch14_dinov2. Raises ConfigError as the other does, and
    without timm."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError("engine.models.adapters:timm_encoder needs timm: pip install 'vaal[timm]'") from error
    network = timm.create_model(name, pretrained=False, **arguments)
    return network if network.num_classes == 0 else _without_classes(network, f"timm's {name}")


def _without_classes(network: nn.Module, named: str) -> nn.Module:
    last = next(reversed([name for name, part in network.named_modules() if isinstance(part, nn.Linear)]), "")
    if not last:
        raise ConfigError(f"{named} has no linear layer at its end; write a factory that returns (batch, components)")
    layer = network.get_submodule(last)
    assert isinstance(layer, nn.Linear)
    unused = _Unused(layer.in_features, layer.out_features, layer.bias is not None)
    network.set_submodule(last, unused)
    return network
