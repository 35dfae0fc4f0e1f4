"""``hyperrl compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from tyro.conf import Positional

from hyperrl.cli.agents import Saved, SavedModel, SavedRun, open_agent
from hyperrl.cli.console import console
from hyperrl.utils.files import refuse_existing

if TYPE_CHECKING:
    from hyperrl.evaluation.report import Report
    from hyperrl.experiments.comparison import Comparison, PooledComparison
    from hyperrl.training.run import Run


def compare(runs: Positional[tuple[Path, ...]], out: Path | None = None, reference: Path | None = None) -> None:
    """Print the evaluations of several agents side by side, seeds of one agent taken together.

    Runs of several families are compared on each, and by their scores on all of them together.

    Args:
        runs: Run folders, evaluated alike with `hyperrl evaluate`, and files of evaluations (.json) of other agents.
        out: New folder for a report in Markdown with pictures. Default: print only.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
    """
    from hyperrl.evaluation.report import Report
    from hyperrl.experiments.comparison import PooledComparison, compare_by_family
    from hyperrl.report.markdown import write_report

    if out is not None:
        refuse_existing(out)
    sources = [Report.load(run) if run.suffix == ".json" else _evaluated(open_agent(run)) for run in runs]
    comparisons = compare_by_family(sources, reference)
    pooled, reason = None, ""
    if len(comparisons) > 1:
        try:
            pooled = PooledComparison(comparisons)
        except ValueError as error:  # each family by itself is worth printing
            reason = str(error)
            if out is not None:
                raise
    if out is not None:
        write_report(comparisons[0] if pooled is None else pooled, out)
    for comparison in comparisons:
        _print_comparison(comparison)
    terminal = console()
    if pooled is not None:
        _print_pooled(pooled)
    elif reason:
        terminal.print(f"Nothing over all families: {reason}.")
    if out is not None:
        terminal.print(f"Wrote {out / 'report.md'} and its pictures")


def _evaluated(agent: Saved) -> Run | Report:
    """Return the run, or the evaluation of a shared agent."""
    if isinstance(agent, SavedRun):
        return agent.run
    if isinstance(agent, SavedModel):
        raise ValueError(f"{agent.path}: of a zip, give the file that `hyperrl evaluate {agent.path}` writes")
    from hyperrl.evaluation.report import Report

    path = agent.beside("evaluation.json")
    if not path.is_file():
        raise ValueError(f"{agent.path} has not been evaluated: run `hyperrl evaluate {agent.path}` first")
    return Report.load_of(path, agent.shared.config.result.model, agent.path).of(agent.training)


def _print_comparison(comparison: Comparison) -> None:
    rows = comparison.rows
    title = comparison.family.name + ("" if comparison.steps is None else f", {comparison.steps:,} steps")
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
    terminal = console()
    for table in (returns, scores) if any(row.scored for row in rows) else (returns,):
        for column in table.columns[1:]:  # an agent's name may wrap, numbers may not
            column.no_wrap = True
        terminal.print(table)
    one = any(row.seeds == 1 for row in rows)
    parameters = {row.agent: row.parameters for row in rows if row.parameters is not None}
    if parameters:
        terminal.print("Parameters: " + ", ".join(f"{agent} {n:,}" for agent, n in parameters.items()))
    terminal.print(f"IQM: interquartile mean over contexts. Interval: 95 %, over {'episodes' if one else 'seeds'}.")


def _print_pooled(pooled: PooledComparison) -> None:
    title = f"{', '.join(pooled.families)} together: score"
    table = Table("agent", "split", "IQM [95 % interval]", "optimality gap", title=title)
    previous = None
    for row in pooled.rows:
        if previous not in (None, row.agent):
            table.add_section()
        table.add_row("" if previous == row.agent else row.agent, row.split, str(row.score), str(row.gap))
        previous = row.agent
    for column in table.columns[1:]:
        column.no_wrap = True
    terminal = console()
    terminal.print(table)
    for i in pooled.improvements:
        terminal.print(f"{i.first} better than {i.second}, {i.split}: {i.probability}")
    if pooled.left_out:
        terminal.print(f"Left out, since not on every family: {', '.join(pooled.left_out)}")
