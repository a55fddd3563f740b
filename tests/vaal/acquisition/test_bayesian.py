"""Draws by dropout, against definitions on stacked draws."""

import copy
import pkgutil
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from skactiveml.pool import average_kl_divergence, variation_ratios
from torch import Tensor, nn

from tests.stacked import by_definition, probabilities
from tests.views import FEATURES, SIZE, SmallNetwork, images, networks_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import ACQUISITIONS, bayesian
from vaal.acquisition.dropout import check_dropout, drawn, has_dropout, random_mask
from vaal.acquisition.view import Settings, View
from vaal.task.model import Kind, Task

SETTINGS = Settings(seed=5, passes=6, dropout_rate=0.4)
NAMES = ("bald", "predictive_entropy", "variation_ratio", "mean_std")
PASSES = range(SETTINGS.passes)


def small_view(kind: str, x: Tensor | None = None, settings: Settings = SETTINGS) -> View:
    task = vector_task() if kind == "embeddings" else task_of(kind)  # type: ignore[arg-type]
    task.temperature.fill_(0.7)
    bias = task.network.head.bias
    assert isinstance(bias, Tensor)
    bias.copy_(torch.linspace(-0.5, 0.5, len(bias)))
    items = (vectors(9) if kind == "embeddings" else images(9)) if x is None else x
    return view_of(networks_of(task, []), items, settings)


def column(name: str, view: View) -> Tensor:
    found: Tensor = getattr(bayesian, name)(view)
    return found


def stacked(view: View) -> Tensor:
    """The logits (T, B, …) of every draw of the features, one after another."""
    mask_TD = bayesian.feature_masks(view)
    shape = (1, -1, *(1 for _ in view.features.shape[2:]))
    return torch.stack([view.task.head(view.features * mask_D.view(shape)) for mask_D in mask_TD])


@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation", "embeddings"])
@pytest.mark.parametrize("name", NAMES)
def test_of_the_features_it_is_the_definition(name: str, kind: str) -> None:
    view = small_view(kind)
    p_TBPK = torch.stack([probabilities(view.task.kind, logit) for logit in stacked(view)])
    found = column(name, view)
    assert found.std() > 0
    torch.testing.assert_close(found.double(), by_definition(p_TBPK)[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["classes", "labels", "segmentation"])
@pytest.mark.parametrize("name", NAMES)
def test_of_the_network_it_is_the_definition(name: str, kind: Kind) -> None:
    view = small_view(kind)
    logits = []
    for number in PASSES:
        # The same network, whose dropout is a multiplication.
        network = copy.deepcopy(view.task.network)
        assert isinstance(network, SmallNetwork)
        sides = SIZE // 2
        mask = random_mask((SETTINGS.seed, number, *b"body.2"), 0.3, (FEATURES, sides, sides))
        network.body[2] = _Times(mask)
        task = Task(network, kind).eval()
        task.temperature.fill_(0.7)
        logits.append(task(view.task_x_B))
    p_TBPK = torch.stack([probabilities(kind, logit) for logit in logits])
    found = column(f"network_{name}", view)
    torch.testing.assert_close(found.double(), by_definition(p_TBPK)[name], rtol=1e-4, atol=1e-6)


class _Times(nn.Module):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_bald_and_votes_are_those_of_scikit_activeml() -> None:
    view = small_view("classes", images(40))
    p_TBK = torch.stack([probabilities("classes", logit)[:, 0] for logit in stacked(view)])
    expected = torch.from_numpy(average_kl_divergence(p_TBK.numpy()))
    torch.testing.assert_close(column("bald", view).double(), -expected, rtol=1e-4, atol=1e-6)
    votes = variation_ratios(p_TBK.argmax(dim=2).T.numpy())
    torch.testing.assert_close(column("variation_ratio", view).double(), -torch.from_numpy(votes), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_that_is_one_linear_layer_takes_a_faster_way_to_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = column(name, small_view("classes"))
    blocks: list[int] = []
    block_of = bayesian._linear_block

    def counted(view: View, linear: nn.Linear, mask_TD: Tensor) -> Tensor:
        blocks.append(len(mask_TD))
        return block_of(view, linear, mask_TD)

    monkeypatch.setattr(bayesian, "_linear_block", counted)
    # Two draws of 9 items and 4 classes: so many are held, however many there are.
    monkeypatch.setattr(bayesian, "BLOCK_VALUES", 2 * 9 * 4)
    torch.testing.assert_close(column(name, small_view("classes")), whole)
    assert blocks == [2, 2, 2]
    hidden = small_view("classes")
    hidden.task.network.head = nn.Sequential(hidden.task.network.head)  # type: ignore[arg-type]
    assert hidden.task.linear is None
    torch.testing.assert_close(column(name, hidden), whole, rtol=1e-4, atol=1e-6)
    without = small_view("classes")
    without.task.network.head.bias = None
    zero = small_view("classes")
    zero.task.network.head.bias.zero_()  # type: ignore[operator, union-attr]
    torch.testing.assert_close(column(name, without), column(name, zero))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "network_"])
