"""The command line, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hyperrl.cli.main import main

Command = Callable[..., str]


@pytest.fixture
def hyperrl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the command line in an empty folder and return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, expect: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["hyperrl", *map(str, arguments)])
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        assert status == expect, captured.out + captured.err
        return captured.out + captured.err

    return run
