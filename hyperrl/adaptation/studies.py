"""Adaptation studies: every agent by every method in the same unseen contexts, with several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.adaptation.methods import LEARNING, NEED_CONTEXT, OF_MODELS, Curve, adapt, check_method
from hyperrl.contexts import Vector
from hyperrl.evaluation.statistics import Estimate, estimate_iqm, estimate_mean, estimate_median
from hyperrl.families.family import Family
from hyperrl.inference.agent import InferringAgent
from hyperrl.rollouts.episodes import random_returns, time_limit
from hyperrl.training.record import Training
from hyperrl.utils.provenance import ModelDescription, describe_model, versions
from hyperrl.utils.records import read, write

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.adaptation.dynamics import Dynamics
    from hyperrl.evaluation.reference import Reference


@dataclass(frozen=True)
class Line:
    """One agent by one method.

    :param agent: its name.
    :param method: see :func:`hyperrl.adapt`.
    :param results: by training, seed of adaptation and context.
    """

    agent: str
    method: str
    results: tuple[tuple[tuple[Curve, ...], ...], ...]

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        return f"{self.agent}, {self.method}"

    @property
    def returns(self) -> Vector:
        """Returns when measured, shape ``(trainings, seeds, contexts, k, evaluations)``."""
        return np.array([[[result.returns for result in row] for row in rows] for rows in self.results])

    @property
    def episode_returns(self) -> Vector:
        """Returns of the episodes played to adapt, shape ``(trainings, seeds, contexts, episodes)``."""
        return np.array([[[result.episode_returns for result in row] for row in rows] for rows in self.results])

    @property
    def first_episode(self) -> tuple[Vector, Vector] | None:
        """Steps ``(k,)``, and the mean return up to each before any adaptation with its interval ``(3, k)``.

        ``None`` where it was not measured.
        """
        curves = [result.first_returns for rows in self.results for row in rows for result in row]
        known = [curve for curve in curves if curve is not None]
        if len(known) < len(curves):
            return None
        longest = max(map(len, known))
        steps = np.unique(np.geomspace(1, longest, 40).round().astype(int))
        padded = np.array([np.pad(curve, (0, longest - len(curve)), "edge")[steps - 1] for curve in known])
        by_training = padded.reshape(len(self.results), -1, len(steps)).swapaxes(1, 2)  # (trainings, k, others)
        return steps.astype(np.float64), estimate_mean(by_training)

    def reached(self, targets: Vector) -> tuple[Estimate, Estimate]:
        """Return the median episodes and steps to a target for each context ``(n,)``, infinite where most fail."""
        never = (np.inf, np.inf)
        reached = [
            [[result.reached(t) or never for result, t in zip(row, targets, strict=True)] for row in rows]
            for rows in self.results
        ]
        episodes, steps = np.moveaxis(np.array(reached, dtype=np.float64), -1, 0)  # each (trainings, seeds, contexts)
        return estimate_median(_by_seed(episodes[..., None])), estimate_median(_by_seed(steps[..., None]))


@dataclass(frozen=True)
class StudySettings:
    """The arguments of :func:`study`, which says what they are.

    :param learnt_dynamics: whether ``identify`` used a learnt model of the dynamics.
    """

    methods: tuple[str, ...]
    episodes: int
    seeds: int
    evaluations: int
    proximal: float = 0.0
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    learnt_dynamics: bool = False


@dataclass(frozen=True)
class Study:
    """What :func:`study` measured, and how.

    :param family: name of the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param after: numbers of episodes after which agents were measured, shape ``(k,)``.
    :param lines: the results.
    :param random: mean return of random actions in each context, shape ``(n,)``; ``None`` without a reference in each.
    :param best: that of a specialist, or the optimum.
    :param definition: digest of the family's definition.
    :param irrelevant: how many features were appended that do nothing.
    :param settings: the arguments of :func:`study`.
    :param models: which models they were, by agent.
    :param trainings: how they were trained, by agent, where ``hyperrl train`` did that.
    :param versions: of the libraries.
    """

    SCHEMA: ClassVar[str] = "adaptation-1"

    family: str
    contexts: Vector
    after: NDArray[np.int64]
    lines: tuple[Line, ...]
    random: Vector | None = None
    best: Vector | None = None
    definition: str | None = None
    irrelevant: int = 0
    settings: StudySettings | None = None
    models: Mapping[str, tuple[ModelDescription, ...]] = field(default_factory=dict)
    trainings: Mapping[str, tuple[Training, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_scored(self) -> bool:
        """Whether random and best returns are known in every context."""
        return self.best is not None

    @cached_property
    def curves(self) -> dict[str, list[Estimate]]:
        """By label: the interquartile mean over trainings and contexts at each measurement.

        Of scores, 0 for random and 1 for the best, where those are known; else of returns. Intervals are over
        trainings; with a single one, over the seeds of adaptation.
        """
        curves = {}
        for line in self.lines:
            values = np.moveaxis(line.returns, 3, 0)  # (k, trainings, seeds, contexts, evaluations)
            if self.random is not None and self.best is not None:
                values = (values - self.random[:, None]) / (self.best - self.random)[:, None]
            curves[line.label] = [estimate_iqm(_by_seed(measured)) for measured in values]
        return curves

    @property
    def targets(self) -> Vector | None:
        """Nine tenths of the way from random to the specialist in each context, shape ``(n,)``."""
        return None if self.random is None or self.best is None else self.random + 0.9 * (self.best - self.random)

    def save(self, path: str | Path) -> None:
        """Write everything to one JSON file, whole or not at all."""
        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read a study that :meth:`save` wrote.

        :raises ValueError: where the file is damaged, no study, or of another schema.
        """
        return read(cls, path)


