"""Factories of encoders and task learners from libraries of networks, without weights: nothing is downloaded.

Their weights have the names that the library gives them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ConfigError


class _Unused(nn.Linear):
    """A layer whose weights are loaded and not used."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchvision_encoder(name: str, **arguments: Any) -> nn.Module:
    """A network of torchvision.models by its name, for example resnet50 or vit_b_16: what goes into its last layer is
    the embedding.

    Raises ConfigError if it has no linear layer at its end.
    """
    return _without_classes(_of_torchvision(name, **arguments), f"torchvision's {name}")


def timm_encoder(name: str, **arguments: Any) -> nn.Module:
    """A network of timm by its name, for example vit_small_patch14_dinov2. Raises ConfigError as the other does, and
    without timm."""
    network = _of_timm("timm_encoder", name, **arguments)
    return network if network.num_classes == 0 else _without_classes(network, f"timm's {name}")


def torchvision_classifier(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    """A task learner for classes, or labels, of torchvision.models by its name, for example resnet50.

    Raises ConfigError if it has no linear layer at its end.
    """
    return _Classifier(_of_torchvision(name, num_classes=num_classes, **arguments), f"torchvision's {name}")


def timm_classifier(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    """A task learner for classes, or labels, of timm by its name. Raises ConfigError as the other does, and without
    timm."""
    return _Classifier(_of_timm("timm_classifier", name, num_classes=num_classes, **arguments), f"timm's {name}")


def torchvision_segmentation(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    """A task learner for segmentation of torchvision.models by its name: an LR-ASPP, DeepLabV3 or FCN, for example
    lraspp_mobilenet_v3_large. Its logits are those before they are enlarged to the size of the image.

    Raises ConfigError for another kind of network.
    """
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise ConfigError(f"torchvision's {name} is no network for segmentation; there are {', '.join(known)}")
    network = _of_torchvision(name, num_classes=num_classes, weights_backbone=None, **arguments)
    return (_LiteSegmentation if name.startswith("lraspp") else _Segmentation)(network)


def _of_torchvision(name: str, **arguments: Any) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None, **arguments)
    return network


def _of_timm(adapter: str, name: str, **arguments: Any) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"engine.models.adapters:{adapter} needs timm: pip install 'vaal[timm]'") from error
    return timm.create_model(name, pretrained=False, **arguments)


def _without_classes(network: nn.Module, named: str) -> nn.Module:
    last, layer = _last_linear(network, named)
    network.set_submodule(last, _Unused(layer.in_features, layer.out_features, layer.bias is not None))
    return network


def _last_linear(network: nn.Module, named: str) -> tuple[str, nn.Linear]:
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ConfigError(f"{named} has no linear layer at its end; write a factory of your own for it")
    return layers[-1]


class _Adapter(nn.Module):
    """A network with another interface, and with the names that its own weights have."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]


def _without_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}network.")]:
        state[f"{prefix}{name.removeprefix(f'{prefix}network.')}"] = state.pop(name)


def _with_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)


class _Classifier(_Adapter):
    """A network whose last layer is linear: `features` are what goes into it, and it is the `head`."""

    def __init__(self, network: nn.Module, named: str) -> None:
        super().__init__(network)
        self._last = _last_linear(network, named)[0]

    @property
    def head(self) -> nn.Module:
        return self.network.get_submodule(self._last)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Features (B, D). Raises ValueError if the network goes on after its last linear layer."""
        seen = list[tuple[Tensor, Tensor]]()

        def keep(_layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
            seen.append((given[0], found))

        # The network runs whole, so that whatever it does before its last layer is done.
        hook = self.head.register_forward_hook(keep)
        try:
            result = self.network(x_BCHW)
        finally:
            hook.remove()
        if len(seen) != 1 or result is not seen[0][1]:
            raise ValueError(f"the network does not end in its linear layer {self._last}; write a factory for it")
        return seen[0][0]


class _Segmentation(_Adapter):
    """A DeepLabV3 or FCN: its last convolution is the `head`."""

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The map (B, D, h, w) that goes into the last convolution."""
        map_BDHW: Tensor = self.network.backbone(x_BCHW)["out"]  # type: ignore[operator]
        for part in self._parts[:-1]:
            map_BDHW = part(map_BDHW)
        return map_BDHW

    @property
    def head(self) -> nn.Module:
        return self._parts[-1]

    @property
    def _parts(self) -> list[nn.Module]:
        return list(self.network.classifier.children())  # type: ignore[union-attr]


class _LiteSegmentation(_Adapter):
    """An LR-ASPP (arXiv 1905.02244, section 6.4). Its head adds a convolution of 1 x 1 of fine features and one of
    coarse features, which is one convolution of both."""

    def features(self, x_BCHW: Tensor) -> Tensor:
        """See `joint_maps`."""
        return joint_maps(self.network, x_BCHW)

    @property
    def head(self) -> nn.Module:
        classifier: Any = self.network.classifier
        fine, coarse = classifier.low_classifier, classifier.high_classifier
        num_channels = fine.in_channels + coarse.in_channels
        joint: nn.Module = nn.utils.skip_init(nn.Conv2d, num_channels, fine.out_channels, 1)  # type: ignore[no-untyped-call]
        # As plain tensors, through which gradients go on to the weights of the two.
        del joint.weight, joint.bias
        joint.weight, joint.bias = torch.cat([fine.weight, coarse.weight], dim=1), fine.bias + coarse.bias
        return joint


def joint_maps(network: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The fine features of torchvision's LR-ASPP and, enlarged to their size, the coarse ones, (B, D, h, w)."""
    classifier: Any = network.classifier
    maps: Any = network.backbone(x_BCHW)  # type: ignore[operator]
    coarse = classifier.cbr(maps["high"]) * classifier.scale(maps["high"])
    coarse = F.interpolate(coarse, size=maps["low"].shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([maps["low"], coarse], dim=1)
