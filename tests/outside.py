"""A project of a user's, outside the checkout: its files, and Python run there in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(folder: Path, *arguments: object, expect: int = 0, paths: tuple[Path, ...] = (), **variables: str) -> str:
    """Run Python in a folder, where hyperrl is importable as if installed, and return what it printed.

    :param expect: the exit status.
    :param paths: folders of other installed packages.
    :param variables: of the environment.
    """
    path = os.pathsep.join(map(str, (ROOT, *paths)))
    environment = os.environ | dict(PYTHONPATH=path, COLUMNS="200", OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    printed = done.stdout + done.stderr
    assert done.returncode == expect, printed
    return printed


def hyperrl(folder: Path, *arguments: object, expect: int = 0, paths: tuple[Path, ...] = (), **variables: str) -> str:
    """Run the command line in a folder and return what it printed; ``-P`` as a console script, which adds no path."""
    return python(folder, "-P", "-m", "hyperrl", *arguments, expect=expect, paths=paths, **variables)
