"""Crowds: votes of annotators whose accuracy is known on items whose class is known, and those of a published paper."""

import numpy as np
from numpy.typing import NDArray

from vaal.consensus import Votes

ANAESTHETISTS = """
    1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212
    1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111
    1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111
    2322222 1211111 2222222
"""
"""Table 1 of Dawid and Skene 1979: 45 patients; three votes of the first observer, one of each of four others."""


def crowd(
    num_items: int, num_annotators: int, votes_per_item: int, num_classes: int, *, seed: int = 0,
    accuracies: tuple[float, float] = (0.6, 0.95), common: float | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], Votes]:  # fmt: skip
    """Classes (N,), accuracies of annotators (A,) in a range, and votes of different annotators; errors are uniform.

    Classes are equally frequent, or the first has the share `common`.
    """
    rng = np.random.default_rng(seed)
    class_N, accuracy_A = rng.integers(num_classes, size=num_items), rng.uniform(*accuracies, num_annotators)
    if common is not None:
        class_N = np.where(rng.random(num_items) < common, 0, rng.integers(1, num_classes, num_items))
    # The annotators of an item are at one distance from one another, too few times to come round: so they differ.
    longest = (num_annotators - 1) // max(votes_per_item - 1, 1)
    first_N, step_N = rng.integers(num_annotators, size=num_items), rng.integers(1, longest + 1, num_items)
    annotator_V = (first_N[:, None] + step_N[:, None] * np.arange(votes_per_item)).ravel() % num_annotators
    item_V = np.repeat(np.arange(num_items), votes_per_item)
    is_right_V = rng.random(len(item_V)) < accuracy_A[annotator_V]
    error_V = rng.integers(1, max(num_classes, 2), len(item_V))
    class_V = np.where(is_right_V, class_N[item_V], (class_N[item_V] + error_V) % num_classes)
    return class_N, accuracy_A, Votes(item_V, annotator_V, class_V, np.full(num_items, -1), num_annotators, num_classes)


def anaesthetists() -> Votes:
    said = np.array([list(patient) for patient in ANAESTHETISTS.split()]).astype(np.int64) - 1
    item_V, place_V = np.indices(said.shape).reshape(2, -1)
    return Votes(item_V, np.maximum(place_V - 2, 0), said.ravel(), np.full(len(said), -1), 5, 4)


def votes_of(rows: list[tuple[int, int, int]], *, truth: list[int], num_annotators: int, num_classes: int) -> Votes:
    """Votes from rows of (item, annotator, class)."""
    item_V, annotator_V, class_V = np.array(rows, np.int64).reshape(-1, 3).T
    return Votes(item_V, annotator_V, class_V, np.array(truth, np.int64), num_annotators, num_classes)
