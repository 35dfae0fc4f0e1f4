"""An explanation: what the context does to an agent, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from hyperrl.analysis.actions import (
    ActionEffect,
    PolicyGroup,
    Visited,
    action_effects,
    policy_distances,
    policy_groups,
)
from hyperrl.analysis.weights import WeightEffects, weight_effects, why_no_weights
from hyperrl.contexts import ContextSpace, Vector
from hyperrl.families.family import Family
from hyperrl.rollouts.agent import has_memory
from hyperrl.rollouts.episodes import play
from hyperrl.utils.provenance import ModelDescription, describe_model, versions
from hyperrl.utils.records import read, write

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.rollouts.agent import Predictor

LEVELS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""How wrong a feature is told, in half training ranges."""


@dataclass(frozen=True)
class ToldWrongly:
    """Returns where one feature is told wrongly, and all others as they are.

    :param offsets: what is added to the feature, in half training ranges, shape ``(l,)``; of a feature with choices,
        how many choices further on the told one is, round and round.
    :param returns: mean return at each, shape ``(l,)``.
    """

    offsets: Vector
    returns: Vector


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found out.

    :param family: the name of the family.
    :param features: the names of its features, in the order of all arrays.
    :param model: which model it was.
    :param contexts: the contexts of the training range in which it was looked at, shape ``(n, d)``, physical units.
    :param states: in how many visited states its actions were looked at.
    :param actions: by feature, what it does to the actions.
    :param distances: how differently the agent acts in two of the contexts, in units of the actions' range, shape
        ``(n, n)``.
    :param groups: the contexts that share a policy.
    :param told: by feature, the returns where it is told wrongly.
    :param weights: what the context does to generated weights, where there are any.
    :param without_weights: why there are none.
    :param versions: of the libraries.
    """

    SCHEMA: ClassVar[str] = "explanation-1"

    family: str
    features: tuple[str, ...]
    model: ModelDescription
    contexts: Vector
    states: int
    actions: Mapping[str, ActionEffect]
    distances: Vector
    groups: tuple[PolicyGroup, ...]
    told: Mapping[str, ToldWrongly]
    versions: Mapping[str, str]
    weights: WeightEffects | None = None
    without_weights: str | None = None

    def save(self, path: str | Path) -> None:
        """Write the numbers as one JSON file, whole or not at all."""
        write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read what :meth:`save` wrote.

        :raises ValueError: where the file is damaged, or of another schema.
        """
        return read(cls, path)


def explain(
    model: BaseAlgorithm | Predictor,
    family: Family,
    contexts: int = 64,
    states: int = 1024,
    episodes: int = 2,
    seed: int = 0,
) -> Explanation:
    """Measure what each feature of the context does to an agent's weights and actions.

    The agent plays an episode in each of some contexts of the training range. In states that it visits, it is told
    contexts of which one feature is another, and its actions are compared. Of a policy whose weights are generated, the
    weights are compared too. Then it plays on while one feature is told wrongly. Actions are the most likely ones.

    :param model: a Stable-Baselines3 model without memory, or any object with ``predict``.
    :param family: the family that it was trained on.
    :param contexts: how many contexts.
    :param states: how many of the visited states to look at.
    :param episodes: episodes in each of 20 contexts with one feature told wrongly; 0 for none.
    :param seed: of contexts and initial states.
    :raises ValueError: for a model with a memory, which acts on what it remembers and not on a context that it is told.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("double_integrator")
    >>> model = PPO(HyperPolicy, family.vec_env(2), device="cpu")
    >>> explanation = explain(model, family, contexts=4, states=32, episodes=0)
    >>> explanation.actions["mass"].mean  # untrained: all contexts have the same weights
    0.0
    """
    if has_memory(model) or hasattr(model, "belief"):
        raise ValueError(
            f"expected an agent that is told its context, got {type(model).__name__}, which acts on what it remembers: "
            "explain the model that it was made of, if there is one"
        )
    if contexts < 2 or states < 1 or episodes < 0:
        raise ValueError(f"expected contexts ≥ 2, states ≥ 1 and episodes ≥ 0, got {contexts=}, {states=}, {episodes=}")
    space = family.context_space
    points = space.sample("train", contexts, seed)
    visited = Visited(model, family, points, states, seed)
    distances = policy_distances(visited, points)
    reason = why_no_weights(model)
    return Explanation(
        family.name,
        space.names,
        describe_model(model),
        points,
        len(visited.contexts),
        action_effects(visited, space),
        distances,
        policy_groups(distances, points),
        _told_wrongly(model, family, episodes, seed) if episodes else {},
        versions(),
        weight_effects(model, space, points, visited) if reason is None else None,  # pyright: ignore[reportArgumentType]
        reason,
    )


def _told_wrongly(model: BaseAlgorithm | Predictor, family: Family, episodes: int, seed: int) -> dict[str, ToldWrongly]:
    space = family.context_space
    contexts = space.sample("interpolation", 20, seed)

    def mean_return(told: Vector) -> float:
        reported = np.repeat(told[:, None], episodes, axis=1)  # (n, episodes, d)
        return float(play(model, family, contexts, episodes, seed, reported=reported).returns.mean())

    right = mean_return(contexts)
    found = {}
    for i, (name, feature) in enumerate(zip(space.names, space.features, strict=True)):
        offsets = tuple(range(len(feature.train))) if feature.is_choice else LEVELS
        returns = [right if not offset else mean_return(_wrong(contexts, i, offset, space)) for offset in offsets]
        found[name] = ToldWrongly(np.array(offsets, dtype=np.float64), np.array(returns))
    return found


def _wrong(contexts: Vector, i: int, offset: float, space: ContextSpace) -> Vector:
    """Return contexts ``(n, d)`` with feature ``i`` off by so many half training ranges, or so many choices."""
    told, feature = contexts.copy(), space.features[i]
    if feature.is_choice:
        choices = np.array([low for low, _ in feature.train])
        nearest = np.abs(choices[None] - told[:, i, None]).argmin(axis=1)
        told[:, i] = choices[(nearest + int(offset)) % len(choices)]
    else:
        told[:, i] += offset * space.center_and_half_width[1][i]
    return told
