"""``hyperrl sweep``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from hyperrl.cli.arguments import HERE, Engines
from hyperrl.cli.console import console

if TYPE_CHECKING:
    from hyperrl.experiments.engines import Engine
    from hyperrl.experiments.sweeps import Cell, SweepResult, SweepState


def sweep(
    file: Positional[Path],
    out: Path | None = None,
    on: Engines = HERE,
    progress: bool = True,
) -> None:
    """Train and evaluate families × agents × seeds, on this machine or on a Ray cluster.

    Finished cells are left as they are, interrupted ones are resumed. Cells that fail are named at the end; the others
    go on.

    Args:
        file: TOML file of the sweep: families, agents, seeds, steps (docs/cluster.md).
        out: Folder for the run folders. Default: runs/NAME of the file.
        progress: Show a table of what is done, running and failed.
    """
    if run_sweep(file, out, on.make(), progress).errors:
        sys.exit(1)


def run_sweep(source: Path | Sequence[Cell], out: Path | None, engine: Engine, progress: bool = True) -> SweepResult:
    """Run a sweep, show how far it is, and name the cells that failed."""
    from hyperrl.experiments.sweeps import sweep

    terminal = console()
    begun = time.monotonic()
    with Live(console=terminal, transient=not terminal.is_terminal, auto_refresh=False) as live:
        watch = (lambda state: live.update(_table(state, begun), refresh=True)) if progress else None
        result = sweep(source, out, engine=engine, watch=watch)
    terminal.print(f"{len(result.reports)} cells are finished, {len(result.errors)} failed.")
    for name, error in result.errors.items():
        terminal.print(Text.assemble((name, "bold"), f": {type(error).__name__}: {error}"), soft_wrap=True)
    return result


def _table(state: SweepState, begun: float) -> Table:
    """Say how far a sweep is."""
    seconds = time.monotonic() - begun
    rate = state.steps / seconds
    left = f"{state.remaining / rate / 60:.0f} min" if rate else "?"
    table = Table("cells", "done", "running", "failed", "steps/s", "time left")
    for column in table.columns:
        column.justify = "right"
    numbers = (state.cells, state.done, len(state.running), state.failed)
    table.add_row(*map(str, numbers), f"{rate:,.0f}", left)
    table.caption = ", ".join(state.running)
    return table
