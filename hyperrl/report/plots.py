"""Pictures of evaluations: agents differ in color, dashes and marker, for the color-blind and in grey too."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from hyperrl.contexts import ContextSpace, Interval, Vector
from hyperrl.evaluation.report import Plane
from hyperrl.evaluation.statistics import Estimate
from hyperrl.utils.files import write_bytes

Line = tuple[Vector, Vector]
"""Abscissae ``(k,)``, and values with both ends of their intervals ``(3, k)``."""

COLORS = ("#004488", "#C4500A", "#56B4E9", "#882255", "#EEAA00", "#8C8C8C")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_MARKERS = "osD^vPX"  # one more than colors: a seventh agent differs from the first
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo")


def plot_planes(planes: Mapping[str, Sequence[Plane]], space: ContextSpace, family: str) -> Figure:
    """Draw the mean return over the context plane, one panel per agent, averaged over its seeds.

    The training range is outlined; what is out of bounds stays blank.

    :param planes: the planes of each agent's runs, all of one grid.
    :param space: the family's context space.
    :param family: the family's name, for the title.
    """
    first = next(iter(planes.values()))[0]
    means = {agent: np.mean([plane.returns for plane in group], axis=0) for agent, group in planes.items()}
    low, high = np.nanmin(list(means.values())), np.nanmax(list(means.values()))
    figure, axes = grid(len(means), 3.1, 3.0)
    fx, fy = (space.features[space.index(name)] for name in first.features)
    colors = ScalarMappable(Normalize(low, high), "viridis")
    for axis, (agent, returns) in zip(axes, means.items(), strict=True):
        axis.pcolormesh(first.x, first.y, returns, norm=colors.norm, cmap=colors.cmap, shading="nearest")
        for i, (x0, x1) in enumerate(fx.train):
            for y0, y1 in fy.train:
                label = "training range" if i == 0 else None
                box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", lw=1.5, label=label)
                box.set_path_effects([Stroke(linewidth=3.5, foreground="black"), Normal()])  # seen on any color
                axis.add_patch(box)
        seeds = len(planes[agent])
        axis.set_title(f"{agent} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=10)
        axis.set_xlabel(axis_label(fx.name, fx.unit))
    label_rows(axes, axis_label(fy.name, fy.unit))
    figure.colorbar(colors, ax=axes, label="mean return", shrink=0.9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", frameon=False, fontsize=9)
    figure.suptitle(f"{family}: return over the context plane, other features at their default", fontsize=11)
    return figure


def plot_curves(curves: Mapping[str, Line]) -> Figure:
    """Draw the return of training against environment steps, one line an agent.

    :param curves: steps and mean returns by agent.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for i, (agent, line) in enumerate(curves.items()):
        _draw(axis, i, agent, line, every=10)
    axis.set_xlabel("environment steps")
    axis.set_ylabel("return of training, mean of 100 episodes")
    axis.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    finish(figure, axis)
    return figure


