"""Transfer: weights generated for a pendulum never seen are a better start than any other initialisation.

Networks learn the angular acceleration of pendulums of various mass and length, and are then fine-tuned on sixteen
samples of one lighter, heavier, shorter or longer than all those. Run: python scripts/examples/transfer.py
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from shared import curves, estimates, fit, show
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hyperrl import HyperNetwork
from hyperrl.evaluation.statistics import Estimate
from hyperrl.hypernet import mlp

WIDTHS, SAMPLES, TASKS, RATES = (4, 64, 64, 1), 16, 20, (1e-3, 3e-3, 1e-2)
STEPS = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100)  # at which the error is measured


def pendulums(n: int, *, new: bool = False) -> Tensor:
    """Draw mass [kg] and length [m], in the training range or outside it: (n, 2)."""
    shorter, longer = 0.35 + 0.15 * torch.rand(n, 2), 1.5 + 0.5 * torch.rand(n, 2)
    return torch.where(torch.rand(n, 2) < 0.5, shorter, longer) if new else 0.5 + torch.rand(n, 2)


def sample(context: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Draw states with a torque, and their accelerations in 10 rad/s²: (n, 2) -> (n, k, 4), (n, k, 1)."""
    angle, speed, torque = (torch.rand(3, len(context), k, 1) * 2 - 1) * torch.tensor([math.pi, 4, 4]).view(3, 1, 1, 1)
    mass, length = context.T[..., None, None]  # (n, 1, 1) each
    acceleration = -9.81 / length * angle.sin() + (torque - 0.3 * speed) / (mass * length**2)
    return torch.cat([angle.sin(), angle.cos(), speed / 4, torque / 4], dim=2), acceleration / 10


def fine_tune(weights: dict[str, Tensor], x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, lr: float) -> Tensor:
    """Take Adam steps, each task having weights of its own; return log₁₀ of test errors in rad/s²: (steps, tasks)."""
    target = mlp(WIDTHS, nn.Tanh)
    weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    optimiser = torch.optim.Adam(weights.values(), lr)
    predict = vmap(lambda w, x: functional_call(target, w, (x,)))
    errors = []
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            with torch.no_grad():
                errors.append((predict(weights, test_x) - test_y).square().mean((1, 2)))
        optimiser.zero_grad()
        (predict(weights, x) - y).square().mean((1, 2)).sum().backward()
        optimiser.step()
    return 1 + torch.stack(errors).log10() / 2


def run(seed: int, steps: int) -> dict[str, dict[str, float]]:
    """Pre-train, fine-tune, and return log₁₀ of test errors by step, averaged over new tasks."""
    torch.manual_seed(seed)
    hyper, blind = HyperNetwork(2, mlp(WIDTHS, nn.Tanh)), mlp(WIDTHS, nn.Tanh)

    def error(informed: bool) -> Tensor:
        context = pendulums(32)
        x, y = sample(context, 20)
        rows = 2 * (context - 1).repeat_interleave(20, dim=0), x.flatten(0, 1)  # (640, 2) in ±1, (640, 4)
        return ((hyper(*rows) if informed else blind(rows[1])) - y.flatten(0, 1)).square().mean()

    fit(hyper.parameters(), lambda: error(True), steps, lr=5e-3)
    fit(blind.parameters(), lambda: error(False), steps, lr=5e-3)
    context = pendulums(2 * TASKS, new=True)
    data = *sample(context, SAMPLES), *sample(context, 200)
    starts = {
        "generated for the task": hyper.head.weights(hyper.encoder(2 * (context - 1))),
        "pre-trained, one for all tasks": stack_module_state([blind] * len(context))[0],
        "random": stack_module_state([mlp(WIDTHS, nn.Tanh) for _ in context])[0],
    }
    result = {}
    for method, weights in starts.items():
        errors = torch.stack([fine_tune(weights, *data, lr) for lr in RATES])  # (rates, steps, tasks)
        best = errors[:, :, :TASKS].mean((1, 2)).argmin()  # the rate is chosen on one half of the tasks
        result[method] = {str(s): e.item() for s, e in zip(STEPS, errors[best, :, TASKS:].mean(1), strict=True)}
    return result


def main(seeds: int = 5, steps: int = 800, out: Path | None = Path("runs/examples/transfer.png")) -> dict:
    """Compare three initial weights at equal steps of fine-tuning, each at its best learning rate."""
    logs = estimates([run(seed, steps) for seed in range(seeds)])
    result = {m: {s: Estimate(*(10**v for v in e)) for s, e in figures.items()} for m, figures in logs.items()}
    table = {m: {f"{s} steps": figures[str(s)] for s in (0, 10, 100)} for m, figures in result.items()}
    show(f"RMS test error [rad/s²] after fine-tuning, geometric mean, seeds: {seeds}, 95 % t-interval", table)
    lines = {m: np.array(list(figures.values())) for m, figures in result.items()}
    axis, save = curves(f"steps of fine-tuning on {SAMPLES} samples", "RMS test error [rad/s²]", STEPS, lines)
    axis.set(xscale="symlog", yscale="log")
    axis.set_title("pendulums beyond the training range, by initial weights", fontsize=10)
    save(out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
