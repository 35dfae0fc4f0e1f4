"""Train hyper, concat and unaware agents on one family with several seeds, and compare them."""

import os
import sys
from pathlib import Path

import tyro

from hyperrl.cli.compare import compare
from hyperrl.cli.sweep import run_sweep
from hyperrl.experiments.engines import LocalEngine
from hyperrl.experiments.sweeps import SweepDefinition, cells

AGENTS = ["hyper-ppo", "concat-ppo", "unaware-ppo"]


def main(family: str = "pendulum", seeds: int = 5, steps: int = 400_000, jobs: int = os.cpu_count() or 1) -> None:
    """Train hyper-ppo, concat-ppo and unaware-ppo on a family, evaluate and compare them.

    A run that is there already is kept, an interrupted one is continued.

    Args:
        family: Name of a family.
        seeds: Trainings per agent.
        steps: Environment steps of each training.
        jobs: Trainings at a time, one core each.
    """
    out = Path("runs") / f"demo-{family}-{steps}"
    found = cells(SweepDefinition([family], AGENTS, steps, seeds, evaluate=dict(plane=13, sensitivity=13)))
    if run_sweep(found, out, LocalEngine(jobs)).errors:
        sys.exit(1)
    comparison = out / f"comparison-{seeds}"
    runs = [out / cell.name for agent in AGENTS for cell in found if cell.agent.name == agent]
    compare(tuple(runs), None if comparison.exists() else comparison)


if __name__ == "__main__":
    tyro.cli(main)
