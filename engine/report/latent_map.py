"""A map of the candidates: their latents on the two axes along which they differ most."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.selection.diversify import latents_of
from engine.tables.selections import CONTROL, PICKED

MOST_CANDIDATES = 4000
MOST_PICKS = 2000
"""Points of the map. Of more they are drawn evenly, in the order in which the candidates came into question."""


class Plane(NamedTuple):
    """points_N2 (N, 2), what became of each (N,), and the share of the variance that each axis has (2,)."""

    points_N2: NDArray[np.float64]
    fate_N: NDArray[np.object_]
    shares: tuple[float, float]


class Map(NamedTuple):
    """The plane, and the number of candidates that the axes are of. With equal latents there is no plane."""

    plane: Plane | None
    num_fitted: int


def map_of(candidates: pa.Table) -> Map:
    """Principal components of the candidates that are drawn, with all picks among the candidates on the same axes."""
    fitted = _evenly(np.arange(len(candidates)), MOST_CANDIDATES)
    is_picked = pc.is_in(candidates["fate"], value_set=pa.array([PICKED, CONTROL])).to_numpy()
    shown = np.union1d(fitted, _evenly(np.flatnonzero(is_picked), MOST_PICKS))
    rows = candidates.select(["latent", "fate"]).take(pa.array(shown))
    latent_NZ = latents_of(rows).astype(np.float64)
    fitted_MZ = latent_NZ[np.isin(shown, fitted)]
    # Compared and not subtracted: the mean of equal numbers need not equal them.
    if len(fitted_MZ) < 2 or (fitted_MZ == fitted_MZ[0]).all():
        return Map(None, len(fitted))
    centre = fitted_MZ.mean(axis=0)
    _, scale, axes = np.linalg.svd(fitted_MZ - centre, full_matrices=False)
    variance = np.zeros(2)
    variance[: len(scale)] = scale[:2] ** 2 / (scale**2).sum()
    axes_2Z = np.zeros((2, latent_NZ.shape[1]))
    axes_2Z[: len(axes)] = axes[:2]
    points_N2 = (latent_NZ - centre) @ _with_sign(axes_2Z).T
    return Map(Plane(points_N2, rows["fate"].to_numpy(), (float(variance[0]), float(variance[1]))), len(fitted))


def _evenly(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.intp)]


def _with_sign(axes_2Z: NDArray[np.float64]) -> NDArray[np.float64]:
    """With the largest component of each positive: a singular vector is as good as its opposite."""
    largest = np.take_along_axis(axes_2Z, np.abs(axes_2Z).argmax(axis=1)[:, None], axis=1)
    return axes_2Z * np.where(largest < 0, -1, 1)
