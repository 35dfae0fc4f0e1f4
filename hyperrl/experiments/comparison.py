"""Comparison: the evaluations of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from hyperrl.contexts import Vector
from hyperrl.evaluation.reference import find_reference, known_scores
from hyperrl.evaluation.report import Plane, Report
from hyperrl.evaluation.statistics import Estimate, bootstrap_gap, bootstrap_improvement, bootstrap_iqm, bootstrap_mean
from hyperrl.training.run import Run

CURVE_POINTS = 60


@dataclass(frozen=True)
class Row:
    """One agent on one split.

    :param seeds: how many runs of the agent there are.
    :param parameters: how many parameters its networks have.
    :param mean: mean return over seeds, contexts and episodes.
    :param iqm: interquartile mean over seeds and contexts; see :func:`~hyperrl.evaluation.statistics.bootstrap_iqm`.
    :param score: interquartile mean of the scores, over the contexts that have a reference.
    :param gap: optimality gap of those scores.
    :param scored: how many contexts have a reference.
    """

    agent: str
    split: str
    seeds: int
    parameters: int
    mean: float
    iqm: Estimate
    score: Estimate | None
    gap: Estimate | None
    scored: int


class Comparison:
    """Runs of one family, grouped in the order given by agent and number of irrelevant features.

    :param runs: evaluated runs, evaluated alike.
    :param reference: file of a reference, for scores; that beside the family's file by default, if there is one.
    :raises ValueError: where a run has no evaluation, or they differ in family or in how they were evaluated.
    """

    def __init__(self, runs: Sequence[Run], reference: str | Path | None = None) -> None:
        if not runs:
            raise ValueError("expected at least one run to compare")
        self.runs: dict[str, list[Run]] = {}
        self.reports: dict[str, list[Report]] = {}
        expected = None
        for run in runs:
            if not run.evaluation_path.is_file():
                raise ValueError(f"{run.path} has not been evaluated: run `hyperrl evaluate {run.path}` first")
            report = Report.load(run.evaluation_path)
            irrelevant: int = run.record.get("irrelevant", 0)
            name = run.record["agent"] + (f" +{irrelevant} irrelevant" if irrelevant else "")
            settings = {
                "family": report.family,
                "definition of the family": report.provenance["definition"],
                "steps": run.record["steps"],
                "splits": list(report.splits),
                **report.settings,
            }
            expected = expected or (settings, run.path)
            for what in settings | expected[0]:
                this, first = settings.get(what), expected[0].get(what)
                if this != first:
                    raise ValueError(
                        f"runs must agree in family, steps and evaluation to be compared, and differ in {what}: "
                        f"{run.path} has {this}, {expected[1]} has {first}"
                    )
            seeds = {other.record["seed"] for other in self.runs.get(name, [])}
            if run.record["seed"] in seeds:
                raise ValueError(f"{run.path} is a second run of {name} with seed {run.record['seed']}")
            self.runs.setdefault(name, []).append(run)
            self.reports.setdefault(name, []).append(report)
        self.family = runs[0].family
        self.steps: int = runs[0].record["steps"]
        self.reference = find_reference(self.family, reference)
        first = next(iter(self.reports.values()))[0]
        self.settings = first.settings
        self.splits = list(first.splits)
        self.perturbations = list(first.perturbations)
        self.is_scored = all(
            known_scores(self.reference, split.contexts, split.returns).shape == split.returns.shape
            for split in first.splits.values()
        )
        """Whether every context has a reference."""

    def returns(self, agent: str, split: str) -> Vector:
        """Return the returns of an agent's runs, shape ``(seeds, contexts, episodes)``."""
        return np.array([report.splits[split].returns for report in self.reports[agent]])

    def values(self, agent: str, split: str) -> Vector:
        """Return the scores where every context has a reference, else the returns; shape as :meth:`returns`."""
        contexts = self.reports[agent][0].splits[split].contexts
        returns = self.returns(agent, split)
        return known_scores(self.reference, contexts, returns) if self.is_scored else returns

    @property
    def rows(self) -> list[Row]:
        """The table: each agent on each split."""
        rows = []
        for agent, reports in self.reports.items():
            parameters = self.runs[agent][0].record["parameters"]
            for split in self.splits:
                returns = self.returns(agent, split)
                scores = known_scores(self.reference, reports[0].splits[split].contexts, returns)
                score, gap = (bootstrap_iqm(scores), bootstrap_gap(scores)) if scores.size else (None, None)
                mean, iqm = float(returns.mean()), bootstrap_iqm(returns)
                rows.append(Row(agent, split, len(reports), parameters, mean, iqm, score, gap, scores.shape[1]))
        return rows

    @property
    def improvements(self) -> dict[tuple[str, str, str], Estimate]:
        """For each pair of agents and each split, how probably the first one is better."""
        return {
            (first, second, split): bootstrap_improvement(self.returns(first, split), self.returns(second, split))
            for first, second in combinations(self.reports, 2)
            for split in self.splits
        }

    @property
    def curves(self) -> dict[str, tuple[Vector, Vector]]:
        """For each agent that logged them: steps ``(points,)`` and mean return with its interval ``(3, points)``."""
        curves = {}
        for agent, runs in self.runs.items():
            logged = [run.learning_curve() for run in runs]
            if all(len(steps) for steps, _ in logged):
                start, end = max(steps[0] for steps, _ in logged), min(steps[-1] for steps, _ in logged)
                grid = np.linspace(start, end, CURVE_POINTS)
                seeds = np.array([np.interp(grid, steps, returns) for steps, returns in logged])
                curves[agent] = grid, bootstrap_mean(seeds[:, :, None])
        return curves

    @property
    def planes(self) -> dict[str, list[Plane]]:
        """The planes of each agent's runs; nothing where they were not evaluated."""
        planes = {agent: [r.plane for r in reports if r.plane is not None] for agent, reports in self.reports.items()}
        return planes if all(planes.values()) else {}

    @property
    def sensitivity(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For each feature and each agent: its values ``(k,)`` and the mean return with its interval ``(3, k)``."""
        features = list(next(iter(self.reports.values()))[0].sensitivity)
        return {
            feature: {
                agent: (
                    reports[0].sensitivity[feature].values,
                    bootstrap_mean([report.sensitivity[feature].returns[:, 0] for report in reports]),
                )
                for agent, reports in self.reports.items()
            }
            for feature in features
        }

    @property
    def perturbed(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For each kind of perturbation and agent: levels ``(k,)``, and the IQM of the returns with its interval."""
        return {
            kind: {
                agent: (
                    reports[0].perturbations[kind].values,
                    np.array(
                        [
                            bootstrap_iqm([report.perturbations[kind].returns[level] for report in reports])
                            for level in range(len(reports[0].perturbations[kind].values))
                        ]
                    ).T,
                )
                for agent, reports in self.reports.items()
            }
            for kind in self.perturbations
        }

    @property
    def by_irrelevant(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For each split and each recipe: numbers of irrelevant features ``(k,)``, and the IQM with its interval.

        Scores where every context has a reference, else returns; nothing where all runs have as many.
        """
        groups = {
            name: (runs[0].record["agent"], runs[0].record.get("irrelevant", 0)) for name, runs in self.runs.items()
        }
        if len({n for _, n in groups.values()}) < 2:
            return {}
        lines: dict[str, dict[str, tuple[Vector, Vector]]] = {split: {} for split in self.splits}
        for split, agents in lines.items():
            for agent in dict.fromkeys(agent for agent, _ in groups.values()):
                names = sorted((n, name) for name, (recipe, n) in groups.items() if recipe == agent)
                estimates = [bootstrap_iqm(self.values(name, split)) for _, name in names]
                agents[agent] = np.array([n for n, _ in names], dtype=np.float64), np.array(estimates).T
        return lines
