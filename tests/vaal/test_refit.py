"""Discriminators that are fitted at once, and what makes the logits of folds comparable and calibrated."""

import pytest
import torch
from torch import nn

from vaal.calibration import Judged, adjust
from vaal.refit import Cached, refit


def pools(num_labelled: int, num_unlabelled: int, num_folds: int, seed: int = 0) -> tuple[Cached, Cached]:
    """Labelled items from one of the two halves of the pool, in 16 dimensions of which one tells the halves apart."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.ones(num_labelled), torch.randint(0, 2, (num_unlabelled,), generator=generator) * 2.0 - 1
    made = []
    for side_N in sides:
        x_ND = torch.randn(len(side_N), 16, generator=generator)
        x_ND[:, 3] += 1.5 * side_N
        made.append(Cached(x_ND, torch.randint(0, num_folds, (len(side_N),), generator=generator)))
    return made[0], made[1]


def own_fold(networks: nn.Module, pool: Cached) -> torch.Tensor:
    with torch.no_grad():
        logit_N: torch.Tensor = networks(pool.x_ND).gather(1, pool.fold_N[:, None])[:, 0]
    return logit_N


@pytest.mark.parametrize("num_folds", [1, 2, 5])
def test_logits_tell_the_pools_apart_and_are_log_density_ratios(num_folds: int) -> None:
    labelled, unlabelled = pools(400, 3000, num_folds)
    logit_N = own_fold(refit(labelled, unlabelled, num_folds), pools(10, 6000, num_folds, seed=1)[1])
    x_N = pools(10, 6000, num_folds, seed=1)[1].x_ND[:, 3]
    # The density of the labelled items over that of all: 2 / (1 + exp(-3 x)).
    true_N = torch.log(2 / (1 + torch.exp(-3 * x_N)))
    assert float(torch.corrcoef(torch.stack([logit_N, true_N]))[0, 1]) > 0.85
    # The mean of the ratio over the pool is 1.
    assert float(logit_N.exp().mean()) == pytest.approx(1, abs=0.2)


def test_a_discriminator_has_not_seen_the_items_of_its_fold() -> None:
    labelled, unlabelled = pools(300, 1000, 3)
    own = labelled.fold_N == 1
    moved = labelled._replace(x_ND=torch.where(own[:, None], -labelled.x_ND, labelled.x_ND))
    # Directions only: penalty and temperature are those of all folds together.
    first, second = (refit(pool, unlabelled, 3).folds[1].weight[0] for pool in (labelled, moved))
    assert float(torch.cosine_similarity(first, second, dim=0)) > 0.9
    first, second = (refit(pool, unlabelled, 3).folds[0].weight[0] for pool in (labelled, moved))
    assert float(torch.cosine_similarity(first, second, dim=0)) < 0.8


@pytest.mark.parametrize("num_folds", [1, 5])
def test_the_refit_is_the_same_each_time_and_in_any_mode(num_folds: int) -> None:
    labelled, unlabelled = pools(60, 500, num_folds)
    first = refit(labelled, unlabelled, num_folds)
    with torch.inference_mode():
        second = refit(*(Cached(pool.x_ND * 1, pool.fold_N * 1) for pool in (labelled, unlabelled)), num_folds)
    assert all(
        torch.equal(*pair) for pair in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_few_labels_that_say_nothing_give_small_logits() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        parts = (torch.randn(count, 128, generator=generator) for count in (20, 2000))
        labelled, unlabelled = (Cached(x_ND, torch.arange(len(x_ND)) % 5) for x_ND in parts)
        logit_N = own_fold(refit(labelled, unlabelled, 5), unlabelled)
        assert float(logit_N.abs().max()) < 3


def test_a_pool_without_an_item_outside_of_a_fold_is_refused() -> None:
    labelled, unlabelled = pools(20, 100, 2)
    with pytest.raises(ValueError, match=r"no item outside of fold 0"):
        refit(labelled._replace(fold_N=torch.zeros(20, dtype=torch.int64)), unlabelled, 2)


def skewed(num_folds: int) -> tuple[list[nn.Module], list[Judged], Cached]:
    """Discriminators of one direction whose logits have another place and size in every fold."""
    labelled, unlabelled = pools(500, 5000, num_folds)
    folds: list[nn.Module] = []
    for number in range(num_folds):
        layer = nn.Linear(16, 1)
        with torch.no_grad():
            layer.weight.zero_()[0, 3] = 3.0 * (1 + number)
            layer.bias.fill_(4.0 * number)
        folds.append(nn.Sequential(nn.Identity(), layer))
    judged = [Judged(_own(folds, pool), pool.fold_N) for pool in (labelled, unlabelled)]
    return folds, judged, unlabelled


def _own(folds: list[nn.Module], pool: Cached) -> torch.Tensor:
    with torch.no_grad():
        logit_NK = torch.cat([fold(pool.x_ND) for fold in folds], dim=1)
    return logit_NK.gather(1, pool.fold_N[:, None])[:, 0]


def test_the_lowest_come_from_all_folds_alike_and_their_logits_are_calibrated() -> None:
    folds, judged, unlabelled = skewed(5)
    lowest = judged[1].logit_N.argsort()[:250]
    assert int(torch.bincount(unlabelled.fold_N[lowest], minlength=5).max()) > 100
    assert adjust(folds, *judged) < 1
    logit_N = _own(folds, unlabelled)
    counts_K = torch.bincount(unlabelled.fold_N[logit_N.argsort()[:250]], minlength=5)
    assert int(counts_K.min()) > 35
    assert int(counts_K.max()) < 65
    assert float(logit_N.abs().max()) < 10
    # Only places and sizes change: the order in a fold does not.
    for number in range(5):
        own = unlabelled.fold_N == number
        assert torch.equal(logit_N[own].argsort(), judged[1].logit_N[own].argsort())


def test_few_items_of_a_fold_say_too_little_to_move_it_and_none_to_calibrate() -> None:
    folds, judged, _ = skewed(2)
    few = Judged(judged[1].logit_N[:20], judged[1].fold_N[:20])
    factor = adjust(folds, judged[0], few)
    assert float(folds[1][1].bias.detach()) == pytest.approx(4 * factor)
    assert adjust(folds, Judged(few.logit_N[:0], few.fold_N[:0]), few) == 1


def test_one_labelled_item_alone_is_no_error() -> None:
    one = Cached(torch.ones(1, 3), torch.zeros(1, dtype=torch.int64))
    others = Cached(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(50, dtype=torch.int64))
    made = refit(one, others, 1)
    assert torch.isfinite(made(others.x_ND)).all()
    assert made(one.x_ND).item() > made(others.x_ND).mean()


def test_with_one_fold_the_items_of_a_group_are_held_out_together() -> None:
    generator, found = torch.Generator().manual_seed(0), {}
    # Frames of clips, which are in one pool or in both by chance: nothing tells the pools apart but the clip.
    clip_N = torch.arange(60).repeat_interleave(10)
    clips = torch.randn(60, 24, generator=generator)[clip_N] + 0.05 * torch.randn(600, 24, generator=generator)
    is_labelled_N = torch.rand(60, generator=generator)[clip_N] < 0.4
    number_N = torch.randint(-(2**62), 2**62, (60,), generator=generator)[clip_N]
    for name, group_N in (("apart", None), ("together", number_N)):
        made = [
            Cached(
                clips[part], torch.zeros(int(part.sum()), dtype=torch.int64), None if group_N is None else group_N[part]
            )
            for part in (is_labelled_N, ~is_labelled_N)
        ]
        found[name] = float(refit(*made, 1)(clips).std())
    assert found["together"] < 0.5 < 2 < found["apart"]


def test_one_labelled_group_alone_is_no_error() -> None:
    labelled, others = pools(20, 100, 1)
    made = refit(labelled._replace(group_N=torch.full((20,), 7)), others._replace(group_N=torch.arange(100)), 1)
    assert torch.isfinite(made(others.x_ND)).all()
