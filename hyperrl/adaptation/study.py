"""Adaptation studies: every agent by every method in the same unseen contexts, with several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.adaptation import METHODS, NEED_CONTEXT, Adaptation, adapt, check_method
from hyperrl.contexts import Vector
from hyperrl.families import Family
from hyperrl.files import refuse_existing, write_text
from hyperrl.provenance import describe_model, family_digest, versions
from hyperrl.statistics import Estimate, bootstrap_iqm

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.adaptation.dynamics import Dynamics
    from hyperrl.reference import Reference


@dataclass(frozen=True)
class Line:
    """One agent by one method.

    :param agent: its name.
    :param method: see :func:`hyperrl.adapt`.
    :param results: by seed and context; seeds of training come one after the other.
    """

    agent: str
    method: str
    results: list[list[Adaptation]]

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        return f"{self.agent}, {self.method}"

    @property
    def returns(self) -> Vector:
        """Returns when measured, shape ``(seeds, contexts, k, evaluations)``."""
        return np.array([[result.returns for result in row] for row in self.results])

    @property
    def earned(self) -> Vector:
        """Returns of the episodes played to adapt, shape ``(seeds, contexts, episodes)``."""
        return np.array([[result.earned for result in row] for row in self.results])

    @cached_property
    def curve(self) -> list[Estimate]:
        """Interquartile mean of the returns over seeds and contexts, with its interval, at each measurement."""
        return [bootstrap_iqm(measured) for measured in np.moveaxis(self.returns, 2, 0)]

    def reached(self, targets: Vector) -> tuple[float, float]:
        """Return the median episodes and steps to a target for each context ``(n,)``, infinite where most fail."""
        never = (np.inf, np.inf)
        reached = [r.reached(t) or never for row in self.results for r, t in zip(row, targets, strict=True)]
        episodes, steps = np.array(reached, dtype=np.float64).T
        return _middle(episodes), _middle(steps)


@dataclass(frozen=True)
class Study:
    """What :func:`study` measured, and how.

    :param family: name of the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param after: numbers of episodes after which agents were measured, shape ``(k,)``.
    :param settings: the arguments of :func:`study`.
    :param provenance: versions of the libraries, SHA-256 of the family's definition, and which models they were.
    :param lines: the results.
    :param random: mean return of random actions in each context, shape ``(n,)``; ``None`` without a reference in each.
    :param best: that of a specialist, or the optimum.
    """

    family: str
    contexts: Vector
    after: list[int]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    lines: list[Line]
    random: Vector | None
    best: Vector | None

    @property
    def targets(self) -> Vector | None:
        """Nine tenths of the way from random to the specialist in each context, shape ``(n,)``."""
        return None if self.random is None or self.best is None else self.random + 0.9 * (self.best - self.random)

    def save(self, out: str | Path) -> None:
        """Write ``adaptation.json`` and ``adaptation.png`` to a new folder.

        :raises ValueError: where it exists.
        """
        from hyperrl import plots

        out = Path(out)
        refuse_existing(out)
        out.mkdir(parents=True)
        data = {
            "family": self.family,
            "settings": self.settings,
            "provenance": self.provenance,
            "contexts": self.contexts.tolist(),
            "random": None if self.random is None else self.random.tolist(),
            "best": None if self.best is None else self.best.tolist(),
            "lines": [
                {
                    "agent": line.agent,
                    "method": line.method,
                    "results": [[result.as_dict() for result in row] for row in line.results],
                }
                for line in self.lines
            ],
        }
        write_text(out / "adaptation.json", json.dumps(data, allow_nan=False))
        curves = {line.label: (np.array(self.after), np.array(line.curve).T) for line in self.lines}
        best = None if self.best is None else bootstrap_iqm(self.best[None, :, None]).value
        plots.save(plots.plot_adaptation(curves, best), out / "adaptation.png")


def study(
    agents: Mapping[str, Sequence[BaseAlgorithm]],
    family: Family,
    contexts: ArrayLike,
    methods: Sequence[str] = METHODS,
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
    points = family.context_space.matrix(contexts)
    pairs = [(a, m) for m in methods for i, a in enumerate(agents) if i == 0 or m != "scratch"]
    lines = []
    with tqdm(total=sum(len(agents[a]) for a, _ in pairs) * seeds * len(points), disable=not progress) as bar:
        for agent, method in pairs:
            rows: list[list[Adaptation]] = []
            for model in agents[agent]:
                for seed in range(seeds):
                    rows.append([])
                    for point in points:
                        bar.set_description(f"{agent}, {method}")
                        env, eval_env = (family.vec_env(n, contexts=point[None]) for n in (1, evaluations))
                        rows[-1].append(
                            adapt(
                                model,
                                env,
                                method,
                                episodes,
                                context=point if method in NEED_CONTEXT else None,
                                eval_env=eval_env,
                                evaluations=evaluations,
                                seed=seed,
                                hyperparameters=hyperparameters if method in ("finetune", "scratch") else None,
                                proximal=proximal if method == "finetune" else 0.0,
                                dynamics=dynamics if method == "identify" else None,
                            )
                        )
                        bar.update()
            lines.append(Line(agent, method, rows))
    random, best = _reference(family, points, reference)
    settings: dict[str, Any] = dict(
        methods=list(methods), episodes=episodes, seeds=seeds, evaluations=evaluations, proximal=proximal
    ) | dict(hyperparameters=dict(hyperparameters or {}), learnt_dynamics=dynamics is not None)
    provenance = {
        "definition": family_digest(family),
        "irrelevant": family.irrelevant,
        "versions": versions(),
        "models": {name: [describe_model(model) for model in models] for name, models in agents.items()},
    }
    after = lines[0].results[0][0].after.tolist()
    return Study(family.name, points, after, settings, provenance, lines, random, best)


def _reference(family: Family, points: Vector, reference: Reference | None) -> tuple[Vector | None, Vector | None]:
    """Return random and best mean returns in contexts ``(n, d)``, if both are known in all of them."""
    from hyperrl.episodes import random_returns
    from hyperrl.reference import optimum

    relevant = family.with_irrelevant(0)
    points = points[:, : len(relevant.context_space)]
    best = optimum(relevant, points)
    if best is not None:
        return random_returns(relevant, points, 100).mean(axis=1), best
    if reference is None:
        return None, None
    random, best = reference.at(points)
    return (None, None) if np.isnan(best).any() else (random, best)


def _middle(values: Vector) -> float:
    """Return the lower median, which exists among infinite values too."""
    return float(np.sort(values)[(len(values) - 1) // 2])