def plot_splits(estimates: Mapping[str, Mapping[str, Estimate]], what: str) -> Figure:
    """Draw one group of bars per split, one bar an agent, with intervals.

    :param estimates: by agent and split.
    :param what: what is estimated, for the axis.
    """
    splits = list(next(iter(estimates.values())))
    figure = Figure(figsize=(2.0 + 1.8 * len(splits), 3.8), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(estimates)
    for i, (agent, of) in enumerate(estimates.items()):
        x = np.arange(len(splits)) + (i - (len(estimates) - 1) / 2) * width
        value, low, high = np.array([of[split] for split in splits]).T
        style: dict[str, Any] = dict(hatch=_HATCHES[i % len(_HATCHES)], edgecolor="white", capsize=3)
        axis.bar(
            x,
            value,
            0.94 * width,
            yerr=(value - low, high - value),
            color=COLORS[i % len(COLORS)],
            label=agent,
            **style,
        )
    axis.set_xticks(range(len(splits)), splits)
    axis.set_ylabel(what)
    axis.axhline(0, color="black", lw=0.8)
    finish(figure, axis)
    axis.grid(visible=False, axis="x")
    return figure


def plot_profiles(thresholds: Vector, profiles: Mapping[str, Mapping[str, Vector]], what: str) -> Figure:
    """Draw the fraction of seeds and contexts above each threshold, one panel per split, one line an agent.

    :param thresholds: shape ``(t,)``.
    :param profiles: by split and agent, each of shape ``(3, t)``.
    :param what: what is measured, ``"score"`` or ``"return"``.
    """
    figure, axes = grid(len(profiles), 3.0, 2.9)
    for axis, (split, agents) in zip(axes, profiles.items(), strict=True):
        for i, (agent, profile) in enumerate(agents.items()):
            _draw(axis, i, agent, (thresholds, profile), every=20)
        axis.set_title(split, fontsize=10)
        axis.set_xlabel(f"{what} τ")
        axis.locator_params(axis="x", nbins=4)
        axis.set_ylim(-0.03, 1.03)
    label_rows(axes, f"fraction with {what} > τ")
    finish(figure, *axes)
    return figure


def plot_sensitivity(sensitivity: Mapping[str, Mapping[str, Line]], space: ContextSpace) -> Figure:
    """Draw the mean return along each feature, the others at their default; the training range is shaded.

    :param sensitivity: by feature and agent.
    :param space: the family's context space.
    """
    figure, axes = grid(len(sensitivity), 3.0, 2.7)
    for axis, (name, agents) in zip(axes, sensitivity.items(), strict=True):
        feature = space.features[space.index(name)]
        for low, high in feature.train:
            axis.axvspan(low, high, color="0.9", lw=0, zorder=0)
        for i, (agent, line) in enumerate(agents.items()):
            _draw(axis, i, agent, line, pieces=feature.bounds)
        axis.set_xlabel(axis_label(feature.name, feature.unit))
    label_rows(axes, "mean return")
    finish(figure, *axes)
    return figure


def plot_perturbations(perturbed: Mapping[str, Mapping[str, Line]]) -> Figure:
    """Draw the return against how wrong the reported context is, one panel per kind of perturbation.

    :param perturbed: by kind and agent.
    """
    levels = {
        "noise": "noise: standard deviation\n[half training ranges]",
        "offset": "offset of every feature\n[half training ranges]",
        "other": "probability of being reported\nanother context",
    }
    return _panels(perturbed, [levels[kind] for kind in perturbed], "IQM of returns")


def plot_after_switch(lines: Mapping[str, Mapping[str, Line]]) -> Figure:
    """Draw the mean reward of each step since a context began, one panel per split and kind of context.

    :param lines: by the panel's title and by agent.
    """
    figure = _panels(lines, ["steps in this context"] * len(lines), "mean reward of a step", every=10)
    for axis, title in zip(figure.axes, lines, strict=True):
        axis.set_title(title, fontsize=10)
    return figure


def plot_irrelevant(lines: Mapping[str, Mapping[str, Line]], what: str) -> Figure:
    """Draw what an agent gets against the number of features that do nothing, one panel per split.

    :param lines: by split and agent.
    :param what: what is drawn, for the axis.
    """
    figure = _panels(lines, ["irrelevant features"] * len(lines), what)
    counts = sorted({n for agents in lines.values() for x, _ in agents.values() for n in x.tolist()})
    for axis, split in zip(figure.axes, lines, strict=True):
        axis.set_title(split, fontsize=10)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(-0.2, 1.3 * counts[-1])
        axis.set_xticks(counts, [f"{n:g}" for n in counts])
        axis.minorticks_off()
    return figure


def plot_adaptation(lines: Mapping[str, Line], is_scored: bool) -> Figure:
    """Draw how well agents do in unseen contexts against the episodes played there, one line an agent and method.

    :param lines: numbers of episodes, and interquartile means of scores or returns, by label.
    :param is_scored: they are scores, of which a specialist has 1: a dashed line.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    for i, (label, line) in enumerate(lines.items()):
        _draw(axis, i, label, line)
    if is_scored:
        axis.axhline(1.0, color="black", lw=1.0, linestyle=(0, (8, 4)), label="specialist")
    counts = next(iter(lines.values()))[0].tolist()
    axis.set_xscale("symlog", linthresh=1, linscale=0.3)
    axis.set_xlim(-0.1, 1.15 * counts[-1])
    axis.set_xticks(counts, [f"{n:g}" for n in counts])
    axis.minorticks_off()
    axis.set_xlabel("episodes in the new environment")
    axis.set_ylabel("IQM of scores" if is_scored else "IQM of returns")
    finish(figure, axis)
    return figure


def plot_first_episode(lines: Mapping[str, Line]) -> Figure:
    """Draw the return so far against the steps of the first episode, before any adaptation, one line a label.

    :param lines: steps, and mean returns up to them.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    for i, (label, line) in enumerate(lines.items()):
        _draw(axis, i, label, line, every=8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("step of the first episode")
    axis.set_ylabel("mean return so far")
    finish(figure, axis)
    return figure


def plot_beliefs(space: ContextSpace, true: Vector, context: Vector, low: Vector, high: Vector) -> Figure:
    """Draw what an agent takes each feature to be over the steps of an episode, one panel a feature.

    :param true: the true context, shape ``(d,)``.
    :param context: the context acted on at each step, shape ``(T, d)``.
    :param low: lower end of its 95 % interval, shape ``(T, d)``.
    :param high: upper end, shape ``(T, d)``.
    """
    n, columns = len(space), min(len(space), 2)
    figure = Figure(figsize=(1.0 + 4.2 * columns, 0.8 + 2.4 * -(-n // columns)), layout="constrained")
    axes = list(figure.subplots(-(-n // columns), columns, sharex=True, squeeze=False).flat)
    for axis in axes[n:]:
        axis.remove()
    steps = np.arange(1, len(context) + 1)
    for i, (axis, feature) in enumerate(zip(axes, space.features, strict=False)):
        for start, end in feature.train:
            axis.axhspan(
                start, end, color="0.93", lw=0, label="training range" if start == feature.train[0][0] else "_"
            )
        axis.fill_between(steps, low[:, i], high[:, i], color=COLORS[0], alpha=0.25, lw=0, label="95 % interval")
        axis.plot(steps, context[:, i], color=COLORS[0], lw=1.6, label="acted on")
        axis.axhline(true[i], color=COLORS[1], linestyle="--", lw=1.6, label="true")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_ylabel(axis_label(feature.name, feature.unit))
        ends = [feature.bounds[0][0], feature.bounds[-1][1]]
        margin = 0.05 * (ends[1] - ends[0])
        axis.set_ylim(ends[0] - margin, ends[1] + margin)
        if i + columns >= n:
            axis.set_xlabel("step of the episode")
            axis.tick_params(labelbottom=True)
    finish(figure, *axes[:n])
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    write_bytes(path, buffer.getvalue())


def _panels(panels: Mapping[str, Mapping[str, Line]], xlabels: Sequence[str], ylabel: str, every: int = 1) -> Figure:
    """Draw one panel per entry, one line an agent."""
    figure, axes = grid(len(panels), 3.2, 3.0)
    for axis, agents, xlabel in zip(axes, panels.values(), xlabels, strict=True):
        for i, (agent, line) in enumerate(agents.items()):
            _draw(axis, i, agent, line, every)
        axis.set_xlabel(xlabel)
    label_rows(axes, ylabel)
    finish(figure, *axes)
    return figure


def grid(n: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Return a figure with ``n`` panels in rows of at most three, of a size in inches each, that share their y axis."""
    columns = 2 if n == 4 else min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(0.9 + width * columns, 0.8 + height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def label_rows(axes: Sequence[Any], label: str) -> None:
    """Label the y axis of the first panel of each row."""
    for axis in axes:
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(label)


def _draw(axis: Any, i: int, label: str, line: Line, every: int = 1, pieces: Sequence[Interval] | None = None) -> None:
    """Draw line ``i`` with its band, in pieces where the abscissae have gaps."""
    x, (value, low, high) = line
    order = np.argsort(x)
    color, dashes = COLORS[i % len(COLORS)], _DASHES[i % len(_DASHES)]
    for start, end in pieces or [(-np.inf, np.inf)]:
        part = order[(start <= x[order]) & (x[order] <= end)]
        marks: dict[str, Any] = dict(marker=_MARKERS[i % len(_MARKERS)], markersize=4)
        if every > 1:
            marks["markevery"] = (2 * i, every)  # not all at the same abscissae
        axis.plot(x[part], value[part], color=color, linestyle=dashes, lw=1.6, label=label, **marks)
        axis.fill_between(x[part], low[part], high[part], color=color, alpha=0.2, lw=0)
        label = "_"


def finish(figure: Figure, *axes: Any) -> None:
    """Put one legend above all panels, and a light grid into each."""
    for axis in axes:
        axis.grid(color="0.85", lw=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    widest = 0.6 + 0.062 * max(map(len, labels))  # inches of a label and its line
    columns = max(1, min(len(labels), 3, int(figure.get_figwidth() / widest)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def axis_label(name: str, unit: str) -> str:
    """Return the label of a feature's axis: its name, and its unit if it has one."""
    return name if unit == "1" else f"{name} [{unit}]"
