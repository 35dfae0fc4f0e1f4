"""The command line: ``hyperrl`` and its commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

import hyperrl
from hyperrl.cli.adapt import adapt
from hyperrl.cli.arguments import with_imports
from hyperrl.cli.compare import compare
from hyperrl.cli.evaluate import evaluate
from hyperrl.cli.export import export
from hyperrl.cli.list import list_
from hyperrl.cli.record import record
from hyperrl.cli.reference import reference
from hyperrl.cli.sweep import sweep
from hyperrl.cli.train import train
from hyperrl.cli.tune import tune

if TYPE_CHECKING:
    pass


def main() -> None:
    """Run the command line; errors of the user's are one line and exit status 2."""
    commands = {
        "train": train,
        "tune": tune,
        "evaluate": evaluate,
        "reference": reference,
        "sweep": sweep,
        "compare": compare,
        "adapt": adapt,
        "record": record,
        "export": export,
        "list": list_,
    }
    if sys.argv[1:] == ["--version"]:
        Console().print(hyperrl.__version__, highlight=False)
        return
    try:
        commands = {name: with_imports(command) for name, command in commands.items()}
        tyro.extras.subcommand_cli_from_dict(commands, prog="hyperrl", description=__doc__)
    except ValueError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)
