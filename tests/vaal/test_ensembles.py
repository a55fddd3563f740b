"""Discriminators that are trained again on latents: means of perceptrons, cross-fitted, comparable and calibrated."""

import pytest
import torch

from vaal.ensembles import MEMBERS, Ensemble, EnsembleDiscriminators, refit_ensembles
from vaal.networks import PRESETS
from vaal.refit import Cached
from vaal.signal import auc_interval

SHAPE = PRESETS["small"]


def pools(shift: float, num_labelled: int = 300, length: int = 6) -> tuple[Cached, Cached]:
    """Labelled latents that lack what is far in one direction, and unlabelled ones that have it."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for count, away in ((num_labelled, 0.0), (1500, shift)):
        x_ND = torch.randn(count, length, generator=generator)
        x_ND[::2, 0] += away
        # Scales and means of latents differ.
        found.append(Cached(x_ND * torch.logspace(-2, 1, length) + 5, torch.arange(count) % 3))
    return found[0], found[1]


def own_logits(made: EnsembleDiscriminators, pool: Cached) -> torch.Tensor:
    return made(pool.x_ND).gather(1, pool.fold_N[:, None]).squeeze(1)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    torch.manual_seed(0)
    ensemble, x_BD = Ensemble(SHAPE), torch.randn(7, SHAPE.num_latents)
    width = SHAPE.discriminator_width
    parts = [
        member(x_BD) @ ensemble.last.weight[:, width * n : width * (n + 1)].T
        for n, member in enumerate(ensemble.hidden)
    ]
    expected = torch.stack(parts).mean(dim=0) * MEMBERS + ensemble.last.bias
    torch.testing.assert_close(ensemble(x_BD), expected)


@pytest.mark.heavy
def test_they_tell_pools_apart_by_items_that_they_have_not_seen() -> None:
    labelled, unlabelled = pools(shift=4.0)
    made = refit_ensembles(labelled, unlabelled, 3, SHAPE, 0)
    assert auc_interval(own_logits(made, labelled), own_logits(made, unlabelled)).low > 0.6


@pytest.mark.heavy
def test_of_equal_pools_nothing_is_made_up() -> None:
    labelled, unlabelled = pools(shift=0.0)
    made = refit_ensembles(labelled, unlabelled, 3, SHAPE, 0)
    interval = auc_interval(own_logits(made, labelled), own_logits(made, unlabelled))
    assert interval.low < 0.5 < interval.high
    # Calibrated: no logit that nothing supports.
    assert own_logits(made, unlabelled).abs().mean() < 0.3


@pytest.mark.heavy
def test_folds_are_comparable() -> None:
    labelled, unlabelled = pools(shift=4.0)
    made = refit_ensembles(labelled, unlabelled, 3, SHAPE, 0)
    medians = [own_logits(made, unlabelled)[unlabelled.fold_N == fold].median() for fold in range(3)]
    torch.testing.assert_close(torch.stack(medians), medians[0].expand(3), atol=0.05, rtol=0)


@pytest.mark.heavy
def test_the_same_items_and_seed_give_the_same_weights_whatever_was_drawn_before() -> None:
    labelled, unlabelled = pools(shift=1.0)
    states = []
    for number in range(2):
        torch.manual_seed(number)
        states.append(refit_ensembles(labelled, unlabelled, 3, SHAPE, 0).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = refit_ensembles(labelled, unlabelled, 3, SHAPE, 1).state_dict()
    assert not torch.equal(other["folds.0.last.weight"], states[0]["folds.0.last.weight"])


def test_a_fold_that_nothing_is_outside_of_is_an_error() -> None:
    labelled, unlabelled = pools(shift=1.0)
    alone = labelled._replace(fold_N=torch.zeros_like(labelled.fold_N))
    with pytest.raises(ValueError, match="no item outside of fold 0"):
        refit_ensembles(alone, unlabelled, 3, SHAPE, 0)
