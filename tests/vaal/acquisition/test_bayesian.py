"""Draws by dropout, against definitions on stacked draws."""

import copy
import pkgutil
from collections.abc import Callable

import pytest
import torch
from skactiveml.pool import average_kl_divergence, variation_ratios
from torch import Tensor, nn

from tests.stacked import by_definition, probabilities
from tests.views import FEATURES, SIZE, SmallNetwork, images, networks_of, task_of, vector_task, vectors, view_of
from vaal.acquisition import ACQUISITIONS, bayesian
from vaal.acquisition.dropout import random_mask
from vaal.acquisition.view import Settings, View
from vaal.task.kinds import Kind
from vaal.task.model import Task

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


def test_the_table_names_what_is_here() -> None:
    for name in NAMES:
        row = ACQUISITIONS[name]
        assert pkgutil.resolve_name(row.function) is getattr(bayesian, name)
        assert pkgutil.resolve_name(row.dear) is getattr(bayesian, f"network_{name}")
