"""Engines: where the tasks of an experiment run, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_connections
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """One call of the work: ``work(*arguments, out)``.

    :param arguments: picklable.
    :param out: the folder or file that the work writes; a training resumes from what an interrupted task left there.
    """

    arguments: tuple[Any, ...]
    out: Path


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a task.

    :param index: its place among the tasks.
    :param value: what the work returned, ``None`` after an error.
    :param error: what the work raised, or a ``RuntimeError`` where its process died.
    """

    index: int
    value: T | None
    error: BaseException | None


@dataclass(frozen=True)
class State:
    """How far the tasks are.

    :param running: places of the tasks under way.
    :param steps: environment steps that each task has reported since the engine started it, shape ``(n,)``.
    """

    running: frozenset[int]
    steps: Sequence[int]


class Engine(ABC):
    """Runs tasks side by side."""

    shared_storage: bool = True
    """Whether tasks write to the very folders that they are given, so that one sees what another writes."""

    @abstractmethod
    def run(
        self,
        work: Callable[..., T],
        tasks: Sequence[Task],
        watch: Callable[[State], None] | None = None,
    ) -> Generator[Outcome[T], None, None]:
        """Call ``work(*task.arguments, task.out)`` for each task and yield outcomes as they come.

        A task that fails does not stop the others. When the generator is closed, as by an error of its consumer or by
        Ctrl-C, the tasks under way end at once and no more begin.

        :param work: a function of a module, so that other processes find it; its training reports steps by
            :class:`~hyperrl.experiments.CountSteps`.
        :param tasks: the tasks.
        :param watch: called with the state about twice a second.
        """


class LocalEngine(Engine):
    """Processes on this machine, each with one thread.

    A process that dies takes its own task along and no other. Processes end when the one that started them does,
    however that ends.

    :param workers: how many tasks run at a time; as many as there are cores by default.
    :raises ValueError: for less than one.
    """

    def __init__(self, workers: int | None = None) -> None:
        workers = (os.cpu_count() or 1) if workers is None else workers
        if workers < 1:
            raise ValueError(f"expected at least one task at a time, got {workers}")
        self.workers = workers

    def run(
        self,
        work: Callable[..., T],
        tasks: Sequence[Task],
        watch: Callable[[State], None] | None = None,
    ) -> Generator[Outcome[T], None, None]:
        """Run the tasks, see :meth:`Engine.run`."""
        spawn = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads may hang
        # No locks: a process that is killed would hold them for ever. Each task writes its own entry alone, and
        # processes see the end of this one, or of the run, as the end of a pipe.
        steps = spawn.RawArray("q", max(len(tasks), 1))
        wanted, alive = spawn.Pipe(duplex=False)

        def start() -> ProcessPoolExecutor:
            arguments: tuple[Any, ...] = steps, wanted
            return ProcessPoolExecutor(1, spawn, _begin_process, arguments)

        # One executor a process: where a process dies, its executor breaks, and the others go on.
        idle = [start() for _ in range(min(self.workers, len(tasks)))]
        waiting = list(enumerate(tasks))[::-1]
        running: dict[Future[T], tuple[int, ProcessPoolExecutor]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    index, task = waiting.pop()
                    executor = idle.pop()
                    running[executor.submit(_run_task, index, work, task)] = index, executor
                finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                if watch is not None:
                    watch(State(frozenset(index for index, _ in running.values()), steps[:]))
                for future in finished:
                    index, executor = running.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        error = RuntimeError("the process of the task died: it was killed, or memory ran out")
                        executor.shutdown()
                        executor = start()
                    idle.append(executor)
                    yield Outcome(index, None if error is not None else future.result(), error)
        finally:
            alive.close()
            for executor in (*idle, *(executor for _, executor in running.values())):
                executor.shutdown(cancel_futures=True)
            wanted.close()


def report_steps(n: int) -> None:
    """Add environment steps to those of the task that this process runs; without an engine, do nothing."""
    if _report is not None:
        _report(n)


def gather(
    engine: Engine, work: Callable[..., T], tasks: Sequence[Task], steps: int, label: str, progress: bool = True
) -> list[T]:
    """Run tasks and return their results in order; the first error ends all.

    :param steps: environment steps that all tasks together will take.
    :param label: what the progress bar says.
    :param progress: show it.
    """
    from tqdm import tqdm

    results: dict[int, Any] = {}
    with tqdm(total=steps, unit="step", unit_scale=True, desc=label, smoothing=0, disable=not progress) as bar:

        def watch(state: State) -> None:
            bar.update(min(sum(state.steps), steps) - bar.n)

        with closing(engine.run(work, tasks, watch)) as outcomes:
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                results[outcome.index] = outcome.value
    return [results[i] for i in range(len(tasks))]


_report: Callable[[int], None] | None = None
_steps: Any = None  # of each task, shared with the process that started this one


def _begin_process(steps: Any, wanted: Any) -> None:
    """Prepare a process for tasks."""
    global _steps
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    os.environ["OMP_NUM_THREADS"] = "1"  # each process has a core of its own
    if (torch := sys.modules.get("torch")) is not None:  # a user's main module has imported it already
        torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, args=(wanted,), daemon=True).start()


def _end_with_parent(wanted: Any) -> None:
    """End this process, whatever it is doing, when it is no longer wanted."""
    wait_for_connections([wanted])
    os._exit(1)


def _run_task(index: int, work: Callable[..., T], task: Task) -> T:
    global _report

    def report(n: int) -> None:
        _steps[index] += n

    _report = report
    return work(*task.arguments, task.out)
