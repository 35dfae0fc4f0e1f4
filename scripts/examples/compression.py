"""Compression: one chunked generator in place of twenty networks.

Twenty classifiers of digits, one an orientation, each with fifty training images of its own. The generator gets the
angle, or only the number of the task. Run: python scripts/examples/compression.py
"""

import math
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from shared import STYLES, estimates, fit, load_digits, rotate, save, show, size
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from hyperrl import HyperNetwork
from hyperrl.hypernet import TaskEmbedding, mlp

TASKS, BATCH = 20, 32
ANGLES = torch.arange(TASKS) * (2 * math.pi / TASKS)
HARMONICS = torch.stack([ANGLES.cos(), ANGLES.sin(), (2 * ANGLES).cos(), (2 * ANGLES).sin()], dim=1)  # (TASKS, 4)
NUMBERS = torch.arange(TASKS).unsqueeze(1).float()


class Generated(nn.Module):
    """One generator for all tasks: rows (TASKS, n, 64) -> (TASKS, n, 10)."""

    def __init__(self, contexts: Tensor, encoder: nn.Module) -> None:
        super().__init__()
        target, kind = mlp([64, 64, 10], nn.ReLU), dict(head="chunked", init="hyperfan_in", base=False)
        self.contexts, self.hyper = (
            contexts,
            HyperNetwork(contexts.shape[1], target, encoder=encoder, sample=contexts, **kind),
        )

    def forward(self, x: Tensor) -> Tensor:
        context = self.contexts.repeat_interleave(x.shape[1], dim=0)
        return self.hyper(context, x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Separate(nn.Module):
    """A network of its own for each task: rows (TASKS, n, 64) -> (TASKS, n, 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        networks = [mlp([64, width, 10], nn.ReLU) for _ in range(TASKS)]
        weights, _ = stack_module_state(networks)
        self.names, self.target = list(weights), [networks[0]]  # in a list, so that its parameters are not ours
        self.stacked = nn.ParameterList(w.detach() for w in weights.values())

    def forward(self, x: Tensor) -> Tensor:
        weights = dict(zip(self.names, self.stacked, strict=True))
        return vmap(lambda w, x: functional_call(self.target[0], w, (x,)))(weights, x)


def run(seed: int, steps: int, n_images: int) -> dict[str, dict[str, float]]:
    """Train generators and separate networks; return parameters and accuracy averaged over tasks."""
    torch.manual_seed(seed)
    (images, digits), (test_images, test_digits) = load_digits()
    own = torch.stack([torch.randperm(len(images))[:n_images] for _ in range(TASKS)])  # each task's training images
    test_x = torch.stack([rotate(test_images, angle.expand(len(test_images))) for angle in ANGLES])
    networks = {
        "one generator, angle": (Generated(HARMONICS, nn.Identity()), 2e-2),
        "one generator, task number": (Generated(NUMBERS, TaskEmbedding(TASKS, 16)), 2e-2),
        **{f"separate, {width} hidden units": (Separate(width), 1e-2) for width in (64, 16, 6)},
    }
    result = {}
    for method, (network, lr) in networks.items():

        def loss(network=network) -> Tensor:
            rows = own.gather(1, torch.randint(n_images, (TASKS, BATCH))).flatten()
            x = rotate(images[rows], ANGLES.repeat_interleave(BATCH)).unflatten(0, (TASKS, BATCH))
            return cross_entropy(network(x).flatten(0, 1), digits[rows])

        fit(network.parameters(), loss, steps, lr)
        with torch.no_grad():
            accuracy = (network(test_x).argmax(2) == test_digits).double().mean().item()
        result[method] = {"parameters": size(network), "accuracy": accuracy}
    return result


def main(
    seeds: int = 5, steps: int = 600, images: int = 50, out: Path | None = Path("runs/examples/compression.png")
) -> dict:
    """Compare parameters and accuracy.

    :param images: training images of each task, at most 1,297.
    """
    result = estimates([run(seed, steps, images) for seed in range(seeds)])
    show(f"{TASKS} classifiers, {images} training images each, seeds: {seeds}, 95 % t-interval", result)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    separate = [m for m in result if m.startswith("separate")]
    groups = {m: [m] for m in result if m not in separate} | {"separate networks, 6 to 64 hidden units": separate}
    for (label, methods), style in zip(groups.items(), STYLES, strict=False):
        x = [result[m]["parameters"].value for m in methods]
        mean, low, high = np.array([result[m]["accuracy"] for m in methods]).T
        axis.errorbar(x, mean, [mean - low, high - mean], **style, ls=":", capsize=3, label=label)
    axis.set(xlabel=f"parameters of all {TASKS} networks together", ylabel="accuracy on unseen images", xscale="log")
    axis.legend(frameon=False)
    save(figure, out)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
