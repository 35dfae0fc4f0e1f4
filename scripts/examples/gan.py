"""Generative adversarial network whose generator's weights come from the class, on a mixture in the plane.

Twelve narrow Gaussians on a circle, three to each of four classes. In the comparison the class is concatenated to
the noise, parameters matched, the discriminator the same. Run: python scripts/examples/gan.py
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from shared import STYLES, draw, estimates, matched_mlp, save, show, size
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from hyperrl import HyperNetwork
from hyperrl.hypernet import TaskEmbedding, mlp

CLASSES, CENTRES, STD, BATCH, NOISE, CHECKS = 4, 3, 0.1, 128, 4, 8
PLACE = torch.arange(CLASSES).unsqueeze(1) + CLASSES * torch.arange(CENTRES)  # classes take turns on the circle
MODES = 2 * torch.stack([(PLACE * math.pi / 6).cos(), (PLACE * math.pi / 6).sin()], dim=2)  # (class, centre, 2)


def check(generate: nn.Module) -> tuple[Tensor, float, float]:
    """Return 500 samples a class, the share of modes covered, and of samples within three deviations of one."""
    label = torch.arange(CLASSES).repeat_interleave(500)
    with torch.no_grad():
        x = generate(label.unsqueeze(1), torch.randn(len(label), NOISE))
    distance, mode = (x.unsqueeze(1) - MODES[label]).norm(dim=2).min(dim=1)  # to the modes of its own class
    good = distance < 3 * STD
    hits = torch.bincount((label * CENTRES + mode)[good], minlength=CLASSES * CENTRES)
    return x.view(CLASSES, 500, 2), (hits >= 20).double().mean().item(), good.double().mean().item()


def train(generate: nn.Module, steps: int, blur: float) -> tuple[Tensor, list[tuple[float, float]]]:
    """Play the non-saturating game, both sides seeing samples blurred by noise that fades; return samples, checks."""
    judge = mlp([2 + CLASSES, 128, 128, 1], lambda: nn.LeakyReLU(0.2))
    optimisers = [torch.optim.Adam(net.parameters(), 4e-3, betas=(0.5, 0.99)) for net in (generate, judge)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps) for optimiser in optimisers]
    checks = []
    for step in range(steps):
        label = torch.randint(CLASSES, (BATCH,))
        real = MODES[label, torch.randint(CENTRES, (BATCH,))] + STD * torch.randn(BATCH, 2)
        fake = generate(label.unsqueeze(1), torch.randn(BATCH, NOISE))
        noise, condition = blur * (1 - step / steps) * torch.randn(2, BATCH, 2), one_hot(label, CLASSES)
        seen = torch.cat([real + noise[0], fake.detach() + noise[1]])  # (2B, 2)
        said_real, said_fake = judge(torch.cat([seen, condition.repeat(2, 1)], dim=1)).chunk(2)
        optimisers[1].zero_grad()
        (softplus(-said_real) + softplus(said_fake)).mean().backward()
        optimisers[1].step()
        optimisers[0].zero_grad()
        softplus(-judge(torch.cat([fake + noise[1], condition], dim=1))).mean().backward()
        optimisers[0].step()
        for schedule in schedules:
            schedule.step()
        if (step + 1) % (steps // CHECKS) == 0:
            samples, *figures = check(generate)
            checks.append(tuple(figures))
    return samples, checks


class Concatenated(nn.Module):
    """The generator of the comparison: (B, 1), (B, 4) -> (B, 2)."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.net = matched_mlp(NOISE + CLASSES, 2, parameters, nn.ReLU)

    def forward(self, label: Tensor, noise: Tensor) -> Tensor:
        return self.net(torch.cat([noise, one_hot(label[:, 0], CLASSES)], dim=1))


def run(seed: int, steps: int, blur: float, samples: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Train both; return figures at the end, and the share of good samples at each check."""
    torch.manual_seed(seed)
    hyper = HyperNetwork(1, mlp([NOISE, 48, 48, 2], nn.ReLU), encoder=TaskEmbedding(CLASSES, 8))
    result = {}
    for method, generator in {"hypernetwork": hyper, "concatenated": Concatenated(size(hyper))}.items():
        drawn, checks = train(generator, steps, blur)
        samples.setdefault(method, drawn)
        coverage, good = zip(*checks, strict=True)
        result[method] = {"parameters": size(generator), "modes covered": coverage[-1], "good samples": good[-1]}
        result[method] |= {"least covered, second half": min(coverage[CHECKS // 2 :])}
        result[method] |= {f"check {i}": share for i, share in enumerate(good)}
    return result


def main(
    seeds: int = 5, steps: int = 1000, blur: float = 1.0, out: Path | None = Path("runs/examples/gan.png")
) -> dict:
    """Compare the two generators.

    :param blur: standard deviation, at the start of training, of the noise on all that the discriminator sees.
    """
    samples: dict[str, Tensor] = {}
    result = estimates([run(seed, steps, blur, samples) for seed in range(seeds)])
    lines = {m: np.array([figures.pop(f"check {i}") for i in range(CHECKS)]) for m, figures in result.items()}
    show(f"Samples of a mixture of 12 Gaussians in 4 classes, seeds: {seeds}, 95 % t-interval", result)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    *maps, axis = figure.subplots(1, 3)
    for panel, (method, points) in zip(maps, samples.items(), strict=True):
        for label, (x, style) in enumerate(zip(points, STYLES, strict=True)):
            panel.plot(*x[:200].T, ls="", **style, markersize=2.5, label=f"class {label}")
        for centre in MODES.flatten(0, 1).tolist():
            panel.add_patch(Circle(centre, 3 * STD, fill=False, lw=0.8, zorder=3))
        panel.set(title=method, xlabel="x", ylabel="y", xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), aspect="equal")
    draw(axis, np.arange(1, CHECKS + 1) * (steps // CHECKS), lines)
    axis.set(xlabel="step", ylabel="share of samples within 3σ of a mode", ylim=(0, 1))
    axis.legend(frameon=False)
    figure.suptitle(
        "samples by class (a colour and marker each), circles 3σ around the modes of the mixture", fontsize=10
    )
    save(figure, out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
