"""A project of a user's, outside the checkout: its files, and Python run there in a process of its own."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


def python(folder: Path, *arguments: object, expect: int = 0, paths: tuple[Path, ...] = (), **variables: str) -> str:
    """Run Python in a folder, where hyperrl is importable as if installed, and return what it printed.

    The process is a fork of one that has imported torch and Stable-Baselines3, but not hyperrl: see ``server.py``.

    :param expect: the exit status.
    :param paths: folders of other installed packages.
    :param variables: of the environment.
    """
    path = os.pathsep.join(map(str, (ROOT, *paths)))
    environment = os.environ | dict(PYTHONPATH=path, COLUMNS="200", OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    with TemporaryDirectory() as temporary:
        outputs = {name: str(Path(temporary) / name) for name in ("stdout", "stderr")}
        order = dict(folder=str(folder), arguments=[*map(str, arguments)], environment=environment | variables)
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(order | outputs) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        printed = "".join(Path(output).read_text(encoding="utf-8") for output in outputs.values())
    assert status == expect, printed
    return printed


def hyperrl(folder: Path, *arguments: object, expect: int = 0, paths: tuple[Path, ...] = (), **variables: str) -> str:
    """Run the command line in a folder and return what it printed; ``-P`` as a console script, which adds no path."""
    return python(folder, "-P", "-m", "hyperrl", *arguments, expect=expect, paths=paths, **variables)


@cache
def _server() -> subprocess.Popen[str]:
    """Start the server of this process, which ends with it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "-P", ROOT / "tests" / "server.py"],
        env=environment | dict(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
