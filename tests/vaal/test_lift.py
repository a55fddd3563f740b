"""The lift against its definition, its interval by coverage, and groups as what is independent."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from vaal.signal import MIN_HELD_OUT, MOST_IN_LIFT, Interval, auc_interval, diagnose, lift_interval

NORMAL = NormalDist().cdf


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lift(labelled: Tensor, unlabelled: Tensor, share: float) -> Interval:
    found = lift_interval(labelled, unlabelled, share)
    assert found
    return found


def truth(missing: float, shift: float, share: float) -> float:
    """The lift among the lowest `share`, if a share `missing` of the pool is of a kind without labels, whose normal
    logits are lower by `shift`."""
    low, high = -20.0, 20.0
    for _ in range(100):
        middle = (low + high) / 2
        is_below = missing * NORMAL(middle + shift) + (1 - missing) * NORMAL(middle) < share
        low, high = (middle, high) if is_below else (low, middle)
    return share / NORMAL(low)


def test_the_lift_is_the_ratio_of_two_shares() -> None:
    unlabelled, labelled = torch.arange(1000.0), torch.arange(0.0, 1000.0, 4) + 30
    # 200 of 1,000 unlabelled items are at or below 199, and 43 of 250 labelled ones.
    assert lift(labelled, unlabelled, 0.2).value == pytest.approx((200.5 / 1000.5) / (43.5 / 250.5))
    assert lift(labelled + 1e6, unlabelled, 0.2).value == pytest.approx((200.5 / 1000.5) / (0.5 / 250.5))
    assert lift(torch.zeros(50), torch.zeros(90), 0.1).value == pytest.approx(1)


@pytest.mark.parametrize(("num_labelled", "num_unlabelled"), [(100, 1000), (200, 1600), (1000, 5000)])
@pytest.mark.parametrize(("missing", "shift", "share"), [(0, 0, 0.1), (0.5, 1, 0.1), (0.5, 2, 0.3), (0.2, 1, 0.2)])
def test_the_known_lift_is_within_its_interval(
    num_labelled: int, num_unlabelled: int, missing: float, shift: float, share: float
) -> None:
    known, rng = truth(missing, shift, share), np.random.default_rng(0)

    def drawn() -> Interval:
        is_missing_M = rng.random(num_unlabelled) < missing
        unlabelled_M = rng.normal(size=num_unlabelled) - shift * is_missing_M
        return lift(torch.tensor(rng.normal(size=num_labelled)), torch.tensor(unlabelled_M), share)

    found = [drawn() for _ in range(200)]
    assert np.mean([one.low <= known <= one.high for one in found]) >= 0.9
    assert np.mean([one.low > known for one in found]) <= 0.06
    assert abs(math.log(np.median([one.value for one in found]) / known)) < 0.35


def test_half_of_the_pool_without_labels() -> None:
    """Of it, all would be picked, and a tenth of what has labels: (1/2 + 1/20) / (1/10)."""
    labelled, other = torch.arange(500.0), torch.arange(1000.0)
    unlabelled = torch.cat([other / 2, torch.full((1000,), -1.0)])
    value, low, high = lift(labelled, unlabelled, 0.55)
    assert value == pytest.approx(5.5, rel=0.02)
    assert 4 < low < 5.5 < high < 7.5
    # Where no label is, there is no bound.
    value, low, high = lift(labelled, unlabelled, 0.3)
    assert value > low > 25
    assert high == math.inf


def test_the_part_of_the_pool_is_what_a_batch_takes_and_enough_to_count() -> None:
    def share(num_labelled: int, num_unlabelled: int, picked: float) -> float:
        return diagnose(normal(num_labelled), normal(num_unlabelled), None, picked_share=picked).lift_share

    assert share(1000, 5000, 0.2) == 0.2
    assert share(1000, 5000, 0.001) == 0.01
    assert share(50, 5000, 0.001) == 0.2
    assert share(12, 5000, 0.001) == share(500, 500, 1.0) == MOST_IN_LIFT


def test_of_few_items_or_groups_there_is_no_lift() -> None:
    few, many = normal(MIN_HELD_OUT - 1), normal(500)
    assert diagnose(few, many, None).lift is None
    assert diagnose(many, few, None).lift is None
    assert diagnose(torch.empty(0), torch.empty(0), None).lift is None
    groups = torch.arange(500) % (MIN_HELD_OUT - 1), torch.arange(500)
    found = diagnose(many + 100, many, None, groups=groups)
    assert found.lift is None
    assert (found.auc[1:], found.signal, found.num_groups) == ((0, 1), "none", (9, 500))


def test_groups_of_one_item_change_nothing_and_copies_add_nothing() -> None:
    labelled, unlabelled = normal(60) + 0.5, normal(300, seed=1)
    groups = torch.randperm(60), 60 + torch.randperm(300)
    alone = auc_interval(labelled, unlabelled)
    assert auc_interval(labelled, unlabelled, groups=groups) == pytest.approx(alone, abs=1e-12)
    copied = [part.repeat(7) for part in (labelled, unlabelled)]
    in_groups = groups[0].repeat(7), groups[1].repeat(7)
    assert auc_interval(*copied, groups=in_groups) == pytest.approx(alone, abs=1e-3)
    assert auc_interval(*copied).high - auc_interval(*copied).low < 0.5 * (alone.high - alone.low)
    one, many = (
        lift_interval(*pools, 0.2, groups=given)
        for pools, given in (((labelled, unlabelled), None), (copied, in_groups))
    )
    assert one
    assert many
    assert np.log(many) == pytest.approx(np.log(one), abs=0.1)


@pytest.mark.parametrize("share_labelled", [1.0, 0.5])
def test_the_interval_covers_where_items_of_a_group_are_alike(share_labelled: float) -> None:
    """Ten items of a group have nearly one logit; a group is labelled whole, or in part."""
    covered = []
    for seed in range(100):
        group_N = torch.arange(150).repeat_interleave(10)
        logit_N = normal(150, seed=seed)[group_N] + 0.3 * normal(1500, seed=1000 + seed)
        generator = torch.Generator().manual_seed(seed)
        is_labelled_N = (group_N < 30) & (torch.rand(1500, generator=generator) < share_labelled)
        groups = group_N[is_labelled_N], group_N[~is_labelled_N]
        found = auc_interval(logit_N[is_labelled_N], logit_N[~is_labelled_N], groups=groups)
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) >= 0.9
