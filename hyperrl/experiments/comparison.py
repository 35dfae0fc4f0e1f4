"""Comparison: the evaluations of several agents side by side, on one family or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.contexts import Vector
from hyperrl.evaluation.pooling import pooled_gap, pooled_improvement, pooled_iqm, pooled_profile
from hyperrl.evaluation.reference import find_reference, known_scores
from hyperrl.evaluation.report import Plane, Report, Settings
from hyperrl.evaluation.statistics import Estimate, estimate_gap, estimate_improvement, estimate_iqm, estimate_mean
from hyperrl.families.family import Family, load_family
from hyperrl.training.record import Training, distinguish
from hyperrl.training.run import Run
from hyperrl.utils.records import plain

CURVE_POINTS = 60


@dataclass(frozen=True)
class Row:
    """One agent on one split.

    :param seeds: how many trainings of the agent there are.
    :param parameters: how many parameters its networks have, where that is known.
    :param mean: mean return over seeds, contexts and episodes.
    :param iqm: interquartile mean over seeds and contexts; see :func:`~hyperrl.evaluation.statistics.estimate_iqm`.
    :param score: interquartile mean of the scores, over the contexts that have a reference.
    :param gap: optimality gap of those scores.
    :param scored: how many contexts have a reference.
    """

    agent: str
    split: str
    seeds: int
    parameters: int | None
    mean: float
    iqm: Estimate
    score: Estimate | None
    gap: Estimate | None
    scored: int


@dataclass(frozen=True)
class Improvement:
    """How probably the first of two agents is better than the second on a split."""

    first: str
    second: str
    split: str
    probability: Estimate


@dataclass(frozen=True)
class ComparisonRecord:
    """What ``comparison.json`` says of agents on one family."""

    SCHEMA: ClassVar[str] = "comparison-1"

    family: str
    steps: int | None
    settings: Settings | None
    rows: tuple[Row, ...]
    improvements: tuple[Improvement, ...]


@dataclass(frozen=True)
class PooledRow:
    """One agent on one split of all families.

    :param seeds: how many trainings of the agent there are on each family.
    :param score: interquartile mean of its scores.
    :param gap: optimality gap.
    """

    agent: str
    split: str
    seeds: tuple[int, ...]
    score: Estimate
    gap: Estimate


@dataclass(frozen=True)
class PooledRecord:
    """What ``comparison.json`` says of agents over several families."""

    SCHEMA: ClassVar[str] = "pooled-comparison-1"

    families: tuple[str, ...]
    rows: tuple[PooledRow, ...]
    improvements: tuple[Improvement, ...]


@dataclass(frozen=True)
class Entry:
    """One evaluated training.

    :param where: where it is from, for messages.
    :param report: its evaluation, which names agent and seed.
    :param run: its run folder, if it has one.
    """

    where: str
    report: Report
    run: Run | None

    @classmethod
    def of(cls, source: Run | Report) -> Entry:
        """Read the evaluation of a run, or take a report as it is.

        :raises ValueError: where a run has no evaluation or that of another model, and for a report that names no agent
            or no seed.
        """
        if isinstance(source, Report):
            if source.agent is None or source.seed is None:
                raise ValueError(
                    f"a report to be compared must name its agent and the seed of its training, got agent="
                    f"{source.agent!r}, seed={source.seed!r}: dataclasses.replace(report, agent='mine', seed=0), or "
                    '"agent" and "seed" in the file'
                )
            return cls(f"the report of {source.agent}, seed {source.seed}", source, None)
        if not source.evaluation_path.is_file():
            raise ValueError(f"{source.path} has not been evaluated: run `hyperrl evaluate {source.path}` first")
        report = Report.load_of(source.evaluation_path, source.result.model, source.path / "model.zip")
        training = source.training
        return cls(str(source.path), report.of(training), source)

    @property
    def agent_digest(self) -> str:
        """What tells its agent from others: what was trained where that is known, else the agent's name."""
        training = self.report.training
        return f"report of {self.report.agent}" if training is None else training.agent_digest

    @property
    def curve(self) -> tuple[Vector, Vector]:
        """Environment steps and mean returns of the training, two arrays of one shape; empty where it is not known."""
        if self.report.curve is not None:
            return self.report.curve.steps, self.report.curve.returns
        return (np.empty(0), np.empty(0)) if self.run is None else self.run.learning_curve()

    @property
    def definition(self) -> str | None:
        """The digest of the family's definition, where it is known."""
        training = self.report.training
        return self.report.definition if training is None else training.definition


