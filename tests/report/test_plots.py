from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import hyperrl
from hyperrl.evaluation.report import Plane
from hyperrl.evaluation.statistics import Estimate
from hyperrl.report import plots

SPACE = hyperrl.load_family("pendulum").context_space
SPLITS = ("train", "interpolation", "extrapolation")
AGENTS = ("hyper-ppo", "concat-ppo with a long name", "unaware-ppo", "film-ppo")
X = np.linspace(0, 1_000_000, 50)


def line(x: np.ndarray, height: float) -> plots.Line:
    return x, np.array([height + np.zeros(len(x)), height - 1 + np.zeros(len(x)), height + 2 + np.zeros(len(x))])


def planes() -> Figure:
    x, y = np.linspace(-3, 3, 5), np.linspace(0.6, 1.4, 3)
    one = Plane(("torque_gain", "length"), x, y, np.arange(15.0).reshape(3, 5))
    return plots.plot_planes({agent: [one] for agent in ("hyper-ppo", "concat-ppo")}, SPACE, "pendulum")


FIGURES: dict[str, Callable[[], Figure]] = {
    "planes": planes,
    "curves": lambda: plots.plot_curves({agent: line(X, -100.0 * i) for i, agent in enumerate(AGENTS)}),
    "splits": lambda: plots.plot_splits(
        {agent: {split: Estimate(-500, -600, -450) for split in SPLITS} for agent in AGENTS}, "IQM of returns"
    ),
    "profiles": lambda: plots.plot_profiles(
        np.linspace(-1300, -100, 50),
        {split: {agent: np.tile(np.linspace(1, 0, 50), (3, 1)) for agent in AGENTS} for split in SPLITS},
        "return",
    ),
    "sensitivity": lambda: plots.plot_sensitivity(
        {
            feature.name: {
                agent: line(np.linspace(feature.bounds[0][0], feature.bounds[-1][1], 12), -100.0 * i)
                for i, agent in enumerate(AGENTS)
            }
            for feature in SPACE.features
        },
        SPACE,
    ),
    "irrelevant": lambda: plots.plot_irrelevant(
        {split: {agent: line(np.array([0, 1, 20, 100]), 9.0) for agent in AGENTS} for split in SPLITS}, "IQM of scores"
    ),
    "adaptation": lambda: plots.plot_adaptation(
        {f"{agent}, identify": line(np.array([0, 1, 2, 5, 10, 20]), 0.9 - i) for i, agent in enumerate(AGENTS)},
        is_scored=True,
    ),
    "perturbations": lambda: plots.plot_perturbations(
        {kind: {agent: line(np.array([0, 0.1, 1]), 9.0) for agent in AGENTS} for kind in ("noise", "offset", "other")}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_labelled_and_nothing_overlaps(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    assert all(axis.get_xlabel() or axis.get_label() == "<colorbar>" or name == "splits" for axis in figure.axes)
    assert figure.axes[0].get_ylabel()
    sides = [side for axis in figure.axes for side in (axis.xaxis, axis.yaxis)]
    ticks = {tick.label1 for side in sides for tick in (*side.get_major_ticks(), *side.get_minor_ticks())}
    drawn = {tick.label1 for side in sides for tick in side._update_ticks()}  # the others lie out of view
    everything = {text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()}  # pyright: ignore
    texts = (everything - ticks) | (everything & drawn)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]  # pyright: ignore
    for (first, a), (second, b) in combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not overlap, f"{first!r} lies over {second!r}"
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
    plots.save(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_colors_differ_in_grey() -> None:
    for n in range(2, 7):
        grey = [np.dot(plots._shade(i, n)[:3], [0.299, 0.587, 0.114]) for i in range(n)]
        assert np.all(np.diff(grey) > 0.06)


def test_a_panel_an_agent_with_the_training_range_outlined() -> None:
    x, y = np.linspace(-3, 3, 5), np.linspace(0.6, 1.4, 3)
    returns = np.arange(15.0).reshape(3, 5)
    returns[:, 2] = np.nan
    two = {
        "a": [Plane(("torque_gain", "length"), x, y, returns + k) for k in (0.0, 2.0)],
        "b": [Plane(("torque_gain", "length"), x, y, -returns)],
    }
    figure = plots.plot_planes(two, SPACE, "pendulum")
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


def test_bars_and_their_intervals_are_the_estimates() -> None:
    estimates = {"a": {"train": Estimate(3, 1, 4)}, "b": {"train": Estimate(-2, -5, 0)}}
    axis = plots.plot_splits(estimates, "IQM").axes[0]
    bars = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == [3, -2]
    lines = [collection for collection in axis.collections if isinstance(collection, LineCollection)]
    ends = [collection.get_segments()[0][:, 1].tolist() for collection in lines]
    assert [sorted(map(float, end)) for end in ends] == [[1, 4], [-5, 0]]


def test_a_line_is_broken_where_a_feature_has_a_gap() -> None:
    x = np.array([-3, -1, -0.5, 0.5, 2.0])  # 0 is out of the bounds of torque_gain
    figure = plots.plot_sensitivity({"torque_gain": {"a": line(x, 1.0)}}, SPACE)
    assert [drawn.get_xdata().tolist() for drawn in figure.axes[0].lines] == [[-3, -1, -0.5], [0.5, 2]]  # pyright: ignore
