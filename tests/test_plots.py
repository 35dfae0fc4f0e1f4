from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import hyperrl
from hyperrl import plots
from hyperrl.evaluation import Plane


def test_a_panel_an_agent_with_the_training_range_outlined(tmp_path: Path) -> None:
    space = hyperrl.load_family("pendulum").context_space
    x, y = np.linspace(-3, 3, 5), np.linspace(0.6, 1.4, 3)
    returns = np.arange(15.0).reshape(3, 5)
    returns[:, 2] = np.nan
    planes = {
        "a": [Plane(("torque_gain", "length"), x, y, returns + k) for k in (0.0, 2.0)],
        "b": [Plane(("torque_gain", "length"), x, y, -returns)],
    }
    figure = plots.plot_planes(planes, space, "pendulum")
    first, second, bar = figure.axes
    assert [axis.get_title() for axis in (first, second)] == ["a (2 seeds)", "b (1 seed)"]
    assert first.get_xlabel() == "torque_gain"
    assert first.get_ylabel() == "length [m]"
    assert bar.get_ylabel() == "mean return"
    np.testing.assert_allclose(first.collections[0].get_array(), np.ma.masked_invalid(returns + 1))  # the mean of two
    outlines = [patch for patch in first.patches if isinstance(patch, Rectangle)]
    assert [patch.get_bbox().extents.tolist() for patch in outlines] == [
        pytest.approx([-2, 0.8, -0.5, 1.2]),
        pytest.approx([0.5, 0.8, 2, 1.2]),
    ]
    plots.save(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
