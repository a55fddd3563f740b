"""A map of the candidates: their latents on the two axes along which they differ most."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.tables.scores import latents_of
from engine.tables.selections import CONTROL, PICKED

MOST_CANDIDATES = 4000
MOST_PICKS = 2000
"""Points of the map. Of more they are drawn evenly, in the order in which the candidates came into question."""


class LatentMap(NamedTuple):
    """points_N2 (N, 2), what became of each (N,), the share of the variance that each axis has (2,), and the number of
    candidates that the axes are of. With equal latents there are no points."""

    points_N2: NDArray[np.float64]
    fate_N: NDArray[np.object_]
    shares_2: NDArray[np.float64]
    num_fitted: int


def map_of(candidates: pa.Table) -> LatentMap:
    """Principal components of the candidates that are drawn, with all picks among the candidates on the same axes.

    The largest component of an axis is positive. With one latent unit the second axis is zero.
    """
    from sklearn.decomposition import PCA

    fitted = _evenly(np.arange(len(candidates)), MOST_CANDIDATES)
    is_picked = pc.is_in(candidates["fate"], value_set=pa.array([PICKED, CONTROL])).to_numpy()
    shown = np.union1d(fitted, _evenly(np.flatnonzero(is_picked), MOST_PICKS))
    rows = candidates.select(["latent", "fate"]).take(pa.array(shown))
    latent_NZ = latents_of(rows).astype(np.float64)
    fitted_MZ = latent_NZ[np.isin(shown, fitted)]
    # Compared and not subtracted: the mean of equal numbers need not equal them.
    if len(fitted_MZ) < 2 or (fitted_MZ == fitted_MZ[0]).all():
        return LatentMap(np.empty((0, 2)), np.empty(0, np.object_), np.zeros(2), len(fitted))
    found = PCA(min(2, fitted_MZ.shape[1]), svd_solver="full").fit(fitted_MZ)
    lacking = 2 - found.n_components_
    points_N2 = np.pad(found.transform(latent_NZ), ((0, 0), (0, lacking)))
    shares_2 = np.pad(found.explained_variance_ratio_, (0, lacking))
    return LatentMap(points_N2, rows["fate"].to_numpy(), shares_2, len(fitted))


def _evenly(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(np.intp)]