def study(
    agents: Mapping[str, Sequence[BaseAlgorithm | InferringAgent]],
    family: Family,
    contexts: ArrayLike,
    methods: Sequence[str] = OF_MODELS,
    episodes: int = 20,
    seeds: int = 3,
    evaluations: int = 10,
    hyperparameters: Mapping[str, Any] | None = None,
    proximal: float = 0.0,
    dynamics: Dynamics | None = None,
    reference: Reference | None = None,
    progress: bool = False,
) -> Study:
    """Let agents adapt to contexts that they have not seen.

    Every agent by every method meets the same initial states. ``scratch`` is for the first agent only: it makes no use
    of what was learnt.

    :param agents: models by name, one or more trainings of each.
    :param family: the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param methods: see :func:`hyperrl.adapt`, for this and for what is not said here.
    :param seeds: how often each training adapts to each context.
    :param reference: random and best returns; where the family knows its optimum, none is needed.
    :param progress: show a progress bar.
    :raises ValueError: for unknown methods, and as :func:`hyperrl.adapt` does.
    """
    from tqdm import tqdm

    for method in methods:
        check_method(method)
    if seeds < 1:
        raise ValueError(f"expected at least one seed, got seeds={seeds}")
    time_limit(family)
    points = family.context_space.matrix(contexts)
    pairs = [(a, m) for m in methods for i, a in enumerate(agents) if i == 0 or m != "scratch"]
    lines: list[Line] = []
    with tqdm(total=sum(len(agents[a]) for a, _ in pairs) * seeds * len(points), disable=not progress) as bar:
        for agent, method in pairs:
            results: list[tuple[tuple[Curve, ...], ...]] = []
            for model in agents[agent]:
                by_seed: list[tuple[Curve, ...]] = []
                for seed in range(seeds):
                    curves: list[Curve] = []
                    for point in points:
                        bar.set_description(f"{agent}, {method}")
                        env, eval_env = (family.vec_env(n, contexts=point[None]) for n in (1, evaluations))
                        adapted = adapt(
                            model,
                            env,
                            method,
                            episodes,
                            context=point if method in NEED_CONTEXT else None,
                            eval_env=eval_env,
                            evaluations=evaluations,
                            seed=seed,
                            hyperparameters=hyperparameters if method in LEARNING else None,
                            proximal=proximal if method == "finetune" else 0.0,
                            dynamics=dynamics if method == "identify" else None,
                        )
                        curves.append(adapted.curve)
                        bar.update()
                    by_seed.append(tuple(curves))
                results.append(tuple(by_seed))
            lines.append(Line(agent, method, tuple(results)))
    random, best = _reference(family, points, reference)
    settings = StudySettings(
        tuple(methods), episodes, seeds, evaluations, proximal, dict(hyperparameters or {}), dynamics is not None
    )
    return Study(
        family.name,
        points,
        lines[0].results[0][0][0].after,
        tuple(lines),
        random,
        best,
        family.digest,
        family.irrelevant,
        settings,
        {name: tuple(map(_described, models)) for name, models in agents.items()},
        versions=versions(),
    )


def _described(model: BaseAlgorithm | InferringAgent) -> ModelDescription:
    return describe_model(model.model if isinstance(model, InferringAgent) else model)


def _reference(family: Family, points: Vector, reference: Reference | None) -> tuple[Vector | None, Vector | None]:
    """Return random and best mean returns in contexts ``(n, d)``, if both are known in all of them."""
    from hyperrl.experiments.specialists import optimum

    relevant = family.with_irrelevant(0)
    points = points[:, : len(relevant.context_space)]
    best = optimum(relevant, points)
    if best is not None:
        return random_returns(relevant, points, 100).mean(axis=1), best
    if reference is None:
        return None, None
    random, best = reference.at(points)
    return (None, None) if np.isnan(best).any() else (random, best)


def _by_seed(values: Vector) -> Vector:
    """Return what may be resampled first: ``(trainings, seeds, contexts, n)`` to ``(seeds, contexts, n)``.

    Several adaptations of one training are no independent draws: they count as more episodes of it.
    """
    trainings, seeds, contexts, n = values.shape
    if trainings == 1:
        return values[0]
    return np.moveaxis(values, 1, 2).reshape(trainings, contexts, seeds * n)
