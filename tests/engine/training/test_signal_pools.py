"""Training finds what there is to find and nothing else, on pools of which it is known.

The networks are trained as the engine does, in this process; `python tests/bench/signal_auc.py` shows the figures.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.texts import parse_settings
from tests.constructed import authors_reductions, missing_mode, no_difference
from tests.learn import learn, share_of_picks
from vaal.losses import gaussian_kl, transductive_loss

SEEDS = range(10)
STEPS = "train.max_steps=60"


def no_difference_found(folder: Path, seed: int) -> dict[str, Any]:
    return learn(no_difference(folder, seed, STEPS).campaign).entries


def missing_mode_found(folder: Path, seed: int) -> tuple[float, float]:
    """The AUC, and the share of the 100 picks that are of the missing mode."""
    made = missing_mode(folder, seed, STEPS)
    learnt = learn(made.campaign)
    assert learnt.entries["signal"] == "present"
    return learnt.entries["diagnosis"]["auc"], share_of_picks(learnt, 100, made.is_wanted)


def test_of_a_random_draw_no_signal_is_told(tmp_path: Path) -> None:
    entries = no_difference_found(tmp_path, 0)
    assert entries["signal"] == "none"
    assert "look like the rest of the pool" in entries["diagnosis"]["findings"][0]


@pytest.mark.slow
def test_of_ten_random_draws_no_signal_is_told_for_nine(tmp_path: Path) -> None:
    verdicts = [no_difference_found(tmp_path / str(seed), seed)["signal"] for seed in SEEDS]
    assert verdicts.count("none") >= 9


def test_a_missing_mode_is_found_and_picked(tmp_path: Path) -> None:
    auc, share = missing_mode_found(tmp_path, 0)
    assert auc > 0.9
    assert share > 0.95


@pytest.mark.slow
def test_a_missing_mode_is_found_and_picked_with_every_seed(tmp_path: Path) -> None:
    for seed in SEEDS:
        auc, share = missing_mode_found(tmp_path / str(seed), seed)
        assert auc > 0.9, seed
        assert share > 0.95, seed


def test_the_authors_reductions_collapse_and_it_is_told(tmp_path: Path) -> None:
    # A learning rate above theirs shows in 120 iterations what comes of 400.
    settings = ("train.max_steps=120", "train.learning_rate=0.003", *authors_reductions(8 * 8, 64))
    diagnosis = learn(missing_mode(tmp_path, 0, *settings).campaign).entries["diagnosis"]
    assert "the posterior has collapsed" in diagnosis["findings"][0]
    assert diagnosis["active_units"] < 0.1 * diagnosis["latent_units"]


def test_the_authors_reductions_are_settings_of_ours() -> None:
    generator = torch.Generator().manual_seed(0)
    image, target = (torch.rand(5, 3, 8, 8, generator=generator) for _ in range(2))
    mean, logvar = (torch.randn(5, 4, generator=generator) for _ in range(2))
    set_to = parse_settings(list(authors_reductions(3 * 8 * 8, 5)))

    def of_ours(image: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        loss = transductive_loss(image, target, mean, logvar, set_to["train.beta"])
        return set_to["train.transductive_weight"] * loss

    def of_theirs(image: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return (image - target).square().mean() + len(mean) * gaussian_kl(mean, logvar)

    # Equal but for the constant of the Gaussian: so are the differences.
    ours, theirs = (loss(image, mean) - loss(image / 2, mean / 3) for loss in (of_ours, of_theirs))
    torch.testing.assert_close(ours, theirs)
