"""Draws of a network by its own dropout: each is one function, whatever the batch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.views import SmallNetwork, images, networks_of, view_of
from vaal.acquisition.bayesian import (
    network_bald,
    network_mean_std,
    network_predictive_entropy,
    network_variation_ratio,
)
from vaal.acquisition.dropout import check_dropout, drawn, has_dropout, random_mask
from vaal.task.model import Task


def test_a_mask_keeps_values_by_its_rate_and_by_its_key() -> None:
    mask = random_mask((1, 2, 3), 0.25, (40_000,))
    # Four standard errors of the share.
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 40_000) ** 0.5)
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.75]))
    assert torch.equal(mask, random_mask((1, 2, 3), 0.25, (40_000,)))
    for key in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(mask, random_mask(key, 0.25, (40_000,)))
    assert not random_mask((1,), 1.0, (5,)).any()


class _Layers(nn.Module):
    """Dropout of every kind, two of the same shape, batch norm that mixes a batch in training mode, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.of_maps, self.first, self.second = nn.Dropout2d(0.5), nn.Dropout(0.5, inplace=True), nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)
        self.seen: dict[str, Tensor] = {}

    def features(self, x: Tensor) -> Tensor:
        maps = self.of_maps(self.norm(self.conv(x)))
        first = self.first(maps.mean(dim=(2, 3)) + 1)
        self.seen = {"maps": maps, "first": first, "second": self.second(torch.ones_like(first))}
        return first * self.seen["second"]


def layered() -> _Layers:
    torch.manual_seed(0)
    return _Layers().eval().requires_grad_(False)


def test_masks_are_of_the_layer_the_draw_and_never_of_the_batch() -> None:
    network, x = layered(), images(6)
    with drawn(network, 0, 0):
        network.features(x)
        seen = network.seen
        network.features(x[2:3])
    for name, whole in seen.items():
        torch.testing.assert_close(network.seen[name], whole[2:3])
    # Dropout2d drops whole channels, the same ones of every item.
    is_dropped_BC = (seen["maps"] == 0).all(dim=(2, 3))
    assert is_dropped_BC.any()
    assert torch.equal(is_dropped_BC.any(dim=0), is_dropped_BC.all(dim=0))
    assert torch.equal((seen["maps"] == 0).any(dim=(2, 3)), is_dropped_BC)
    masks = set()
    for number in range(8):
        with drawn(network, 0, number):
            network.features(x)
        masks |= {(name, number, tuple((network.seen[name][0] == 0).tolist())) for name in ("first", "second")}
        assert set(network.seen["second"].unique().tolist()) <= {0.0, 2.0}
    assert len({mask for name, _, mask in masks if name == "second"}) > 1
    by_layer = [[mask for name, _, mask in sorted(masks) if name == wanted] for wanted in ("first", "second")]
    assert by_layer[0] != by_layer[1]


def test_the_network_is_left_as_it_was() -> None:
    network, x = layered(), images(6)
    before, state = network.features(x), copy.deepcopy(network)
    random_state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), drawn(network, 0, 0):  # noqa: PT012
        network.features(x)
        raise RuntimeError("stop")
    assert torch.equal(network.features(x), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    for module, old in zip(network.modules(), state.modules(), strict=True):
        assert module.training == old.training
        assert not module._forward_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, state.state_dict()[name]), name


class _Functional(SmallNetwork):
    """Its module of dropout is beside the way; the other dropout is no module."""

    def __init__(self) -> None:
        super().__init__("classes")
        self.unused, self.body[2] = self.body[2], nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), training=self.training)


class _Mixing(SmallNetwork):
    """Its dropout sees the items of a batch as a map's second dimension."""

    def __init__(self) -> None:
        super().__init__("classes")
        self.body[2], self.mixing = nn.Identity(), nn.Dropout(0.5)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.mixing(super().features(x)[None])[0]
        return found


def checked(network: nn.Module) -> None:
    check_dropout(Task(network).eval().requires_grad_(False), images(7))


def test_a_network_whose_dropout_does_nothing_is_refused() -> None:
    torch.manual_seed(0)
    checked(SmallNetwork("classes"))
    with pytest.raises(ValueError, match="two draws of the task learner's dropout give the same logits"):
        checked(_Functional())
    with pytest.raises(ValueError, match="depends on the other items"):
        checked(_Mixing())
    for rate in (None, 0.0):
        network = SmallNetwork("classes")
        assert has_dropout(network)
        network.body[2] = nn.Identity() if rate is None else nn.Dropout(rate)
        assert not has_dropout(network)
        with pytest.raises(ValueError, match="no dropout module"):
            checked(network)
        view = view_of(networks_of(Task(network).eval(), []), images(3))
        for score in (network_bald, network_predictive_entropy, network_variation_ratio, network_mean_std):
            with pytest.raises(ValueError, match="no dropout module"):
                score(view)


def test_dropout_of_a_transformer_is_drawn() -> None:
    # In eval mode it has a fused way around its modules.
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    network = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval().requires_grad_(False)
    x = torch.randn(3, 5, 8)
    draws = []
    for number in range(2):
        with drawn(network, 0, number):
            draws.append(network(x))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], network(x))
