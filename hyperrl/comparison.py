"""Comparison: the evaluations of several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hyperrl.evaluation import Report
from hyperrl.files import write_text
from hyperrl.runs import Run
from hyperrl.statistics import Estimate, bootstrap_iqm


@dataclass(frozen=True)
class Row:
    """One agent on one split.

    :param seeds: how many runs of the agent there are.
    :param parameters: how many parameters its networks have.
    :param mean: mean return over seeds, contexts and episodes.
    :param iqm: interquartile mean over seeds and contexts; see :func:`~hyperrl.statistics.bootstrap_iqm`.
    """

    agent: str
    split: str
    seeds: int
    parameters: int
    mean: float
    iqm: Estimate


class Comparison:
    """Runs of one family, grouped by agent in the order given.

    :param runs: evaluated runs, evaluated alike.
    :raises ValueError: where a run has no evaluation, or they differ in family or in how they were evaluated.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        if not runs:
            raise ValueError("expected at least one run to compare")
        self.runs: dict[str, list[Run]] = {}
        self.reports: dict[str, list[Report]] = {}
        reference = None
        for run in runs:
            if not run.evaluation_path.is_file():
                raise ValueError(f"{run.path} has not been evaluated: run `hyperrl evaluate {run.path}` first")
            report = Report.load(run.evaluation_path)
            name = run.record["agent"]
            settings = (report.family, report.settings, run.record["steps"], list(report.splits))
            if reference is None:
                reference = (settings, run.path)
            elif settings != reference[0]:
                raise ValueError(
                    f"runs must agree in family, evaluation and steps to be compared: {run.path} has {settings}, "
                    f"{reference[1]} has {reference[0]}"
                )
            seeds = {other.record["seed"] for other in self.runs.get(name, [])}
            if run.record["seed"] in seeds:
                raise ValueError(f"{run.path} is a second run of {name} with seed {run.record['seed']}")
            self.runs.setdefault(name, []).append(run)
            self.reports.setdefault(name, []).append(report)
        self.family = runs[0].family
        self.steps = runs[0].record["steps"]

    @property
    def rows(self) -> list[Row]:
        """The table: each agent on each split."""
        rows = []
        for agent, reports in self.reports.items():
            parameters = self.runs[agent][0].record["parameters"]
            for split in reports[0].splits:
                returns = np.array([report.splits[split].returns for report in reports])
                rows.append(Row(agent, split, len(reports), parameters, float(returns.mean()), bootstrap_iqm(returns)))
        return rows

    def save(self, out: str | Path) -> None:
        """Write ``comparison.json`` and, where planes were evaluated, ``comparison.png`` to a new folder."""
        out = Path(out)
        if out.exists():
            raise ValueError(f"{out} exists already and is never overwritten: choose another folder, or remove it")
        out.mkdir(parents=True)
        rows = [asdict(row) | {"iqm": row.iqm._asdict()} for row in self.rows]
        write_text(
            out / "comparison.json",
            json.dumps({"family": self.family.name, "steps": self.steps, "rows": rows}, indent=1),
        )
        planes = {agent: [r.plane for r in reports if r.plane is not None] for agent, reports in self.reports.items()}
        if all(planes.values()):
            from hyperrl import plots

            figure = plots.plot_planes(planes, self.family.context_space, self.family.name)
            plots.save(figure, out / "comparison.png")
