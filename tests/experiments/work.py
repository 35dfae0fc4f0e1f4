"""For the tests of engines: tasks, functions of a module, so that other processes find them; one without processes."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from hyperrl.experiments.engines import LocalEngine, Outcome, report_steps
from hyperrl.utils.files import write_text


class Inline(LocalEngine):
    """Runs tasks one after the other in the process of the test, which may look on."""

    def run(self, work: Any, tasks: Any, watch: Any = None) -> Any:
        for i, task in enumerate(tasks):
            try:
                outcome = Outcome(i, work(*task.arguments, task.out), None)
            except Exception as error:
                outcome = Outcome(i, None, error)
            yield outcome


def square(n: int, out: Path) -> int:
    report_steps(n)
    out.write_text(str(n * n))
    return n * n


def fail_on_odd(n: int, out: Path) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return square(n, out)


def die_on_odd(n: int, out: Path) -> int:
    if n % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(n, out)


def sleep(seconds: float, out: Path) -> None:
    out.write_text(str(os.getpid()))
    time.sleep(seconds)
    out.with_suffix(".finished").touch()


def count(n: int, out: Path) -> int:
    """Count slowly, a checkpoint each number; return how many numbers this attempt counted."""
    partial = out.with_name(f"{out.name}.partial")
    partial.mkdir(exist_ok=True)
    begin = int((partial / "checkpoint").read_text()) if (partial / "checkpoint").exists() else 0
    for i in range(begin, n):
        time.sleep(0.1)
        write_text(partial / "checkpoint", str(i + 1))
        report_steps(1)
    (partial / "result").write_text(f"counted to {n}")
    (partial / "checkpoint").unlink()
    partial.rename(out)
    return n - begin
