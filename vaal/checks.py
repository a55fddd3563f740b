"""Checks of arguments that several methods share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_between(name: str, value: int, low: int, high: int) -> None:
    """Raises ValueError that names the value and its range, if it is not from `low` to `high`."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")


def require_finite(name: str, values: NDArray[np.floating[Any]]) -> None:
    """Raises ValueError with the number of rows of a matrix, or values of a vector, that are not finite."""
    num_bad = int((~np.isfinite(values)).any(axis=tuple(range(1, values.ndim))).sum())
    if num_bad:
        raise ValueError(f"{num_bad} of {len(values)} {name} are not finite")
