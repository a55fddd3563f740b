"""Charts of curves: what is drawn is what there is to see."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from engine.report.charts import LIGHT
from engine.simulation.curve_charts import Bands, Curves, _draw


@pytest.mark.parametrize(("half", "most", "num_drawn"), [(0.5, 1.5, 1), (150.0, 1.0, 0), (np.inf, 1.0, 0)])
def test_a_band_of_few_seeds_does_not_hide_the_differences(half: float, most: float, num_drawn: int) -> None:
    none, mean = np.zeros(3), np.array([0.0, 1.0, -0.5])
    bands: Bands = {"random": (none, none), "other": (mean, np.array([0.0, half, half]))}
    axes = Figure().subplots()
    _draw(axes, Curves(bands, {"other": bands["other"]}, np.array([10.0, 20.0, 30.0]), "labels", "mIoU"), "gap", LIGHT)
    low, high = axes.get_ylim()
    assert high == pytest.approx(most, rel=0.1)
    assert -most * 1.1 <= low <= -0.5
    assert len(axes.collections) == num_drawn
    words = "" if num_drawn else "1 band too wide to draw: such differences may be chance"
    assert axes.get_title() == words
