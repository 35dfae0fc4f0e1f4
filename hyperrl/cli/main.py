"""The command line: its commands, and what becomes of errors."""

from __future__ import annotations

import os
import sys

import tyro
from rich.text import Text

import hyperrl
from hyperrl.cli.adapt import adapt
from hyperrl.cli.arguments import with_imports
from hyperrl.cli.check import check
from hyperrl.cli.compare import compare
from hyperrl.cli.console import console, say
from hyperrl.cli.errors import in_words
from hyperrl.cli.evaluate import evaluate
from hyperrl.cli.explain import explain
from hyperrl.cli.explore import explore
from hyperrl.cli.export import export
from hyperrl.cli.help import union_of
from hyperrl.cli.identify import identify
from hyperrl.cli.infer import infer
from hyperrl.cli.list import list_
from hyperrl.cli.record import record
from hyperrl.cli.reference import reference
from hyperrl.cli.share import share
from hyperrl.cli.sweep import sweep
from hyperrl.cli.train import train
from hyperrl.cli.tune import tune

DESCRIPTION = "Agents for whole families of environments. `hyperrl COMMAND --help` says what a command takes."
COMMANDS = {
    "train": train,
    "tune": tune,
    "evaluate": evaluate,
    "reference": reference,
    "sweep": sweep,
    "compare": compare,
    "adapt": adapt,
    "identify": identify,
    "infer": infer,
    "explain": explain,
    "explore": explore,
    "record": record,
    "export": export,
    "share": share,
    "check": check,
    "list": list_,
}


def main() -> None:
    """Run the command line; what the user can mend is one sentence and exit status 2, all else a traceback."""
    if sys.argv[1:] == ["--version"]:
        say(hyperrl.__version__)
        return
    try:
        tyro.cli(
            union_of({name: with_imports(command) for name, command in COMMANDS.items()}),
            prog="hyperrl",
            description=DESCRIPTION,
            config=(tyro.conf.DisallowNone,),
        )
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        sentence = in_words(error)
        if sentence is None:
            raise
        console(stderr=True).print(Text.assemble(("error: ", "red"), sentence), soft_wrap=True)
        sys.exit(2)
