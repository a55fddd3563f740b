"""The map of a report is numpy's principal components of the candidates, and keeps every pick."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from engine.report import latent_map as report_map
from engine.report.latent_map import map_of
from engine.tables.selections import CONTROL, DUPLICATE, PASSED_OVER, PICKED

RNG = np.random.default_rng(0)
FATES = (PICKED, CONTROL, DUPLICATE, PASSED_OVER)


def candidates(latent: NDArray[np.float16], fates: list[str] | None = None) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(latent.reshape(-1)), latent.shape[1])
    return pa.table({"latent": column, "fate": pa.array(fates or [PASSED_OVER] * len(latent), pa.string())})


def latents(size: int, num_latents: int = 5) -> NDArray[np.float16]:
    return (RNG.normal(3, 1, (size, num_latents)) * 2.0 ** -np.arange(num_latents)).astype(np.float16)


def components(latent: NDArray[np.float16]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Axes as columns and their variances, largest first, by the covariance; and the centre."""
    values = latent.astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(values.T))
    return axes[:, ::-1], variance[::-1], values.mean(axis=0)


def test_points_are_the_principal_components() -> None:
    latent = latents(200)
    fates = [FATES[n % 4] for n in range(200)]
    found = map_of(candidates(latent, fates))
    axes, variance, centre = components(latent)
    expected = (latent - centre) @ axes[:, :2]
    for axis in (0, 1):
        sign = np.sign(found.points_N2[:, axis] @ expected[:, axis])
        np.testing.assert_allclose(found.points_N2[:, axis], sign * expected[:, axis], atol=1e-9)
    assert found.shares_2 == pytest.approx(variance[:2] / variance.sum())
    assert found.fate_N.tolist() == fates


def test_the_sign_is_that_of_the_largest_component() -> None:
    for _ in range(20):
        latent = latents(30)
        centred = latent - latent.astype(np.float64).mean(axis=0)
        axes = np.linalg.lstsq(centred, map_of(candidates(latent)).points_N2)[0]
        assert (axes.max(axis=0) > -axes.min(axis=0)).all()


def test_points_on_a_line_have_one_axis() -> None:
    latent = np.zeros((4, 3), np.float16)
    latent[:, 2] = [-3, -1, 1, 3]
    found = map_of(candidates(latent))
    np.testing.assert_allclose(found.points_N2, [[-3, 0], [-1, 0], [1, 0], [3, 0]], atol=1e-12)
    assert found.shares_2 == pytest.approx((1, 0))


def test_of_many_candidates_the_axes_are_of_an_even_share_and_every_pick_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_map, "MOST_CANDIDATES", 34)
    latent = latents(100)
    picked = [1, 2, 50, 98]
    fates = [PICKED if n in picked[:3] else CONTROL if n in picked else PASSED_OVER for n in range(100)]
    found = map_of(candidates(latent, fates))
    assert found.num_fitted == 34
    drawn = list(range(0, 100, 3))
    axes, _, centre = components(latent[drawn])
    shown = sorted({*drawn, *picked})
    expected = (latent[shown] - centre) @ axes[:, :2]
    np.testing.assert_allclose(np.abs(found.points_N2), np.abs(expected), atol=1e-9)
    assert found.fate_N.tolist() == [fates[n] for n in shown]


def test_of_many_picks_an_even_share_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_map, "MOST_CANDIDATES", 2)
    monkeypatch.setattr(report_map, "MOST_PICKS", 3)
    found = map_of(candidates(latents(9), [PICKED] * 9))
    assert len(found.points_N2) == 3


def test_one_latent_unit_has_one_axis() -> None:
    found = map_of(candidates(np.array([[1], [3]], np.float16)))
    np.testing.assert_allclose(found.points_N2, [[-1, 0], [1, 0]])
    assert found.shares_2.tolist() == [1, 0]


@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize("value", [0, 0.1])
def test_equal_latents_have_no_plane(size: int, value: float) -> None:
    found = map_of(candidates(np.full((size, 4), value, np.float16), [PICKED] * size))
    assert len(found.points_N2) == len(found.fate_N) == 0
    assert found.num_fitted == size
