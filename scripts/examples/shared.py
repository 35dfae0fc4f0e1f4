"""What the examples share: training, parameter counts, intervals over seeds, the table."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.stats import t
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from hyperrl.evaluation.statistics import Estimate
from hyperrl.hypernet import mlp

# Told apart by marker and by lightness too, so that pictures can be read in grey.
COLOURS = ("#08306b", "#e6550d", "#5aae61", "#c994c7", "#969696")
STYLES: list[dict[str, Any]] = [
    dict(color=colour, marker=marker) for colour, marker in zip(COLOURS, "osD^v", strict=True)
]


def size(*networks: nn.Module) -> int:
    """Count parameters."""
    return sum(p.numel() for network in networks for p in network.parameters())


def matched_mlp(n_in: int, n_out: int, parameters: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Make the narrowest MLP with two hidden layers of equal width and at least so many parameters."""
    with torch.device("meta"):
        width = next(w for w in itertools.count(1) if size(mlp([n_in, w, w, n_out], activation)) >= parameters)
    return mlp([n_in, width, width, n_out], activation)


def descent(parameters: Iterable[Tensor], steps: int, lr: float, **adam: Any) -> Callable[[Tensor], None]:
    """Return what takes a step of Adam down a given loss, the learning rate falling to zero along a cosine."""
    optimiser = torch.optim.Adam(parameters, lr, **adam)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def step(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    return step


def fit(parameters: Iterable[Tensor], loss: Callable[[], Tensor], steps: int, lr: float) -> None:
    """Minimise a loss that is drawn anew for each step of :func:`descent`."""
    step = descent(parameters, steps, lr)
    for _ in range(steps):
        step(loss())


def interval(values: Sequence[float]) -> Estimate:
    """Return the mean over seeds with its 95 % t-interval; of one seed there is none."""
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
    return Estimate(mean, mean - half, mean + half)


def estimates(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """Turn one ``{method: {figure: value}}`` a seed into one of intervals."""
    return {m: {f: interval([run[m][f] for run in runs]) for f in figures} for m, figures in runs[0].items()}


def show(title: str, result: Mapping[str, Mapping[str, Estimate]], digits: int = 3) -> None:
    """Print a row for each method: its figures with their intervals, those without spread alone."""
    table = Table("", *next(iter(result.values())), title=escape(title), title_justify="left")
    for method, figures in result.items():
        table.add_row(method, *(_cell(estimate, digits) for estimate in figures.values()))
    Console(width=max(Console().width, 120)).print(table)


def _cell(estimate: Estimate, digits: int) -> str:
    value, low, high = estimate
    if value == low == high or (np.isnan(low) and value.is_integer()):
        return f"{value:,.{digits}f}".rstrip("0").rstrip(".")
    interval = f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else ""
    return f"{value:.{digits}f}{interval}"


def curves(x_label: str, y_label: str, x: ArrayLike, lines: Mapping[str, NDArray]) -> tuple[Axes, Callable]:
    """Make a picture of :func:`draw`'s; return its axes, and how to save it."""
    axis, save = picture(x_label, y_label)
    draw(axis, x, lines)
    return axis, save


def picture(x_label: str, y_label: str) -> tuple[Axes, Callable]:
    """Make a picture without content; return its axes, and how to save it, with a legend below."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=x_label, ylabel=y_label)

    def save_with_legend(out: Path | None) -> None:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        save(figure, out)

    return axis, save_with_legend


def draw(axis: Axes, x: ArrayLike, lines: Mapping[str, NDArray]) -> None:
    """Draw means with their intervals, each line an array (points, 3) of means, lower and upper bounds."""
    for (method, line), style in zip(lines.items(), STYLES, strict=False):
        axis.plot(x, line[:, 0], **style, markersize=4, label=method)
        axis.fill_between(x, line[:, 1], line[:, 2], color=style["color"], alpha=0.2, lw=0)


def save(figure: Figure, out: Path | None) -> None:
    """Write the picture, unless ``out`` is None."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)


def load_digits(test: int = 500) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Split scikit-learn's digits at random: images (N, 1, 8, 8) in [0, 1] and labels, for training and test."""
    digits: Any = sklearn.datasets.load_digits()
    order = torch.randperm(len(digits.target))
    images = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1) / 16
    labels = torch.tensor(digits.target)[order]
    return (images[test:], labels[test:]), (images[:test], labels[:test])


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate each image by its angle in radians: (B, 1, 8, 8), (B,) -> (B, 64)."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).flatten(1)
