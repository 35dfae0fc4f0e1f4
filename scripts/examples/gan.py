"""Generative adversarial network whose generator's weights come from the class, on a mixture in the plane.

Twelve narrow Gaussians on a circle, three to each of four classes. In the comparison the class is concatenated to
the noise, parameters matched, the discriminator the same. Run: python scripts/examples/gan.py
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from shared import STYLES, descent, estimates, matched_mlp, save, show, size
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from hyperrl import HyperNetwork
from hyperrl.hypernet import TaskEmbedding, mlp

CLASSES, CENTRES, STD, BATCH, NOISE, DRAWN = 4, 3, 0.1, 128, 4, 500
PLACE = torch.arange(CLASSES).unsqueeze(1) + CLASSES * torch.arange(CENTRES)  # classes take turns on the circle
MODES = 2 * torch.stack([(PLACE * math.pi / 6).cos(), (PLACE * math.pi / 6).sin()], dim=2)  # (class, centre, 2)
Generate = Callable[[Tensor, Tensor], Tensor]  # labels (B,), noise (B, 4) -> samples (B, 2)


def play(network: nn.Module, generate: Generate, steps: int, blur: float) -> None:
    """Train by the non-saturating game, both sides seeing samples blurred by noise that fades."""
    judge = mlp([2 + CLASSES, 128, 128, 1], lambda: nn.LeakyReLU(0.2))
    better, stricter = (descent(net.parameters(), steps, 4e-3, betas=(0.5, 0.99)) for net in (network, judge))
    for step in range(steps):
        label = torch.randint(CLASSES, (BATCH,))
        real = MODES[label, torch.randint(CENTRES, (BATCH,))] + STD * torch.randn(BATCH, 2)
        fake = generate(label, torch.randn(BATCH, NOISE))
        noise, condition = blur * (1 - step / steps) * torch.randn(2, BATCH, 2), one_hot(label, CLASSES)
        said_real = judge(torch.cat([real + noise[0], condition], dim=1))
        said_fake = judge(torch.cat([fake.detach() + noise[1], condition], dim=1))
        stricter((softplus(-said_real) + softplus(said_fake)).mean())
        better(softplus(-judge(torch.cat([fake + noise[1], condition], dim=1))).mean())


def run(seed: int, steps: int, blur: float, samples: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Train both; return the shares of modes covered, and of samples within three deviations of a mode."""
    torch.manual_seed(seed)
    hyper = HyperNetwork(1, mlp([NOISE, 48, 48, 2], nn.ReLU), encoder=TaskEmbedding(CLASSES, 8))
    concat = matched_mlp(NOISE + CLASSES, 2, size(hyper), nn.ReLU)
    generators: dict[str, tuple[nn.Module, Generate]] = {
        "hypernetwork": (hyper, lambda label, noise: hyper(label.unsqueeze(1), noise)),
        "concatenated": (concat, lambda label, noise: concat(torch.cat([noise, one_hot(label, CLASSES)], dim=1))),
    }
    result = {}
    for method, (network, generate) in generators.items():
        play(network, generate, steps, blur)
        label = torch.arange(CLASSES).repeat_interleave(DRAWN)
        with torch.no_grad():
            x = generate(label, torch.randn(len(label), NOISE))
        samples.setdefault(method, x.view(CLASSES, DRAWN, 2))
        distance, mode = (x.unsqueeze(1) - MODES[label]).norm(dim=2).min(dim=1)  # to the modes of its own class
        good = distance < 3 * STD
        covered = torch.bincount((label * CENTRES + mode)[good], minlength=CLASSES * CENTRES) >= 20
        shares = {"modes covered": covered.double().mean().item(), "good samples": good.double().mean().item()}
        result[method] = {"parameters": size(network)} | shares
    return result


def main(
    seeds: int = 5, steps: int = 1000, blur: float = 1.0, out: Path | None = Path("runs/examples/gan.png")
) -> dict:
    """Compare the two generators.

    :param blur: standard deviation, at the start of training, of the noise on all that the discriminator sees.
    """
    samples: dict[str, Tensor] = {}
    result = estimates([run(seed, steps, blur, samples) for seed in range(seeds)])
    show(f"Samples of a mixture of 12 Gaussians in 4 classes, seeds: {seeds}, 95 % t-interval", result)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    figure.suptitle("samples by class, circles 3σ around the modes of the mixture", fontsize=10)
    for panel, (method, points) in zip(figure.subplots(1, 2), samples.items(), strict=True):
        for x, style in zip(points, STYLES, strict=False):
            panel.plot(*x[:200].T, ls="", **style, markersize=2.5)
        for centre in MODES.flatten(0, 1).tolist():
            panel.add_patch(Circle(centre, 3 * STD, fill=False, lw=0.8, zorder=3))
        panel.set(title=method, xlabel="x", ylabel="y", xlim=(-2.9, 2.9), ylim=(-2.9, 2.9), aspect="equal")
    save(figure, out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
