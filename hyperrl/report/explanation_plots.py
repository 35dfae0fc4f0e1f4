"""Pictures of explanations: what the context does to an agent's actions and weights."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from hyperrl.analysis.explanation import Explanation
from hyperrl.analysis.weights import WeightEffects
from hyperrl.contexts import ContextSpace
from hyperrl.report.plots import COLORS, axis_label, finish, grid, label_rows

DIRECTIONS: Final = 12
"""How many directions are drawn, those with the largest effect."""


def plot_actions(explanation: Explanation) -> Figure:
    """Draw how far each feature moves the actions, one bar a feature."""
    names = list(explanation.features)
    effects = [explanation.actions[name] for name in names]
    figure = Figure(figsize=(6.4, 1.3 + 0.36 * len(names)), layout="constrained")
    axis = figure.subplots()
    y = np.arange(len(names))
    axis.barh(y, [100 * e.mean for e in effects], 0.6, color=COLORS[0], label="two values of the training range, mean")
    largest: dict[str, Any] = dict(color=COLORS[1], marker="D", linestyle="", markersize=5)
    axis.plot([100 * e.largest for e in effects], y, label="the two that differ most", **largest)
    axis.set_yticks(y, names)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("difference of the actions [% of their range], mean over visited states")
    finish(figure, axis)
    axis.grid(visible=False, axis="y")
    return figure


def plot_responses(explanation: Explanation, space: ContextSpace) -> Figure:
    """Draw how far the actions are from those at the feature's default, along each feature; training range shaded."""
    figure, axes = grid(len(space), 3.0, 2.5)
    for axis, feature in zip(axes, space.features, strict=True):
        effect = explanation.actions[feature.name]
        for low, high in feature.train:
            axis.axvspan(low, high, color="0.9", lw=0, zorder=0)
            if low == high:
                axis.axvline(low, color="0.8", lw=6, zorder=0)
        for low, high in feature.bounds:
            part = (low <= effect.values) & (effect.values <= high)
            axis.plot(effect.values[part], 100 * effect.distance[part], color=COLORS[0], marker="o", markersize=3)
        axis.axvline(feature.default, color="black", lw=0.8, linestyle=":")
        axis.set_xlabel(axis_label(feature.name, feature.unit))
        axis.grid(color="0.85", lw=0.6)
        axis.set_axisbelow(True)
    label_rows(axes, "action's distance from\nthat at the default [%]")
    figure.suptitle("training range shaded, default dotted", fontsize=9)
    return figure


