"""Regression over sinusoids y = a·sin(x + φ): a network for a task never trained on.

The hypernetwork and the concatenating MLP get (a, φ); model-agnostic meta-learning (Finn et al. 2017, second order)
gets ten samples of the task instead, and takes gradient steps on them. Run: python scripts/examples/regression.py
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from shared import curves, estimates, fit, matched_mlp, show, size
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from hyperrl import HyperNetwork
from hyperrl.hypernet import mlp

SHOTS, TASKS, INNER_STEPS, INNER_LR = 10, 25, 2, 0.03
MAML = f"MAML, {INNER_STEPS} steps on {SHOTS} samples"


def tasks(n: int, amplitude: tuple[float, float] = (0.1, 5.0)) -> tuple[Tensor, Tensor, Tensor]:
    """Draw contexts, normalised by the training range, and samples: (n, 2), (n, 30, 1), (n, 30, 1)."""
    a = torch.empty(n, 1, 1).uniform_(*amplitude)
    phase, x = torch.rand(n, 1, 1) * math.pi, torch.rand(n, 30, 1) * 10 - 5
    return torch.cat([(a - 2.55) / 2.45, phase / (math.pi / 2) - 1], dim=1)[..., 0], x, a * torch.sin(x + phase)


def adapt(net: nn.Module, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
    """Take gradient steps on each task's samples, then predict: (n, 10, 1) twice, (n, 20, 1) -> (n, 20, 1)."""
    gradient = grad(lambda weights, x, y: (functional_call(net, weights, x) - y).square().mean())

    def one_task(x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        weights: dict[str, Tensor] = dict(net.named_parameters())
        for _ in range(INNER_STEPS):
            step = gradient(weights, x, y)
            weights = {name: w - INNER_LR * step[name] for name, w in weights.items()}
        return functional_call(net, weights, query)

    return vmap(one_task)(x, y, query)


def run(seed: int, steps: int, amplitudes: np.ndarray) -> dict[str, dict[str, float]]:
    """Train the three; return mean squared errors and, by amplitude, their logarithms."""
    torch.manual_seed(seed)
    hyper, start = HyperNetwork(2, mlp([1, 40, 40, 1], nn.Tanh)), mlp([1, 40, 40, 1], nn.Tanh)
    concat = matched_mlp(3, 1, size(hyper), nn.Tanh)

    def error(method: str, n: int, *between: tuple[float, float]) -> Tensor:
        context, x, y = tasks(n, *between)
        query = x[:, SHOTS:]
        if method == MAML:
            predicted = adapt(start, x[:, :SHOTS], y[:, :SHOTS], query)
        else:
            rows = context.repeat_interleave(query.shape[1], dim=0), query.flatten(0, 1)  # (n·20, 2), (n·20, 1)
            predicted = (hyper(*rows) if method == "hypernetwork" else concat(torch.cat(rows, dim=1))).view_as(query)
        return (predicted - y[:, SHOTS:]).square().mean()

    result = {}
    for method, net, lr in (("hypernetwork", hyper, 1e-2), ("concatenated", concat, 1e-2), (MAML, start, 3e-3)):
        fit(net.parameters(), lambda method=method: error(method, TASKS), steps, lr)
        with torch.no_grad():
            inside, beyond = error(method, 1000).item(), error(method, 1000, (5, 7.5)).item()
            by_amplitude = {f"{a:.2f}": error(method, 100, (a, a)).log10().item() for a in amplitudes}
        result[method] = {"parameters": size(net), "inside": inside, "amplitude 5 to 7.5": beyond, **by_amplitude}
    return result


def main(seeds: int = 5, steps: int = 700, out: Path | None = Path("runs/examples/regression.png")) -> dict:
    """Compare the three after equal numbers of steps."""
    amplitudes = np.linspace(0.25, 7.5, 16)
    result = estimates([run(seed, steps, amplitudes) for seed in range(seeds)])
    lines = {m: 10 ** np.array([figures.pop(f"{a:.2f}") for a in amplitudes]) for m, figures in result.items()}
    show(f"Mean squared error on unseen sinusoids, seeds: {seeds}, 95 % t-interval", result, digits=4)
    axis, save = curves("amplitude a", "mean squared error", amplitudes, lines)
    axis.axvspan(0.1, 5, color="0.9", zorder=0)
    axis.text(2.5, 0.97, "training range", ha="center", va="top", transform=axis.get_xaxis_transform())
    axis.set_yscale("log")
    save(out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
