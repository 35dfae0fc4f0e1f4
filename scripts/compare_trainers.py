"""Train hyper-ppo with DevicePPO and with Stable-Baselines3's PPO, and compare their learning curves.

Run: python scripts/compare_trainers.py. Curves that are in docs/results/trainers/ are not measured again. It prints a
Markdown table and draws docs/results/trainers-FAMILY.png.
"""

import json
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from estimates import whole

import hyperrl
from hyperrl.evaluation.statistics import Estimate, estimate_mean
from hyperrl.report import plots
from hyperrl.report.markdown import markdown_table
from hyperrl.utils.files import write_text

STEPS = {"pendulum": 400_000, "ode": 1_000_000}
TRAINERS = ("device", "sb3")
POINTS = 40
FOLDER = Path(__file__).parents[1] / "docs" / "results" / "trainers"


def measure(family: str, trainer: str, seed: int) -> np.ndarray:
    """Return the mean returns of training at ``POINTS`` equidistant steps; train, unless that has been done."""
    path = FOLDER / f"{family}-{trainer}-{seed}.json"
    if not path.exists():
        with TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            hyperrl.train(family, "hyper-ppo", STEPS[family], seed, out, device="cpu", trainer=trainer)
            steps, returns = hyperrl.Run.open(out).learning_curve()
        write_text(path, json.dumps(np.interp(grid(family), steps, returns).round(3).tolist()) + "\n")
        print(path, flush=True)
    return np.array(json.loads(path.read_text(encoding="utf-8")))


def grid(family: str) -> np.ndarray:
    """Return the steps of the points."""
    return np.linspace(0, STEPS[family], POINTS + 1)[1:]


def main(seeds: int = 5) -> None:
    """Compare the curves at each quarter of the training, with 95 % intervals over seeds."""
    curves = {
        family: {trainer: np.array([measure(family, trainer, s) for s in range(1, seeds + 1)]) for trainer in TRAINERS}
        for family in STEPS
    }
    rows = []
    for family, of in curves.items():
        means = {trainer: estimate_mean(lines[:, :, None]) for trainer, lines in of.items()}  # (3, points)
        for trainer, mean in means.items():
            quarters = mean[:, POINTS // 4 - 1 :: POINTS // 4].T
            rows.append((family, trainer, *(whole(Estimate(*quarter)) for quarter in quarters)))
        inside = [
            np.mean((low <= other) & (other <= high)) for (_, low, high), (other, *_) in permutations(means.values())
        ]
        print(f"{family}: of {POINTS} means, {inside[0]:.0%} and {inside[1]:.0%} lie in the other's interval")
        lines = {trainer: (grid(family), mean) for trainer, mean in means.items()}
        plots.save(plots.plot_curves(lines), FOLDER.parent / f"trainers-{family}.png")
    print(markdown_table(("family", "trainer", *(f"{q} of the steps" for q in ("¼", "½", "¾", "all"))), rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
