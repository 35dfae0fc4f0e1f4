"""``hyperrl compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from hyperrl.experiments.comparison import Comparison


def compare(runs: Positional[tuple[Path, ...]], out: Path | None = None, reference: Path | None = None) -> None:
    """Print the evaluations of several runs side by side, seeds of one agent taken together.

    Args:
        runs: Run folders, evaluated alike with `hyperrl evaluate`.
        out: New folder for a report in Markdown with pictures. Default: print only.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
    """
    from hyperrl.experiments.comparison import Comparison
    from hyperrl.report.markdown import write_report
    from hyperrl.training.run import Run

    comparison = Comparison([Run.open(run) for run in runs], reference)
    if out is not None:
        write_report(comparison, out)
    _print_comparison(comparison)
    if out is not None:
        Console().print(f"Wrote {out / 'report.md'} and its pictures", highlight=False)


def _print_comparison(comparison: Comparison) -> None:
    rows = comparison.rows
    title = f"{comparison.family.name}, {comparison.steps:,} steps"
    returns = Table("agent", "seeds", "split", "mean", "IQM [95 % interval]", title=f"{title}: return")
    scores = Table("agent", "split", "IQM [95 % interval]", "optimality gap", title=f"{title}: score")
    previous = None
    for row in rows:
        if previous not in (None, row.agent):
            returns.add_section()
            scores.add_section()
        agent, seeds = ("", "") if previous == row.agent else (row.agent, str(row.seeds))
        returns.add_row(agent, seeds, row.split, f"{row.mean:.1f}", str(row.iqm))
        scores.add_row(agent, row.split, str(row.score or "-"), str(row.gap or "-"))
        previous = row.agent
    console = Console()
    for table in (returns, scores) if any(row.scored for row in rows) else (returns,):
        for column in table.columns[1:]:  # an agent's name may wrap, numbers may not
            column.no_wrap = True
        console.print(table)
    one = any(row.seeds == 1 for row in rows)
    parameters = {row.agent: row.parameters for row in rows}
    console.print("Parameters: " + ", ".join(f"{agent} {n:,}" for agent, n in parameters.items()), highlight=False)
    console.print(f"IQM: interquartile mean over contexts. Interval: bootstrap over {'episodes' if one else 'seeds'}.")