def test_every_setting_has_an_effect(name: str, prefix: str) -> None:
    before = column(prefix + name, small_view("classes"))
    changes = [{"seed": 6}, {"passes": 7}] + ([] if prefix else [{"dropout_rate": 0.5}])
    for change in changes:
        after = column(prefix + name, small_view("classes", settings=SETTINGS._replace(**change)))  # type: ignore[arg-type]
        assert not torch.equal(after, before), change


def test_all_four_share_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original: Callable[[View], Tensor] = bayesian.feature_masks
    monkeypatch.setattr(bayesian, "feature_masks", lambda view: made.append(1) or original(view))
    view = small_view("classes")
    for name in NAMES:
        column(name, view)
    assert len(made) == 1


def test_more_draws_begin_with_the_same_ones() -> None:
    few, many = (bayesian.feature_masks(small_view("classes", settings=SETTINGS._replace(passes=n))) for n in (6, 40))
    torch.testing.assert_close(many[:6], few)
    assert len(many.unique(dim=0)) > 20  # of 64 that there are
    torch.testing.assert_close(few.unique(), torch.tensor([0, 1 / 0.6]))


def test_a_mask_keeps_values_by_its_rate_and_by_its_key() -> None:
    mask = random_mask((1, 2, 3), 0.25, (40_000,))
    # Four standard errors of the share.
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 40_000) ** 0.5)
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.75]))
    assert torch.equal(mask, random_mask((1, 2, 3), 0.25, (40_000,)))
    for key in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(mask, random_mask(key, 0.25, (40_000,)))
    assert not random_mask((1,), 1.0, (5,)).any()


def test_draws_that_agree_are_worth_nothing_and_never_more_than_nothing() -> None:
    view = small_view("classes", images(200), SETTINGS._replace(dropout_rate=1e-9, passes=20))
    assert column("bald", view).max() <= 0
    for name in ("bald", "variation_ratio", "mean_std"):
        torch.testing.assert_close(column(name, view), torch.zeros(200), rtol=0, atol=1e-6)
        assert ACQUISITIONS[name].worthless == 0


def test_a_small_deviation_is_not_lost_to_rounding() -> None:
    view = small_view("embeddings", 1e-4 * vectors(9))
    p_TBPK = torch.stack([probabilities("classes", logit) for logit in stacked(view)])
    expected = by_definition(p_TBPK)["mean_std"]
    assert expected.abs().max() < 1e-4
    torch.testing.assert_close(column("mean_std", view).double(), expected, rtol=0.02, atol=0)


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
        for name in NAMES:
            with pytest.raises(ValueError, match="no dropout module"):
                column(f"network_{name}", view)


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


def test_the_table_names_what_is_here() -> None:
    for name in NAMES:
        row = ACQUISITIONS[name]
        assert pkgutil.resolve_name(row.function) is getattr(bayesian, name)
        assert pkgutil.resolve_name(row.dear) is getattr(bayesian, f"network_{name}")
