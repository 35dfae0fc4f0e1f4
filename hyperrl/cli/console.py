"""What the commands print: text as it is, square brackets included."""

from __future__ import annotations

from rich.console import Console


def console(stderr: bool = False) -> Console:
    """Return the console that all commands print to: it takes nothing for markup."""
    return Console(markup=False, highlight=False, stderr=stderr)


def say(text: str) -> None:
    """Print a line, which the terminal wraps: a path can be copied from it whole."""
    console().print(text, soft_wrap=True)
