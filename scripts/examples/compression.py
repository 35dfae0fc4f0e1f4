"""Compression: one chunked generator in place of twenty networks.

Twenty classifiers of digits, one an orientation, each with fifty training images of its own. The generator gets the
angle, or only the number of the task. Run: python scripts/examples/compression.py
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro
from shared import STYLES, estimates, fit, load_digits, picture, rotate, show
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.nn.functional import cross_entropy

from hyperrl import HyperNetwork
from hyperrl.hypernet import TaskEmbedding, mlp
from hyperrl.hypernet.targets import apply

TASKS, BATCH = 20, 32
ANGLES = torch.arange(TASKS) * (2 * math.pi / TASKS)
HARMONICS = torch.stack([ANGLES.cos(), ANGLES.sin(), (2 * ANGLES).cos(), (2 * ANGLES).sin()], dim=1)  # (TASKS, 4)
NUMBERS = torch.arange(TASKS).unsqueeze(1).float()
Method = tuple[list[Tensor], Callable[[Tensor, Tensor], Tensor]]  # parameters, and task (B,), x (B, 64) -> (B, 10)


def generated(contexts: Tensor, encoder: nn.Module) -> Method:
    """Make one generator for all tasks."""
    target = mlp([64, 64, 10], nn.ReLU)
    chunked: Any = dict(head="chunked", init="hyperfan_in", base=False, sample=contexts)
    hyper = HyperNetwork(contexts.shape[1], target, encoder=encoder, **chunked)
    return list(hyper.parameters()), lambda task, x: hyper(contexts[task], x)


def separate(width: int) -> Method:
    """Make a network of its own for each task."""
    networks = [mlp([64, width, 10], nn.ReLU) for _ in range(TASKS)]
    weights, _ = stack_module_state(networks)
    return list(weights.values()), lambda task, x: apply(networks[0], weights, task, x)


def run(seed: int, steps: int, n_images: int) -> dict[str, dict[str, float]]:
    """Train generators and separate networks; return parameters and accuracy averaged over tasks."""
    torch.manual_seed(seed)
    (images, digits), (test_images, test_digits) = load_digits()
    own = torch.stack([torch.randperm(len(images))[:n_images] for _ in range(TASKS)])  # each task's training images
    methods = {
        "one generator, angle": (*generated(HARMONICS, nn.Identity()), 2e-2),
        "one generator, task number": (*generated(NUMBERS, TaskEmbedding(TASKS, 16)), 2e-2),
        **{f"separate, {width} hidden units": (*separate(width), 1e-2) for width in (64, 16, 6)},
    }
    result = {}
    for method, (parameters, predict, lr) in methods.items():

        def loss(predict=predict) -> Tensor:
            task = torch.arange(TASKS).repeat_interleave(BATCH)
            rows = own[task, torch.randint(n_images, task.shape)]
            return cross_entropy(predict(task, rotate(images[rows], ANGLES[task])), digits[rows])

        fit(parameters, loss, steps, lr)
        with torch.no_grad():
            task, row = torch.cartesian_prod(torch.arange(TASKS), torch.arange(len(test_digits))).T
            hits = predict(task, rotate(test_images[row], ANGLES[task])).argmax(1) == test_digits[row]
        accuracy = hits.double().mean().item()
        result[method] = {"parameters": sum(p.numel() for p in parameters), "accuracy": accuracy}
    return result


def main(
    seeds: int = 5, steps: int = 600, images: int = 50, out: Path | None = Path("runs/examples/compression.png")
) -> dict:
    """Compare parameters and accuracy.

    :param images: training images of each task, at most 1,297.
    """
    result = estimates([run(seed, steps, images) for seed in range(seeds)])
    show(f"{TASKS} classifiers, {images} training images each, seeds: {seeds}, 95 % t-interval", result)
    axis, save = picture(f"parameters of all {TASKS} networks together", "accuracy on unseen images")
    axis.set_xscale("log")
    for (method, figures), style in zip(result.items(), STYLES, strict=True):
        accuracy, low, high = figures["accuracy"]
        bar = [[accuracy - low], [high - accuracy]]
        axis.errorbar(figures["parameters"].value, accuracy, bar, **style, ls="", capsize=3, label=method)
    save(out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
