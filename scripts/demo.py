"""Train hyper, concat and unaware agents on one family with several seeds, and compare them."""

import os
from pathlib import Path

import tyro

import hyperrl
from hyperrl.cli.compare import compare
from hyperrl.experiments.engines import CountSteps, LocalEngine, Task, gather
from hyperrl.training.run import Run

AGENTS = ("hyper-ppo", "concat-ppo", "unaware-ppo")


def work(agent: str, family: str, seed: int, steps: int, run: Path) -> None:
    """Train and evaluate, as far as that has not been done."""
    if not run.exists():
        hyperrl.train(family, agent, steps, seed, run, resume=True, device="cpu", callback=CountSteps())
    opened = Run.open(run)
    if not opened.evaluation_path.exists():
        hyperrl.evaluate(opened.model("cpu"), opened.family, plane=13, sensitivity=13).save(opened.evaluation_path)


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
    runs = {(agent, seed): out / f"{agent}-{seed}" for agent in AGENTS for seed in range(seeds)}
    total = sum(steps for run in runs.values() if not run.exists())
    trainings = [Task((agent, family, seed, steps), run) for (agent, seed), run in runs.items()]
    gather(LocalEngine(jobs), work, trainings, total, f"{len(runs)} trainings on {family}")
    comparison = out / f"comparison-{seeds}"
    compare(tuple(runs.values()), None if comparison.exists() else comparison)


if __name__ == "__main__":
    tyro.cli(main)
