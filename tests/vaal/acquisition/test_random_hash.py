"""Numbers by a hash: those of SplitMix64, uniform, and of the item and the seed alone."""

import numpy as np
import pytest
import torch

from tests.views import images, task_of, view_of
from vaal.acquisition.random_hash import draws, mixed, numbered, random_hash
from vaal.acquisition.view import Inputs, Settings, View
from vaal.assembly import Networks

MASK = (1 << 64) - 1


def splitmix(value: int) -> int:
    """The published step, in Python's whole numbers (java.util.SplittableRandom, mix64 with the constants of 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def hashes(count: int, seed: int = 0) -> torch.Tensor:
    identity = torch.from_numpy(np.random.default_rng(1).integers(-(2**63), 2**63, count))
    view = View(Networks(), Inputs(torch.empty(count), torch.empty(count), identity_B=identity), Settings(seed))
    return random_hash(view)


def test_it_is_splitmix64() -> None:
    values = [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF]
    expected = [splitmix(value & MASK) for value in values]
    assert [int(value) & MASK for value in mixed(torch.tensor(values))] == expected
    # The first outputs of a generator that starts at 0, as they are published for it.
    found = numbered(torch.tensor(0), torch.arange(2))
    assert [int(value) & MASK for value in found] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_numbers_are_uniform_between_zero_and_one_and_differ() -> None:
    found = hashes(100_000)
    assert found.dtype == torch.float32
    assert 0 < float(found.min()) < 1e-4
    assert 1 - 1e-4 < float(found.max()) < 1
    ordered = found.double().sort().values
    # Kolmogorov and Smirnov: a distance of 1.63 / sqrt(n) has a probability of 1 %.
    assert float((ordered - (torch.arange(100_000) + 0.5) / 100_000).abs().max()) < 1.63 / 100_000**0.5
    assert len(found.unique()) > 99_500
    assert len(ordered[:5000].unique()) == 5000


def test_a_draw_of_ones_stays_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaal.acquisition.random_hash.draws", lambda identity, seed: torch.tensor([-1, 0]))
    found = hashes(2)
    assert float(found[0]) == 1 - 2.0**-24
    assert 0 < float(found[1]) < 1e-15


def test_seed_and_identity_decide() -> None:
    assert abs(float(np.corrcoef(hashes(10_000), hashes(10_000, seed=1))[0, 1])) < 0.04
    task = task_of("classes")
    found = random_hash(view_of(Networks(task=task), images(5)))
    again = random_hash(view_of(Networks(task=task), images(3, seed=9), first=2))
    torch.testing.assert_close(again, found[2:], rtol=0, atol=0)


def test_numbered_draws_are_independent() -> None:
    draw = draws(torch.arange(1000), seed=3)
    sign = (numbered(draw[:, None], torch.arange(64)) < 0).double() * 2 - 1
    assert abs(float(sign.mean())) < 4 / 64_000**0.5
    assert float((sign.T @ sign / 1000 - torch.eye(64)).abs().max()) < 5 / 1000**0.5
