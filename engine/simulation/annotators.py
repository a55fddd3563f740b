"""Simulated annotators: several people, each right as often as one person is, who answer what a batch asks.

An answer is a function of the person, the item and its class: the same in every strategy and in every run.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.pool.identity import draw_of
from engine.simulation.experiment_parts import OraclePart

_WHO, _RIGHT, _INSTEAD = 201, 202, 203
"""Seeds of the hashes that decide who is asked, whether they are right, and what they say instead."""


class Crowd(NamedTuple):
    """How often each annotator is right (A,), and by class the numbers of those that it may be taken for."""

    accuracy_A: NDArray[np.float64]
    others: list[list[int]]

    @classmethod
    def of(cls, oracle: OraclePart, others: list[list[int]]) -> "Crowd | None":
        """The annotators of an oracle; None where it answers itself."""
        if not oracle.annotators:
            return None
        low, high = oracle.accuracy if isinstance(oracle.accuracy, list) else (oracle.accuracy, oracle.accuracy)
        # Evenly spread: no seed has a better crowd by chance.
        return cls(np.linspace(low, high, oracle.annotators), others)

    def answers(self, name: tuple[str, str], number: int, count: int) -> Iterator[tuple[str, int]]:
        """The annotators and the classes that `count` different people give to an item, whose class the oracle says is
        this number. The first of them are the same for any count."""
        shard, key = name
        draw = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8, salt=bytes([_WHO])).digest()
        order_A = np.random.default_rng(int.from_bytes(draw, "big")).permutation(len(self.accuracy_A))
        for person in order_A[:count].tolist():
            its_own = f"{key}\0{person}"
            said = number
            if draw_of(shard, its_own, _RIGHT) >= self.accuracy_A[person] * 2**64:
                choices = self.others[number]
                said = choices[draw_of(shard, its_own, _INSTEAD) % len(choices)]
            yield f"annotator-{person:03d}", said
