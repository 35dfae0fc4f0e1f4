"""Train hyper, concat and unaware agents on one family with several seeds, and compare them."""

import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch
import tyro
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

import hyperrl
from hyperrl.cli import compare
from hyperrl.runs import Run

AGENTS = ("hyper-ppo", "concat-ppo", "unaware-ppo")


class Count(BaseCallback):
    """Add the steps of this training to a counter that all processes share."""

    def _on_step(self) -> bool:
        with COUNTER.get_lock():
            COUNTER.value += self.training_env.num_envs
        return True


def share(counter: Synchronized) -> None:
    """Prepare a process that trains."""
    global COUNTER
    COUNTER = counter
    torch.set_num_threads(1)  # each process has a core of its own


def work(agent: str, family: str, seed: int, steps: int, run: Path) -> None:
    """Train and evaluate, as far as that has not been done."""
    if not run.exists():
        hyperrl.train(family, agent, steps, seed, run, resume=True, device="cpu", callback=Count())
    opened = Run.open(run)
    if not opened.evaluation_path.exists():
        hyperrl.evaluate(opened.model("cpu"), opened.family, plane=13).save(opened.evaluation_path)


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
    counter = multiprocessing.get_context("spawn").Value("q", 0)
    total = sum(steps for run in runs.values() if not run.exists())
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), share, (counter,)) as pool,
        tqdm(total=total, unit="step", unit_scale=True, desc=f"{len(runs)} trainings on {family}", smoothing=0) as bar,
    ):
        pending = {pool.submit(work, agent, family, seed, steps, run) for (agent, seed), run in runs.items()}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(min(counter.value, total) - bar.n)
                for future in finished:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    comparison = out / f"comparison-{seeds}"
    compare(tuple(runs.values()), None if comparison.exists() else comparison)


if __name__ == "__main__":
    tyro.cli(main)
