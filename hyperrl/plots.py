"""Pictures of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hyperrl.contexts import ContextSpace
from hyperrl.evaluation import Plane


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
    figure = Figure(figsize=(1.2 + 3.2 * len(means), 3.8), layout="constrained")
    axes = figure.subplots(1, len(means), sharex=True, sharey=True, squeeze=False)[0]
    fx, fy = (space.features[space.index(name)] for name in first.features)
    colors = ScalarMappable(Normalize(low, high), "viridis")
    for axis, (agent, returns) in zip(axes, means.items(), strict=True):
        axis.pcolormesh(first.x, first.y, returns, norm=colors.norm, cmap=colors.cmap, shading="nearest")
        for i, (x0, x1) in enumerate(fx.train):
            for y0, y1 in fy.train:
                label = "training range" if i == 0 else None
                axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="red", lw=1.5, label=label))
        seeds = len(planes[agent])
        axis.set_title(f"{agent} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=10)
        axis.set_xlabel(_label(fx.name, fx.unit))
    axes[0].set_ylabel(_label(fy.name, fy.unit))
    figure.colorbar(colors, ax=axes, label="mean return", shrink=0.9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", frameon=False, fontsize=9)
    figure.suptitle(f"{family}: return over the context plane, other features at their default", fontsize=11)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, dpi=150, format="png")


def _label(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name} [{unit}]"
