"""Task learners that users bring, for tests: small ones, and ones that are refused, each for one reason."""

from typing import Any

import torch
from torch import Tensor, nn

from vaal.task.kinds import Kind
from vaal.task.model import Task


class Plain(nn.Module):
    """The mean of each quarter of an image, mixed, and a linear head."""

    def __init__(self, num_classes: int = 5, channels: int = 3, drop: float = 0.0) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(4 * channels, 6), nn.Tanh(), nn.Dropout(drop))
        self.head: Any = nn.Linear(6, num_classes)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.mix(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return found


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Plain()


class Pixels(nn.Module):
    """A class for each pixel."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.Tanh())
        self.head: Any = nn.Conv2d(6, num_classes, 1)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


class Headless(nn.Module):
    def features(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class MapFeatures(Plain):
    def features(self, x: Tensor) -> Tensor:
        return x


class PairFeatures(Plain):
    def features(self, x: Tensor) -> Any:
        return x, x


class WholeFeatures(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).long()


class Ending(Plain):
    def features(self, x: Tensor) -> Tensor:
        raise SystemExit(0)


class Failing(Plain):
    def features(self, x: Tensor) -> Tensor:
        raise RuntimeError("no\nway")


class Mixing(Plain):
    def features(self, x: Tensor) -> Tensor:
        found = super().features(x)
        return found - found.mean(0) / 2


class AlwaysTraining(Plain):
    """BatchNorm that stays in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm.train()(super().features(x).repeat(2, 1))
        return found[: len(x)]


class Drawing(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + torch.randn(len(x), 1)


class Infinite(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) / 0


class SameFeatures(Plain):
    def features(self, x: Tensor) -> Tensor:
        return 0 * super().features(x) + 1


class ZeroHead(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)


class Softmax(Plain):
    def __init__(self, activation: str = "softmax") -> None:
        super().__init__()
        end: nn.Module = nn.Softmax(dim=1) if activation == "softmax" else nn.Sigmoid()
        self.head = nn.Sequential(self.head, end)


class PixelSoftmax(Pixels):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(self.head, nn.Softmax(dim=1))


class Enlarged(Pixels):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(self.head, nn.Upsample(scale_factor=2))


class Pooled(Pixels):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


class PairHead(Plain):
    def __init__(self) -> None:
        super().__init__()
        del self.head
        self.head = lambda features: (features, features)


class TwoLayers(Plain):
    """A head that is not one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), self.head)


class WithoutGradient(Plain):
    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return super().features(x)


class InferenceOnly(Plain):
    @torch.inference_mode()
    def features(self, x: Tensor) -> Tensor:
        return super().features(x)


class Rounded(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features((x * 127.5).round() / 127.5)


class FunctionalDropout(Plain):
    """Dropout that no module does."""

    def features(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().features(x), 0.5, training=self.training)


class UnusedDropout(Plain):
    """A dropout module that nothing goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = self.mix[:2]
        self.unused = nn.Dropout(0.5)


def trained(of: str = "Plain", **arguments: Any) -> nn.Module:
    """A factory that has its weights by itself: the same ones at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network: nn.Module = globals()[of](**arguments)
    return network


ONE = Plain()


def one_network() -> nn.Module:
    """The same network at each call."""
    return ONE


def ends_the_process() -> nn.Module:
    raise SystemExit(0)


def other_each_time() -> nn.Module:
    torch.seed()
    return Plain()


def asks_for_a_package() -> nn.Module:
    import no_such_package  # type: ignore[import-not-found]

    found: nn.Module = no_such_package.model()
    return found


def failing_factory() -> nn.Module:
    raise KeyError("why\nnot")


def no_network() -> str:
    return "text"


def resnet18(num_classes: int = 6) -> nn.Module:
    """A ResNet-18 whose random weights tell images apart."""
    from engine.models.adapters import torchvision_classifier

    network = torchvision_classifier("resnet18", num_classes)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network


def ready(network: nn.Module, kind: Kind = "classes") -> Task:
    return Task(network, kind).eval().requires_grad_(False)
