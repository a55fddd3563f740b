"""Random numbers that are functions of a seed and of an item's identity: the same on every machine and in every batch.

Shape suffix: B batch.
"""

import torch
from torch import Tensor

from vaal.acquisition.view import View

GOLDEN = 0x9E3779B97F4A7C15
"""The step of SplitMix64."""
LARGEST = 1 - 2.0**-24
"""The largest float32 below 1."""


def random_hash(view: View) -> Tensor:
    """A number in (0, 1) for each item (B,), float32, uniform by a hash of the seed and the item's identity.

    The lowest b are a random sample without replacement. Equal numbers are rarest where they are lowest: float32 is
    finer there.
    """
    draw_B = draws(view.identity, view.settings.seed)
    # The middle of one of 2**52 cells: above 0, and exact in float64.
    return (((_shifted(draw_B, 12)).double() + 0.5) * 2.0**-52).float().clamp_max(LARGEST)


def draws(identity_B: Tensor, seed: int) -> Tensor:
    """64 random bits for each identity (B,), int64."""
    return mixed(identity_B ^ mixed(torch.tensor(_signed(seed * GOLDEN), device=identity_B.device)))


def numbered(draw: Tensor, number: Tensor) -> Tensor:
    """64 random bits, int64, for each pair of a draw and a number from 0."""
    return mixed(draw + number * _signed(GOLDEN))


def mixed(value: Tensor) -> Tensor:
    """One step of SplitMix64 (Steele, Lea and Flood 2014) from each value, int64: every bit depends on all bits."""
    value = value + _signed(GOLDEN)
    value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, by: int) -> Tensor:
    # int64 has a sign, which >> would repeat.
    return (value >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
