"""The record of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final

from hyperrl.contexts import Vector
from hyperrl.evaluation.statistics import Estimate, estimate_iqm
from hyperrl.inference.record import Learning
from hyperrl.rollouts.critic import ValueAccuracy
from hyperrl.training.record import Training
from hyperrl.utils.provenance import ModelDescription
from hyperrl.utils.records import read, write

HIDDEN: Final = " hidden"
"""How the name of an agent ends that infers its context."""


@dataclass(frozen=True)
class Split:
    """The returns on one split.

    :param contexts: shape ``(n, d)``, physical units.
    :param returns: undiscounted return of each episode, shape ``(n, episodes)``.
    :param values: how accurate the critic was in each context, where there is one.
    :param novelty: how far each context lies outside the training range, in widths of it, by the farthest feature,
        shape ``(n,)``; see :meth:`ContextSpace.beyond`.
    """

    contexts: Vector
    returns: Vector
    values: ValueAccuracy | None = None
    novelty: Vector | None = None

    def __post_init__(self) -> None:
        if self.contexts.ndim != 2 or self.returns.ndim != 2 or len(self.contexts) != len(self.returns):
            raise ValueError(
                "expected contexts of shape (n, d) and returns of shape (n, episodes), got shapes "
                f"{self.contexts.shape} and {self.returns.shape}"
            )

    @property
    def mean(self) -> float:
        """The mean return over contexts and episodes."""
        return float(self.returns.mean())

    @property
    def iqm(self) -> Estimate:
        """The interquartile mean over contexts; its interval speaks of episodes, not of training seeds."""
        return estimate_iqm(self.returns[None])


@dataclass(frozen=True)
class Plane:
    """Mean returns over a grid of two features, the others at their default.

    :param features: the names of the two features, x and y.
    :param x: values of the first, shape ``(nx,)``.
    :param y: values of the second, shape ``(ny,)``.
    :param returns: shape ``(ny, nx)``, NaN where the context is out of bounds.
    """

    features: tuple[str, str]
    x: Vector
    y: Vector
    returns: Vector


@dataclass(frozen=True)
class Series:
    """Returns along one quantity that is varied.

    :param values: its ``k`` values.
    :param returns: shape ``(k, contexts, episodes)``.
    """

    values: Vector
    returns: Vector


@dataclass(frozen=True)
class AfterSwitch:
    """Rewards step by step in episodes whose context changes, means over the episodes that began in each context.

    :param first: since the episode began, up to the first switch, shape ``(contexts, steps)``.
    :param later: since a switch, mean over the switches of an episode, shape ``(contexts, steps)``.
    """

    first: Vector
    later: Vector


@dataclass(frozen=True)
class Curve:
    """How a training went.

    :param steps: environment steps, shape ``(k,)``.
    :param returns: mean return of the last episodes of training at each, shape ``(k,)``.
    """

    steps: Vector
    returns: Vector


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`evaluate`, which says what they are."""

    contexts: int
    episodes: int
    seed: int
    deterministic: bool
    plane: int = 0
    sensitivity: int = 0
    perturbations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    switch: int = 0


@dataclass(frozen=True)
class Report:
    """What :func:`evaluate` measured, and how.

    The first two and, to be compared with others, ``agent`` and ``seed`` are all that a report of your own needs.

    :param family: the name of the family.
    :param splits: the returns by split.
    :param agent: what the agent is called.
    :param seed: the seed of its training.
    :param training: how it was trained, where ``hyperrl train`` did that.
    :param definition: digest of the family's definition.
    :param irrelevant: how many features were appended that do nothing.
    :param settings: the arguments of :func:`evaluate`.
    :param model: which model it was.
    :param versions: of the libraries.
    :param plane: the returns over the context plane, if asked for.
    :param sensitivity: the returns along each feature with the others at their default, one context a value.
    :param perturbations: by kind of perturbation, the returns in the contexts of ``interpolation`` along its level.
    :param curve: how the training went.
    :param after_switch: by split, the rewards where the context changes within the episode, if asked for.
    :param inference: how its estimator was learnt, where it was not told the context but inferred it.
    """

    SCHEMA: ClassVar[str] = "evaluation-1"

    family: str
    splits: Mapping[str, Split]
    agent: str | None = None
    seed: int | None = None
    training: Training | None = None
    definition: str | None = None
    irrelevant: int = 0
    settings: Settings | None = None
    model: ModelDescription | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    plane: Plane | None = None
    sensitivity: Mapping[str, Series] = field(default_factory=dict)
    perturbations: Mapping[str, Series] = field(default_factory=dict)
    curve: Curve | None = None
    after_switch: Mapping[str, AfterSwitch] = field(default_factory=dict)
    inference: Learning | None = None

    def of(self, training: Training) -> Report:
        """Return the report as that of a training, whose agent and seed it names.

        The agent is called hidden where it infers its context.
        """
        agent = training.agent if self.inference is None else training.agent + HIDDEN
        return replace(self, agent=agent, seed=training.seed, training=training)

    def save(self, path: str | Path) -> None:
        """Write the report as one JSON file, whole or not at all."""
        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that :meth:`save` wrote.

        :raises ValueError: where the file is damaged, no report, or of another schema.
        """
        return read(cls, path)

    @classmethod
    def load_of(cls, path: str | Path, model: ModelDescription, place: str | Path) -> Report:
        """Read the report of one model.

        :param model: the model.
        :param place: where that is, for the message.
        :raises ValueError: as :meth:`load` does, and where the file is the evaluation of another model.
        """
        report = cls.load(path)
        if report.model is None or report.model.sha256 != model.sha256:
            raise ValueError(
                f"{path} is the evaluation of another model than {place}: the SHA-256 of their parameters differ. "
                "Remove it and run `hyperrl evaluate` again"
            )
        return report
