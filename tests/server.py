"""Processes of Python that have the slow imports behind them: this server makes those once, and forks.

A process made here is as a new one but for that: hyperrl is not imported, and neither is anything else but
:data:`IMPORTED` and what these import. It reads orders from standard input, one a line, and answers each with the exit
status; see :func:`outside.python`.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import types
import warnings
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "torch.utils.tensorboard", "stable_baselines3"),
    *("matplotlib.pyplot", "rich", "scipy.special", "scipy.stats", "tyro"),
)


def main() -> None:
    """Serve until the input ends. In a child this returns when the child's work is done."""
    own = list(sys.path)
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            order = json.loads(line)
            become(order, own)
            work(*order["arguments"])
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def become(order: dict[str, Any], path: list[str]) -> None:
    """Take on the folder, the environment, the path and the outputs that a process of its own would have."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for name, target in ((os.devnull, 0), (order["stdout"], 1), (order["stderr"], 2)):
        opened = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, target)
        os.close(opened)
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    warnings.resetwarnings()
    warnings.simplefilter(os.environ.get("PYTHONWARNINGS", "default"))


def work(*arguments: str) -> None:
    """Do what Python does with ``[-P] -m module …``, ``-c code …``, or ``file …`` of the folder."""
    if arguments[0] == "-P":
        arguments = arguments[1:]
    elif arguments[0] in ("-m", "-c"):
        sys.path.insert(0, "")
    else:
        sys.path.insert(0, os.getcwd())
    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(arguments[1], vars(module))
    else:
        sys.argv = [*arguments]
        runpy.run_path(os.path.abspath(arguments[0]), run_name="__main__")


if __name__ == "__main__":
    main()
