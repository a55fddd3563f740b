"""Simulated annotators: several people, each with a confusion matrix of their own, who answer what a batch asks.

An answer is a function of the person, the item and its class: the same in every strategy and in every run.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, TypeAdapter, ValidationError

from engine.pool.identity import draw_of
from engine.simulation.experiment_parts import OraclePart

_WHO, _SAYS = 201, 202
"""Seeds of the hashes that decide who is asked, and what they say."""
SUM_WITHIN = 1e-6
"""How far the shares of a row may be from 1 in all."""


class Crowd(NamedTuple):
    """How often each annotator is right (A,), and by class the numbers of those that it is taken for; or, if not None,
    the shares (A, K, K) of what each says of each class: rows are true classes."""

    accuracy_A: NDArray[np.float64]
    others: list[list[int]]
    said_AKK: NDArray[np.float64] | None

    @classmethod
    def of(
        cls, oracle: OraclePart, others: list[list[int]], said_AKK: NDArray[np.float64] | None = None
    ) -> "Crowd | None":
        """The annotators of an oracle; None where it answers itself. `said_AKK` is that of `matrices_of`."""
        if not oracle.annotators:
            return None
        if said_AKK is not None:
            said_AKK = np.broadcast_to(said_AKK, (oracle.annotators, *said_AKK.shape[1:]))
        low, high = oracle.accuracy if isinstance(oracle.accuracy, list) else (oracle.accuracy, oracle.accuracy)
        # Evenly spread: no seed has a better crowd by chance.
        return cls(np.linspace(low, high, oracle.annotators), others, said_AKK)

    def _shares(self, person: int, number: int) -> tuple[list[int], NDArray[np.float64]]:
        """What an annotator may say of a class, and with which shares."""
        if self.said_AKK is not None:
            share_K = self.said_AKK[person, number]
            # What has no share is never said, wherever rounding puts the last sum.
            said = np.flatnonzero(share_K)
            return said.tolist(), share_K[said]
        right, others = float(self.accuracy_A[person]), self.others[number]
        if not others:
            return [number], np.ones(1)
        may_say = sorted([number, *others])
        return may_say, np.array([right if said == number else (1 - right) / len(others) for said in may_say])

    def answers(self, name: tuple[str, str], number: int, count: int) -> Iterator[tuple[str, int]]:
        """The annotators and the classes that `count` different people give to an item, whose class the oracle says is
        this number. The first of them are the same for any count."""
        shard, key = name
        draw = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8, salt=bytes([_WHO])).digest()
        order_A = np.random.default_rng(int.from_bytes(draw, "big")).permutation(len(self.accuracy_A))
        for person in order_A[:count].tolist():
            said, share = self._shares(person, number)
            sums = np.cumsum(share)
            at = draw_of(shard, f"{key}\0{person}", _SAYS) / 2**64 * sums[-1]
            yield f"annotator-{person:03d}", said[min(int(np.searchsorted(sums, at, side="right")), len(said) - 1)]


def matrices_of(content: bytes, classes: list[str], annotators: int) -> NDArray[np.float64]:
    """Confusion matrices (A, K, K), or (1, K, K) of one that all annotators share, from a JSON list of tables: by true
    class the shares of what is said. What is not there has none.

    Raises ValueError where it is something else, or does not fit the classes or the number of annotators.
    """
    form = '[{"cat": {"cat": 0.9, "dog": 0.1}, "dog": {"dog": 1}}], a table for each annotator or one for all'
    try:
        tables = TypeAdapter(list[dict[str, dict[str, NonNegativeFloat]]]).validate_json(content)
    except ValidationError as error:
        raise ValueError(f"not a JSON list like {form}; correct it") from error
    if len(tables) not in (1, annotators):
        raise ValueError(f"{len(tables)} matrices, and oracle.annotators={annotators}; give so many, or one for all")
    place = {name: number for number, name in enumerate(classes)}
    said_AKK = np.zeros((len(tables), len(classes), len(classes)))
    for number, table in enumerate(tables):
        if odd := sorted({*table, *(name for row in table.values() for name in row)} - place.keys()):
            raise ValueError(f"{odd[0]!r} is no class; the classes: {', '.join(classes)}")
        for name in classes:
            row = table.get(name, {})
            if abs((total := sum(row.values())) - 1) > SUM_WITHIN:
                raise ValueError(f"matrix {number + 1}: the shares of {name!r} add up to {total:g}; make it 1")
            for said, share in row.items():
                said_AKK[number, place[name], place[said]] = share
    return said_AKK
