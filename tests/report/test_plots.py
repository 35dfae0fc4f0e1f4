from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import hyperrl
from hyperrl.evaluation.report import Plane
from hyperrl.evaluation.statistics import Estimate
from hyperrl.report import plots

SPACE = hyperrl.load_family("pendulum").context_space
SPLITS = ("train", "interpolation", "extrapolation")
AGENTS = ("hyper-ppo", "concat-ppo with a long name", "unaware-ppo", "film-ppo", "adapter-ppo", "recurrent-ppo")
X = np.linspace(0, 1_000_000, 50)


def line(x: np.ndarray, height: float) -> plots.Line:
    return x, np.array([height + np.zeros(len(x)), height - 1 + np.zeros(len(x)), height + 2 + np.zeros(len(x))])


def planes() -> Figure:
    x, y = np.linspace(-3, 3, 5), np.linspace(0.6, 1.4, 3)
    one = Plane(("torque_gain", "length"), x, y, np.arange(15.0).reshape(3, 5))
    return plots.plot_planes({agent: [one] for agent in AGENTS}, SPACE, "pendulum")


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
    "switches": lambda: plots.plot_after_switch(
        {
            f"{split}, {which}": {agent: line(np.arange(1.0, 51.0), -1.0 * i) for i, agent in enumerate(AGENTS)}
            for which in ("first context", "later contexts")
            for split in SPLITS
        }
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
    drawn = {tick.label1 for side in sides for tick in side._update_ticks()}  # the others lie out of view  # pyright: ignore[reportAttributeAccessIssue]
    everything = {text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()}
    texts = (everything - ticks) | (everything & drawn)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    for (first, a), (second, b) in combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not overlap, f"{first!r} lies over {second!r}"
    for text, box in boxes:
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
    plots.save(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


SIGHT = {  # linear RGB as seen without one kind of cones (Machado et al. 2009)
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(linear: np.ndarray) -> np.ndarray:
    """Convert linear RGB to CIE L*a*b*."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = to_xyz @ np.clip(linear, 0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_the_color_blind_tell_agents_apart(sight: str) -> None:
    rgb = [np.array(to_rgb(color)) for color in plots.COLORS]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in rgb]
    seen = [lab(np.array(SIGHT[sight]) @ color) for color in linear]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 20


def test_agents_differ_in_what_grey_does_not_take_away() -> None:
    styles = [(plots._DASHES[i % len(plots._DASHES)], plots._MARKERS[i % len(plots._MARKERS)]) for i in range(12)]
    assert len(set(styles)) == 12


@pytest.mark.parametrize("name", FIGURES)
def test_no_picture_is_wider_than_a_page(name: str) -> None:
    assert FIGURES[name]().get_figwidth() * 150 <= 1600


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
    np.testing.assert_allclose(first.collections[0].get_array(), np.ma.masked_invalid(returns + 1))  # the mean of two  # pyright: ignore[reportCallIssue]
    outlines = [patch for patch in first.patches if isinstance(patch, Rectangle)]
    assert [patch.get_bbox().extents.tolist() for patch in outlines] == [  # pyright: ignore[reportAttributeAccessIssue]
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
    assert [drawn.get_xdata().tolist() for drawn in figure.axes[0].lines] == [[-3, -1, -0.5], [0.5, 2]]  # pyright: ignore[reportAttributeAccessIssue]