class Comparison:
    """Agents on one family, in the order given. Trainings that differ in nothing but the seed are of one agent.

    Agents of one name that were trained otherwise, by another recipe, in other contexts or with irrelevant features,
    are told apart by their labels.

    :param sources: evaluated runs, and reports of agents that have no run folder, evaluated alike.
    :param reference: file of a reference, for scores; that beside the family's file by default, if there is one.
    :raises ValueError: where a run has no evaluation, or that of another model; where they differ in family, steps or
        in how they were evaluated; and for two trainings of one agent with the same seed.

    >>> from hyperrl.evaluation import Report, Split
    >>> split = Split(np.array([[1.0, 2.0]]), np.array([[90.0, 110.0]]))
    >>> report = Report("ode", {"train": split}, agent="mine", seed=0)
    >>> print(Comparison([report]).rows[0].mean)
    100.0
    """

    def __init__(self, sources: Sequence[Run | Report], reference: str | Path | None = None) -> None:
        if not sources:
            raise ValueError("expected at least one run to compare")
        entries = [Entry.of(source) for source in sources]
        first = entries[0]
        groups: dict[str, list[Entry]] = {}
        for entry in entries:
            _refuse_mismatch(entry, first)
            group = groups.setdefault(entry.agent_digest, [])
            for other in group:
                if other.report.seed == entry.report.seed:
                    raise ValueError(
                        f"{entry.where} is a second run of {entry.report.agent} with seed {entry.report.seed}, beside "
                        f"{other.where}"
                    )
            group.append(entry)
        self.labels = _labels(groups)
        """The label of each agent by its digest."""
        self.entries = {self.labels[digest]: group for digest, group in groups.items()}
        """The trainings of each agent by its label."""
        self.family = _family(entries)
        self.steps = next((e.report.training.steps for e in entries if e.report.training is not None), None)
        self.reference = find_reference(self.family, reference)
        self.settings = next((e.report.settings for e in entries if e.report.settings is not None), None)
        self.splits = list(first.report.splits)
        self.is_scored = all(
            known_scores(self.reference, split.contexts, split.returns).shape == split.returns.shape
            for split in first.report.splits.values()
        )
        """Whether every context has a reference."""

    @property
    def agents(self) -> list[str]:
        """The labels of the agents."""
        return list(self.entries)

    @cached_property
    def reports(self) -> dict[str, list[Report]]:
        """The evaluations of each agent."""
        return {agent: [entry.report for entry in group] for agent, group in self.entries.items()}

    def returns(self, agent: str, split: str) -> Vector:
        """Return the returns of an agent's trainings, shape ``(seeds, contexts, episodes)``."""
        return np.array([report.splits[split].returns for report in self.reports[agent]])

    def scores(self, agent: str, split: str) -> Vector:
        """Return the scores in the ``k`` contexts that have a reference, shape ``(seeds, k, episodes)``."""
        return known_scores(self.reference, self.reports[agent][0].splits[split].contexts, self.returns(agent, split))

    def values(self, agent: str, split: str) -> Vector:
        """Return the scores where every context has a reference, else the returns; shape as :meth:`returns`."""
        return self.scores(agent, split) if self.is_scored else self.returns(agent, split)

    @cached_property
    def rows(self) -> list[Row]:
        """The table: each agent on each split."""
        rows = []
        for agent, reports in self.reports.items():
            model = reports[0].model
            for split in self.splits:
                returns, scores = self.returns(agent, split), self.scores(agent, split)
                score, gap = (estimate_iqm(scores), estimate_gap(scores)) if scores.size else (None, None)
                mean, iqm = float(returns.mean()), estimate_iqm(returns)
                parameters = None if model is None else model.parameters
                rows.append(Row(agent, split, len(reports), parameters, mean, iqm, score, gap, scores.shape[1]))
        return rows

    @cached_property
    def improvements(self) -> list[Improvement]:
        """For each pair of agents and each split, how probably the first one is better."""
        return [
            Improvement(a, b, split, estimate_improvement(self.returns(a, split), self.returns(b, split)))
            for a, b in combinations(self.agents, 2)
            for split in self.splits
        ]

    @property
    def record(self) -> ComparisonRecord:
        """The numbers of the tables."""
        return ComparisonRecord(self.family.name, self.steps, self.settings, tuple(self.rows), tuple(self.improvements))

    @property
    def curves(self) -> dict[str, tuple[Vector, Vector]]:
        """For each agent that logged them: steps ``(points,)`` and mean return with its interval ``(3, points)``."""
        curves = {}
        for agent, group in self.entries.items():
            logged = [entry.curve for entry in group]
            if all(len(steps) for steps, _ in logged):
                start, end = max(steps[0] for steps, _ in logged), min(steps[-1] for steps, _ in logged)
                grid = np.linspace(start, end, CURVE_POINTS)
                seeds = np.array([np.interp(grid, steps, returns) for steps, returns in logged])
                curves[agent] = grid, estimate_mean(seeds[:, :, None])
        return curves

    @property
    def planes(self) -> dict[str, list[Plane]]:
        """The planes of each agent's trainings, of those that were evaluated on them."""
        planes = {agent: [r.plane for r in reports if r.plane is not None] for agent, reports in self.reports.items()}
        return {agent: group for agent, group in planes.items() if len(group) == len(self.reports[agent])}

    @property
    def sensitivity(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For each feature and each agent: its values ``(k,)`` and the mean return with its interval ``(3, k)``."""
        return {
            feature: {
                agent: (
                    reports[0].sensitivity[feature].values,
                    estimate_mean([report.sensitivity[feature].returns[:, 0] for report in reports]),
                )
                for agent, reports in self.reports.items()
                if all(feature in report.sensitivity for report in reports)
            }
            for feature in self._keys("sensitivity")
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
                            estimate_iqm([report.perturbations[kind].returns[level] for report in reports])
                            for level in range(len(reports[0].perturbations[kind].values))
                        ]
                    ).T,
                )
                for agent, reports in self.reports.items()
                if all(kind in report.perturbations for report in reports)
            }
            for kind in self._keys("perturbations")
        }

    @property
    def after_switch(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For an episode's first context and the later ones, on each split, and for each agent: the steps in it
        ``(k,)`` and the mean reward of each with its interval ``(3, k)``; of a single seed, over contexts.
        """
        return {
            f"{split}, {title}": {
                agent: (np.arange(1.0, len(lines[0].T) + 1), estimate_mean(np.transpose(lines, (0, 2, 1))))
                for agent, reports in self.reports.items()
                if (lines := [getattr(r.after_switch[split], name) for r in reports if split in r.after_switch])
                and len(lines) == len(reports)
            }
            for name, title in (("first", "first context"), ("later", "later contexts"))
            for split in self._keys("after_switch")
        }

    @property
    def by_irrelevant(self) -> dict[str, dict[str, tuple[Vector, Vector]]]:
        """For each split and each agent: numbers of irrelevant features ``(k,)``, and the IQM with its interval.

        Scores where every context has a reference, else returns; nothing where all runs have as many.
        """
        trainings = {agent: t for agent, reports in self.reports.items() if (t := reports[0].training) is not None}
        if len({training.irrelevant for training in trainings.values()}) < 2:
            return {}
        without = {agent: replace(training, irrelevant=0) for agent, training in trainings.items()}
        labels = distinguish({training.agent_digest: training for training in without.values()})
        lines: dict[str, dict[str, tuple[Vector, Vector]]] = {split: {} for split in self.splits}
        for split, agents in lines.items():
            for digest, label in labels.items():
                alike = sorted((trainings[a].irrelevant, a) for a, t in without.items() if t.agent_digest == digest)
                estimates = [estimate_iqm(self.values(agent, split)) for _, agent in alike]
                agents[label] = np.array([n for n, _ in alike], dtype=np.float64), np.array(estimates).T
        return lines

    def _keys(self, name: str) -> list[str]:
        """Name what some report has a series of."""
        reports = [report for group in self.reports.values() for report in group]
        return list(dict.fromkeys(key for report in reports for key in getattr(report, name)))


class PooledComparison:
    """Agents over several families, by their scores. Each family counts as much as another.

    Statistics are those of Agarwal et al. (2021), families being the tasks: the scores of all families are pooled, and
    each resample draws seeds family by family.

    :param comparisons: one a family; agents that are not in all of them are left out.
    :raises ValueError: where there are less than two, they have no agent or no split in common, or one has no scores.
    """

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        if len(comparisons) < 2:
            raise ValueError(f"expected comparisons on at least two families, got {len(comparisons)}")
        self.comparisons = list(comparisons)
        self.families = [comparison.family.name for comparison in comparisons]
        first = comparisons[0]
        self.splits = [split for split in first.splits if all(split in c.splits for c in comparisons)]
        common = [digest for digest in first.labels if all(digest in c.labels for c in comparisons)]
        if not common or not self.splits:
            every = "; ".join(f"{c.family.name}: {', '.join(c.agents)} on {', '.join(c.splits)}" for c in comparisons)
            raise ValueError(f"expected an agent that was evaluated on the same split of every family, got {every}")
        for comparison in comparisons:
            for split in self.splits:
                if not comparison.scores(comparison.agents[0], split).size:
                    name = comparison.family.name
                    raise ValueError(
                        f"figures over several families are of scores, and {name} has no reference in its contexts of "
                        f"{split}: see `hyperrl reference {name}`"
                    )
        self.labels = _labels({digest: first.entries[first.labels[digest]] for digest in common})
        self.left_out = sorted(
            {label for c in comparisons for digest, label in c.labels.items() if digest not in self.labels}
        )
        """The labels of agents that are not on every family."""
        self._digests = {label: digest for digest, label in self.labels.items()}

    @property
    def agents(self) -> list[str]:
        """The labels of the agents."""
        return list(self._digests)

    def scores(self, agent: str, split: str) -> list[Vector]:
        """Return an agent's scores on each family, each of shape ``(seeds, contexts, episodes)``."""
        return [c.scores(c.labels[self._digests[agent]], split) for c in self.comparisons]

    @cached_property
    def rows(self) -> list[PooledRow]:
        """The table: each agent on each split."""
        return [
            PooledRow(agent, split, tuple(map(len, scores)), pooled_iqm(scores), pooled_gap(scores))
            for agent in self.agents
            for split in self.splits
            for scores in [self.scores(agent, split)]
        ]

    @cached_property
    def improvements(self) -> list[Improvement]:
        """For each pair of agents and each split, how probably the first one is better, the mean over families."""
        return [
            Improvement(a, b, split, pooled_improvement(self.scores(a, split), self.scores(b, split)))
            for a, b in combinations(self.agents, 2)
            for split in self.splits
        ]

    def profiles(self, thresholds: ArrayLike) -> dict[str, dict[str, Vector]]:
        """Return by split and agent the fraction of scores above each threshold, with its interval, ``(3, t)``."""
        return {
            split: {agent: pooled_profile(self.scores(agent, split), thresholds) for agent in self.agents}
            for split in self.splits
        }

    @property
    def record(self) -> PooledRecord:
        """The numbers of the tables."""
        return PooledRecord(tuple(self.families), tuple(self.rows), tuple(self.improvements))


def compare_by_family(sources: Sequence[Run | Report], reference: str | Path | None = None) -> list[Comparison]:
    """Compare agents on each family that they were trained on; see :class:`Comparison` and :class:`PooledComparison`.

    :raises ValueError: as :class:`Comparison` does; for two definitions of one family; and for a reference, which is of
        one family, where there are several.
    """
    groups: dict[str, list[Run | Report]] = {}
    for source in sources:
        groups.setdefault(source.training.family if isinstance(source, Run) else source.family, []).append(source)
    if reference is not None and len(groups) > 1:
        raise ValueError(f"{reference} is the reference of one family, and there are runs of {', '.join(groups)}")
    if not groups:
        return [Comparison([], reference)]
    return [Comparison(group, reference) for group in groups.values()]


def _refuse_mismatch(entry: Entry, first: Entry) -> None:
    """Refuse to compare what was not made alike, as far as that is known, and name the difference."""

    def facts(of: Entry) -> dict[str, object]:
        report, settings = of.report, of.report.settings
        return {
            "family": report.family,
            "definition of the family": of.definition,
            "steps": None if report.training is None else report.training.steps,
            "splits": list(report.splits),
            **({} if settings is None else plain(settings)),
        }

    this, that = facts(entry), facts(first)
    beginning = "runs must agree in family, steps and evaluation to be compared, and differ in"
    for what, value in this.items():
        other = that.get(what)
        if None not in (value, other) and value != other:
            raise ValueError(f"{beginning} {what}: {entry.where} has {value}, {first.where} has {other}")
    for name, split in entry.report.splits.items():
        other = first.report.splits[name]
        if split.returns.shape != other.returns.shape:
            raise ValueError(
                f"{beginning} the numbers of contexts and episodes of {name}: {entry.where} has {split.returns.shape}, "
                f"{first.where} has {other.returns.shape}"
            )
        relevant = min(split.contexts.shape[1], other.contexts.shape[1])
        if not np.allclose(split.contexts[:, :relevant], other.contexts[:, :relevant], rtol=1e-9):
            raise ValueError(f"{beginning} the contexts of {name}: {entry.where} has other ones than {first.where}")


def _labels(groups: dict[str, list[Entry]]) -> dict[str, str]:
    """Give each agent a label of its own, by digest."""
    trainings: dict[str, Training] = {
        digest: training for digest, group in groups.items() if (training := group[0].report.training) is not None
    }
    labels = distinguish(trainings)
    for digest, group in groups.items():
        if digest not in labels:
            name = str(group[0].report.agent)
            labels[digest] = f"{name} (report)" if name in labels.values() else name
    return {digest: labels[digest] for digest in groups}


def _family(entries: Sequence[Entry]) -> Family:
    """Load the family, with no irrelevant features: from a run folder where there is one, else by its name."""
    for entry in entries:
        if entry.run is not None:
            return entry.run.family.with_irrelevant(0)
    family = load_family(entries[0].report.family)
    definition = entries[0].definition
    if definition not in (None, family.digest):
        raise ValueError(f"{entries[0].where} was made on another definition of {family.name} than {family.place}")
    return family
