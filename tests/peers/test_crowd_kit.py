"""Consensus against crowd-kit, an implementation by others: the same estimates where it has the same model."""

import pkgutil
from pathlib import Path

import numpy as np
import pytest

from tests.crowds import anaesthetists, crowd
from tests.peers.crowd_kit import NO_TOLERANCE, crowd_kit
from tests.peers.environments import needs_peer
from vaal.consensus import CONSENSUS, Consensus, Votes, dawid_skene, one_coin
from vaal.consensus.agreement import agreement

pytestmark = needs_peer("crowd-kit")
NO_PSEUDO_COUNTS = {"right": 1e-9, "wrong": 1e-9, "items": 1e-9, "evenness": 0.0}
"""crowd-kit has none."""
SAME_MODEL = {"majority": dict[str, float](), "one_coin": NO_PSEUDO_COUNTS, "dawid_skene": NO_PSEUDO_COUNTS}
ITERATIONS = 150


def ours(method: str, votes: Votes, **settings: float) -> Consensus:
    found: Consensus = pkgutil.resolve_name(CONSENSUS[method].function)(votes, **settings)
    return found


@pytest.fixture
def no_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (one_coin, dawid_skene):
        monkeypatch.setattr(module, "TOLERANCE", 0.0)
        monkeypatch.setattr(module, "MAX_ITERATIONS", ITERATIONS)


@pytest.mark.usefixtures("no_tolerance")
@pytest.mark.parametrize("name", ["crowd", "anaesthetists"])
def test_the_same_estimates_without_pseudo_counts(name: str, tmp_path: Path) -> None:
    votes = anaesthetists() if name == "anaesthetists" else crowd(800, 12, 3, 5, seed=1)[2]
    found = crowd_kit(votes, tmp_path, iterations=ITERATIONS, tolerance=NO_TOLERANCE)
    for method, settings in SAME_MODEL.items():
        result, theirs_NC = ours(method, votes, **settings), found[f"{method}_probability"]
        np.testing.assert_allclose(result.probability_N, theirs_NC.max(axis=1), atol=1e-5)
        chosen_N = np.take_along_axis(theirs_NC, result.class_N[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen_N, theirs_NC.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(ours("one_coin", votes, **NO_PSEUDO_COUNTS).accuracy_A, found["skills"], atol=1e-5)
    assert agreement(votes).alpha == pytest.approx(float(found["alpha"]), abs=1e-12)


def test_nearly_the_same_with_known_classes(tmp_path: Path) -> None:
    class_N, _, votes = crowd(800, 12, 3, 5, seed=2)
    votes = votes._replace(truth_N=np.where(np.arange(800) % 10 == 0, class_N, -1))
    theirs_NC = crowd_kit(votes, tmp_path, iterations=ITERATIONS, tolerance=NO_TOLERANCE)["dawid_skene_probability"]
    result = ours("dawid_skene", votes, **NO_PSEUDO_COUNTS)
    # Not the same: crowd-kit counts the items of known class in the frequency of classes.
    assert (result.class_N == theirs_NC.argmax(axis=1)).mean() > 0.98
    assert np.abs(result.probability_N - theirs_NC.max(axis=1)).mean() < 0.01


def test_with_pseudo_counts_it_is_right_at_least_as_often(tmp_path: Path) -> None:
    gains: dict[str, list[float]] = {method: [] for method in CONSENSUS}
    for seed in range(2):
        class_N, _, votes = crowd(2000, 12, 3, 5, seed=seed)
        found = crowd_kit(votes, tmp_path, with_alpha=False)
        for method in CONSENSUS:
            theirs = (found[f"{method}_probability"].argmax(axis=1) == class_N).mean()
            gains[method].append((ours(method, votes).class_N == class_N).mean() - theirs)
    assert min(map(np.mean, gains.values())) > -0.003, gains
