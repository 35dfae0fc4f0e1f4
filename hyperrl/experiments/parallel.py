"""Trainings side by side: one process a core, one progress bar over the steps of all."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

T = TypeVar("T")


class Count(BaseCallback):
    """Add the steps of this training to a counter that all processes share."""

    def _on_step(self) -> bool:
        with _COUNTER.get_lock():
            _COUNTER.value += self.training_env.num_envs
        return True


def run(
    work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int, steps: int, label: str, progress: bool = True
) -> list[T]:
    """Call ``work(*job)`` for each job, each in a process with one thread, and return the results in order.

    The first error stops all, and so does Ctrl-C.

    :param work: a function of a module, so that other processes find it; a training in it counts its steps by the
        callback :class:`Count`.
    :param jobs: its arguments, picklable.
    :param workers: how many processes.
    :param steps: environment steps that all jobs together will take.
    :param label: what the progress bar says.
    :param progress: show it.
    :raises ValueError: for less than one worker.
    """
    if workers < 1:
        raise ValueError(f"expected at least one job at a time, got {workers}")
    spawn = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads may hang
    counter = spawn.Value("q", 0)
    with (
        ProcessPoolExecutor(workers, spawn, _prepare, (counter,)) as pool,
        tqdm(total=steps, unit="step", unit_scale=True, desc=label, smoothing=0, disable=not progress) as bar,
    ):
        futures = [pool.submit(work, *job) for job in jobs]
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(min(counter.value, steps) - bar.n)
                for future in finished:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _prepare(counter: Synchronized[int]) -> None:
    """Prepare a process that trains."""
    global _COUNTER
    _COUNTER = counter
    torch.set_num_threads(1)  # each process has a core of its own
