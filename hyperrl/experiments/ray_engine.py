"""The engine that runs tasks on a Ray cluster (Moritz et al. 2018)."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hyperrl.experiments import engines
from hyperrl.experiments.engines import POLL_SECONDS, Engine, Outcome, State, Task
from hyperrl.utils.files import write_bytes

T = TypeVar("T")

SYNC_SECONDS = 2.0
RETRIES = 10
"""How often a task begins again on another node after its node has died."""


class RayEngine(Engine):
    """One Ray task a task, on whichever node has room.

    A node that dies takes no task along: its tasks begin again on other nodes, where a training resumes from its last
    checkpoint.

    :param address: of the cluster to join, such as ``"auto"`` or ``"ray://head:10001"``; ``None`` starts Ray on this
        machine, or takes the cluster that this process has joined.
    :param num_cpus: processors that a task takes, and threads that its networks use.
    :param num_gpus: GPUs that a task takes; a part of one is possible.
    :param shared_storage: whether all nodes see the folders that tasks write under the same path. Otherwise tasks write
        to their node's own disk, and every new checkpoint and result is brought back to this machine.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        shared_storage: bool = False,
    ) -> None:
        if num_cpus < 0 or num_gpus < 0:
            raise ValueError(f"expected num_cpus and num_gpus ≥ 0, got {num_cpus} and {num_gpus}")
        self.address = address
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.shared_storage = shared_storage

    def run(
        self,
        work: Callable[..., T],
        tasks: Sequence[Task],
        watch: Callable[[State], None] | None = None,
    ) -> Generator[Outcome[T], None, None]:
        """Run the tasks, see :meth:`Engine.run`."""
        started = not ray.is_initialized()
        if started:
            try:
                ray.init(
                    address=self.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False
                )
            except ConnectionError as error:
                raise ValueError(f"no Ray cluster answers at {self.address!r}: {error}") from None
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        office: Any = ray.remote(_Office).options(num_cpus=0, scheduling_strategy=here, max_concurrency=8).remote()
        remote = ray.remote(_run_task).options(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=RETRIES, retry_exceptions=False
        )
        threads = max(1, int(self.num_cpus))
        index_of = {
            remote.remote(i, work, Task(task.arguments, task.out.absolute()), office, threads, self.shared_storage): i
            for i, task in enumerate(tasks)
        }
        pending = list(index_of)
        try:
            while pending:
                finished, pending = ray.wait(pending, num_returns=1, timeout=POLL_SECONDS)
                if watch is not None:
                    running, steps = ray.get(office.state.remote())
                    open_ = {index_of[ref] for ref in pending}
                    watch(State(frozenset(running & open_), [steps.get(i, 0) for i in range(len(tasks))]))
                for ref in finished:
                    yield _outcome(index_of[ref], ref)
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)
            ray.kill(office)
            if started:
                ray.shutdown()


def _outcome(index: int, ref: Any) -> Outcome[Any]:
    try:
        return Outcome(index, ray.get(ref), None)
    except ray.exceptions.RayTaskError as error:
        return Outcome(index, None, error.cause if isinstance(error.cause, BaseException) else error)
    except ray.exceptions.RayError as error:
        return Outcome(index, None, RuntimeError(f"the process of the task died: {error}"))


class _Office:
    """Lives on the node that started the tasks: knows how far they are, and keeps the files that come back."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.steps: dict[int, int] = {}

    def begin(self, index: int) -> None:
        self.running.add(index)

    def add(self, index: int, steps: int) -> None:
        self.steps[index] = self.steps.get(index, 0) + steps

    def state(self) -> tuple[set[int], dict[int, int]]:
        return self.running, self.steps

    def read(self, out: Path) -> dict[str, bytes]:
        """Return what an earlier attempt left: path relative to the folder of ``out`` = content."""
        return {str(path.relative_to(out.parent)): path.read_bytes() for path in _files(out)}

    def update(self, out: Path, changed: dict[str, bytes], gone: list[str]) -> None:
        """Write the files that a task has changed, and remove those that it has removed.

        A folder that is not there yet appears whole.
        """
        tops = {Path(name).parts[0] for name in changed}
        new = {top: out.parent / f".{top}.new" for top in tops if not (out.parent / top).exists()}
        for folder in new.values():
            shutil.rmtree(folder, ignore_errors=True)
        for name, content in changed.items():
            top, *rest = Path(name).parts
            path = Path(new.get(top, out.parent / top), *rest)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
        for top, folder in new.items():
            folder.rename(out.parent / top)
        for name in gone:
            path = out.parent / name
            path.unlink(missing_ok=True)
            while path.parent != out.parent and path.parent.is_dir() and not any(path.parent.iterdir()):
                path = path.parent
                path.rmdir()


def _files(out: Path) -> Iterator[Path]:
    """Find the files of a task: in ``out`` and in its neighbours of that name and a suffix, without temporary ones."""
    for top in (out, *out.parent.glob(f"{out.name}.*")):
        for path in (top, *top.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path


def _run_task(index: int, work: Callable[..., T], task: Task, office: Any, threads: int, shared_storage: bool) -> T:
    import torch

    torch.set_num_threads(threads)
    office.begin.remote(index)
    unsent, sent_at = 0, time.monotonic()

    def report(n: int) -> None:
        nonlocal unsent, sent_at
        unsent += n
        if time.monotonic() - sent_at > POLL_SECONDS:
            office.add.remote(index, unsent)
            unsent, sent_at = 0, time.monotonic()

    engines._report = report
    try:
        if shared_storage:
            task.out.parent.mkdir(parents=True, exist_ok=True)
            return work(*task.arguments, task.out)
        with _brought_back(task.out, office) as local:
            return work(*task.arguments, local)
    finally:
        ray.get(office.add.remote(index, unsent))
        engines._report = None


@contextmanager
def _brought_back(out: Path, office: Any) -> Iterator[Path]:
    """Give a task a path on this node's disk, with what an earlier attempt left, and bring back what it writes."""
    folder = Path(tempfile.mkdtemp(prefix="hyperrl-"))
    local, sent, over = folder / out.name, dict[str, tuple[int, int]](), threading.Event()
    left: Any = ray.get(office.read.remote(out))
    for name, content in left.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sent[name] = _stamp(path)

    def sync() -> None:
        stamps = {str(path.relative_to(folder)): _stamp(path) for path in _files(local)}
        changed = {name: (folder / name).read_bytes() for name, stamp in stamps.items() if sent.get(name) != stamp}
        gone = [name for name in sent if name not in stamps]
        if changed or gone:
            ray.get(office.update.remote(out, changed, gone))  # in one call: never half of a change
            sent.clear()
            sent.update(stamps)

    def keep_syncing() -> None:
        while not over.wait(SYNC_SECONDS):
            try:
                sync()
            except FileNotFoundError:  # the task is renaming its folder: next time
                continue

    thread = threading.Thread(target=keep_syncing, daemon=True)
    thread.start()
    try:
        yield local
    finally:
        over.set()
        thread.join()
        sync()
        shutil.rmtree(folder)


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size
