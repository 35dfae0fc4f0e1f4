"""Digits in any orientation: a classifier whose weights come from the angle of rotation.

Trained on eight angles, tested on the eight between. An image turned by α depends on cos α and sin α, so weights
linear in them (no encoder) fit best; the default encoder shows what that is worth.
Run: python scripts/examples/classification.py
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from shared import curves, estimates, fit, load_digits, matched_mlp, rotate, show, size
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hyperrl import HyperNetwork
from hyperrl.hypernet import mlp

ANGLES, LEARNING_RATE = 8, 3e-3


def encode(angle: Tensor) -> Tensor:
    """Give the context of angles: (B,) -> (B, 2)."""
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def run(seed: int, steps: int, angles: np.ndarray) -> dict[str, dict[str, float]]:
    """Train the four; return their accuracy on test images at trained angles, between them, and at each of angles."""
    torch.manual_seed(seed)
    (images, digits), (test_images, test_digits) = load_digits()
    hyper = HyperNetwork(2, mlp([64, 48, 48, 10], nn.ReLU), head="full", encoder=nn.Identity())
    deep = HyperNetwork(2, mlp([64, 48, 48, 10], nn.ReLU), head="full", embedding=(64, 2))
    concat = matched_mlp(66, 10, size(hyper), nn.ReLU)
    unaware = matched_mlp(64, 10, size(hyper), nn.ReLU)
    networks = {
        "hypernetwork, linear": (hyper, hyper),
        "hypernetwork, tanh encoder": (deep, deep),
        "concatenated": (concat, lambda context, x: concat(torch.cat([x, context], dim=1))),
        "does not know the angle": (unaware, lambda context, x: unaware(x)),
    }
    result = {}
    for method, (network, predict) in networks.items():

        def loss(predict=predict) -> Tensor:
            rows = torch.randint(len(images), (256,))
            angle = torch.randint(ANGLES, (256,)) * (2 * math.pi / ANGLES)
            return cross_entropy(predict(encode(angle), rotate(images[rows], angle)), digits[rows])

        def accuracy(degrees: float, predict=predict) -> float:
            angle = torch.full((len(test_images),), math.radians(degrees))
            predicted = predict(encode(angle), rotate(test_images, angle)).argmax(1)
            return (predicted == test_digits).double().mean().item()

        fit(network.parameters(), loss, steps, LEARNING_RATE)
        with torch.no_grad():
            trained, between = (np.arange(ANGLES) * 360 / ANGLES + offset for offset in (0, 180 / ANGLES))
            result[method] = {"parameters": size(network), "trained angles": np.mean([accuracy(a) for a in trained])}
            result[method]["unseen angles"] = np.mean([accuracy(a) for a in between])
            result[method] |= {f"{a:.2f}": accuracy(a) for a in angles}
    return result


def main(seeds: int = 5, steps: int = 1000, out: Path | None = Path("runs/examples/classification.png")) -> dict:
    """Compare the four at equal numbers of steps, parameters matched."""
    angles = np.arange(0, 181, 7.5)
    result = estimates([run(seed, steps, angles) for seed in range(seeds)])
    lines = {m: np.array([figures.pop(f"{a:.2f}") for a in angles]) for m, figures in result.items()}
    show(f"Accuracy on unseen images of digits, seeds: {seeds}, 95 % t-interval", result)
    axis, save = curves("angle of rotation [°]", "accuracy on unseen images", angles, lines)
    axis.set_xticks(np.arange(0, 181, 360 / ANGLES))
    axis.grid(axis="x", color="0.5", ls=":")
    axis.set_title("trained at the dotted angles only", fontsize=10)
    save(out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