def plot_sensitivity_of_weights(weights: WeightEffects, features: tuple[str, ...]) -> Figure:
    """Draw a table of layers and features: how far half a training range moves the weights, in % of their norm."""
    numbers = np.array([layer.sensitivity for layer in weights.layers]) * 100
    names = [f"{layer.network}, layer {layer.layer}" for layer in weights.layers]
    figure = Figure(figsize=(2.6 + 1.0 * len(features), 1.5 + 0.34 * len(names)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(numbers, cmap="Blues", vmin=0, aspect="auto")
    _annotate(axis, numbers, "{:.0f}", dark=0.6 * max(float(numbers.max()), 1e-9))
    axis.set_xticks(range(len(features)), features, rotation=20, ha="right")
    axis.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="change for half a training\nrange [% of the norm]")
    return figure


def plot_map(weights: WeightEffects, space: ContextSpace) -> Figure:
    """Draw the weights of the network that acts in two dimensions, one panel and its colors a feature.

    Contexts of the training range have a black outline.
    """
    figure, axes = grid(len(space), 3.4, 2.9)
    inside = space.in_training_range(weights.map.contexts)
    x, y = weights.map.points.T
    for axis, feature, values in zip(axes, space.features, weights.map.contexts.T, strict=True):
        ends: dict[str, Any] = dict(cmap="viridis", vmin=feature.bounds[0][0], vmax=feature.bounds[-1][1])
        axis.scatter(x[~inside], y[~inside], c=values[~inside], s=10, lw=0, **ends)
        dots = axis.scatter(x[inside], y[inside], c=values[inside], s=18, edgecolor="black", lw=0.6, **ends)
        figure.colorbar(dots, ax=axis, label=axis_label(feature.name, feature.unit))
        axis.set_xlabel(f"component 1 ({weights.map.explained[0]:.0%})")
    label_rows(axes, f"component 2 ({weights.map.explained[1]:.0%})")
    figure.suptitle("generated weights of the network that acts; training range outlined", fontsize=9)
    return figure


def plot_directions(weights: WeightEffects, features: tuple[str, ...]) -> Figure:
    """Draw the directions of a low-rank head: what holding them does to the actions, and what they follow."""
    shown = weights.directions[:DIRECTIONS]
    names = [f"layer {d.layer}, direction {d.direction}" for d in shown]
    figure = Figure(figsize=(4.9 + 0.8 * len(features), 1.6 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 0.8 * len(features)])
    y = np.arange(len(names))
    left.barh(y, [100 * d.effect for d in shown], 0.7, color=COLORS[0])
    left.set_yticks(y, names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("change of the actions when it\nis held at its mean [% of range]")
    left.grid(color="0.85", lw=0.6, axis="x")
    left.set_axisbelow(True)
    numbers = np.array([d.correlation for d in shown])
    image = right.imshow(numbers, cmap="RdBu_r", norm=TwoSlopeNorm(0, -1, 1), aspect="auto")
    _annotate(right, numbers, "{:+.1f}", dark=0.6)
    right.set_xticks(range(len(features)), features, rotation=20, ha="right")
    right.set_yticks([])
    figure.colorbar(image, label="correlation with the feature")
    return figure


def plot_policies(explanation: Explanation, space: ContextSpace) -> Figure:
    """Draw how differently the agent acts in any two contexts, group by group, and the contexts below."""
    order = [i for group in explanation.groups for i in group.contexts]
    n, d = len(order), len(space)
    figure = Figure(figsize=(6.0, 5.2 + 0.24 * d), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[4.6, 0.24 * d], sharex=True)
    image = top.imshow(100 * explanation.distances[np.ix_(order, order)], cmap="magma", vmin=0, aspect="auto")
    figure.colorbar(image, ax=top, label="difference of the actions [% of their range]")
    low, high = space.train_range
    shown = (explanation.contexts[order] - low) / np.where(high > low, high - low, 1.0)
    strip = bottom.imshow(shown.T, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(strip, ax=bottom, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"], fontsize=8)
    bottom.set_yticks(range(d), space.names, fontsize=8)
    edges = np.cumsum([len(group.contexts) for group in explanation.groups])[:-1] - 0.5
    for edge in edges:
        top.axvline(edge, color="white", lw=1.0)
        top.axhline(edge, color="white", lw=1.0)
        bottom.axvline(edge, color="white", lw=1.0)
    top.set_xlim(-0.5, n - 0.5)
    top.set_ylabel("contexts, in groups of one policy each")
    bottom.set_xlabel("the same contexts, and their features")
    top.set_xticks([])
    top.set_yticks([])
    return figure


def plot_told(explanation: Explanation, space: ContextSpace) -> Figure:
    """Draw the mean return where one feature is told wrongly, one panel a feature."""
    figure, axes = grid(len(space), 2.8, 2.3)
    for axis, feature in zip(axes, space.features, strict=True):
        told = explanation.told[feature.name]
        axis.plot(told.offsets, told.returns, color=COLORS[0], marker="o", markersize=4)
        axis.axvline(0, color="black", lw=0.8, linestyle=":")
        axis.set_title(feature.name, fontsize=10)
        axis.set_xlabel("choices too far" if feature.is_choice else "too high by\n[half training ranges]")
        if feature.is_choice:
            axis.set_xticks(told.offsets)
        axis.grid(color="0.85", lw=0.6)
        axis.set_axisbelow(True)
    label_rows(axes, "mean return")
    return figure


def _annotate(axis: Any, numbers: Any, form: str, dark: float) -> None:
    """Write the numbers into the cells of an image, white where the cell is dark."""
    for (i, j), number in np.ndenumerate(numbers):
        color = "white" if abs(number) > dark else "black"
        axis.text(j, i, form.format(number), ha="center", va="center", fontsize=8, color=color)
