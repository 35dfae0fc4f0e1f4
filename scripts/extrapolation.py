"""Measure what an embedding's continuation outside the training range is worth, on the same trained agents."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from tyro.conf import Positional

import hyperrl
from hyperrl.hypernet import SecantExtrapolation
from hyperrl.report.markdown import markdown_table

WAYS = ("encoder", "clipped", "continued")


class Plain(nn.Sequential):
    """The layers of an encoder alone, at the context itself or clipped to the training range."""

    def __init__(self, extended: SecantExtrapolation, is_clipped: bool) -> None:
        super().__init__(*extended)
        self.range = (extended.low, extended.high) if is_clipped else None

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input if self.range is None else input.clamp(*self.range))


def main(runs: Positional[tuple[Path, ...]], contexts: int = 20, episodes: int = 10) -> None:
    """Print a table of mean returns outside the training range, one row a family.

    Args:
        runs: Run folders of hypernetwork agents, whose encoder is a perceptron.
        contexts: Number of contexts.
        episodes: Number of episodes per context.
    """
    torch.set_num_threads(1)
    returns: dict[str, list[list[float]]] = defaultdict(list)
    for path in runs:
        run = hyperrl.Run.open(path)
        row = []
        for way in WAYS:
            model = run.model("cpu")
            for module in [*model.policy.modules()]:
                for name, child in [*module.named_children()]:
                    if isinstance(child, SecantExtrapolation) and way != "continued":
                        setattr(module, name, Plain(child, way == "clipped"))
            report = hyperrl.evaluate(model, run.family, ("extrapolation",), contexts, episodes)
            row.append(report.splits["extrapolation"].mean)
        returns[run.family.name].append(row)
        print(path.name, *(f"{value:.1f}" for value in row), flush=True)
    rows = []
    for family, values in returns.items():
        mean, gain = np.mean(values, axis=0), [row[2] - row[0] for row in values]
        rows.append((family, str(len(values)), *(f"{x:.1f}" for x in mean), " ".join(f"{x:+.1f}" for x in gain)))
    print(markdown_table(("family", "seeds", *WAYS, "continued − encoder, by seed"), rows))


if __name__ == "__main__":
    tyro.cli(main)
