"""Kill a process at each of its operations on files."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "open")


def at_every_operation(folder: Path, work: Callable[[], object], every: int = 1) -> Iterator[int]:
    """Do some work in child processes, and kill each before another operation on files; yield after each death.

    The last child is not killed: the work has no more operations.

    :param folder: operations outside of it do not count.
    :param work: what to do.
    :param every: kill at every so many-th operation only.
    """
    k = 0
    while in_child(work, folder, k) == KILLED:
        yield k
        k += every


KILLED = 137


def in_child(work: Callable[[], object], folder: Path | None = None, kill_at: int = 0) -> int:
    """Do some work in a child process and return its exit status, :data:`KILLED` where it was killed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        if folder is not None:
            _kill(str(folder), kill_at)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _kill(folder: str, at: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in EVENTS or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if count == at:
            os._exit(KILLED)
        count += 1

    sys.addaudithook(hook)
