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
    """The shares (A, K, K) of what each annotator says of each class: rows are true classes."""

    said_AKK: NDArray[np.float64]

    @classmethod
    def of(
        cls, oracle: OraclePart, others: list[list[int]], said_AKK: NDArray[np.float64] | None = None
    ) -> "Crowd | None":
        """The annotators of an oracle; None where it answers itself.

        Args:
            others: by class the numbers of those that it is taken for, where annotators have an accuracy.
            said_AKK: of `matrices_of`.
        """
        if not oracle.annotators:
            return None
        if said_AKK is not None:
            return cls(np.broadcast_to(said_AKK, (oracle.annotators, *said_AKK.shape[1:])))
        low, high = oracle.accuracy if isinstance(oracle.accuracy, list) else (oracle.accuracy, oracle.accuracy)
        # Evenly spread: no seed has a better crowd by chance.
        right_A, said_AKK = np.linspace(low, high, oracle.annotators), np.zeros((oracle.annotators, *[len(others)] * 2))
        for number, choices in enumerate(others):
            said_AKK[:, number, choices] = ((1 - right_A) / max(1, len(choices)))[:, None]
            said_AKK[:, number, number] = right_A if choices else 1
        return cls(said_AKK)

    def answers(self, name: tuple[str, str], number: int, count: int) -> Iterator[tuple[str, int]]:
        """The annotators and the classes that `count` different people give to an item, whose class the oracle says is
        this number. The first of them are the same for any count."""
        shard, key = name
        draw = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8, salt=bytes([_WHO])).digest()
        order_A = np.random.default_rng(int.from_bytes(draw, "big")).permutation(len(self.said_AKK))
        for person in order_A[:count].tolist():
            share_K = self.said_AKK[person, number]
            # What has no share is never said, wherever rounding puts the last sum.
            said_K = np.flatnonzero(share_K)
            sum_K = np.cumsum(share_K[said_K])
            at = draw_of(shard, f"{key}\0{person}", _SAYS) / 2**64 * sum_K[-1]
            yield f"annotator-{person:03d}", int(said_K[min(np.searchsorted(sum_K, at, side="right"), len(said_K) - 1)])


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
    place, said_AKK = (
        {name: number for number, name in enumerate(classes)},
        np.zeros((len(tables), *[len(classes)] * 2)),
    )
    for number, table in enumerate(tables):
        if odd := sorted({*table, *(name for row in table.values() for name in row)} - place.keys()):
            raise ValueError(f"{odd[0]!r} is no class; the classes: {', '.join(classes)}")
        for name in classes:
            row = table.get(name, {})
            if abs(sum(row.values()) - 1) > SUM_WITHIN:
                raise ValueError(
                    f"matrix {number + 1}: the shares of {name!r} add up to {sum(row.values()):g}; make it 1"
                )
            for said, share in row.items():
                said_AKK[number, place[name], place[said]] = share
    return said_AKK
