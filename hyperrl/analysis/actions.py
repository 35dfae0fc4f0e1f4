"""How far the features of a context move an agent's actions, in states that the agent visits."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.families.family import Family
from hyperrl.rollouts.agent import Agent
from hyperrl.rollouts.episodes import time_limit
from hyperrl.rollouts.loop import rollout

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.rollouts.agent import Predictor

VALUES: Final = 9
"""Values of a feature's training range that are compared with each other."""
GRID: Final = 25
"""Values of a feature's bounds along which actions are followed."""
ALIKE: Final = 0.1
"""Mean difference of actions, in units of their range, up to which contexts share a policy."""
STATES_OF_GROUPS: Final = 256
CLEARLY: Final = 0.05
"""How far from the middle of its range an action clearly is on one side."""
LARGE: Final = 0.1
"""Between two neighbouring values, a change of actions that is large, in units of their range."""
ABRUPT: Final = 4.0
"""How many times the median change it is to be."""


@dataclass(frozen=True)
class Jump:
    """Two neighbouring values of a feature between which the actions change abruptly.

    :param low: the lower value, in physical units.
    :param high: the higher one.
    :param change: mean difference of the actions, in units of their range.
    """

    low: float
    high: float
    change: float


@dataclass(frozen=True)
class ActionEffect:
    """What one feature does to the actions, all other features being those of the visited state.

    Differences are means over the entries of an action, in units of its range. That of two choices is 1.

    :param mean: mean difference between the actions for two values of the training range, over states.
    :param largest: the largest such difference of a state, mean over states.
    :param reversed: share of the states in which an entry of the action lies on both sides of the middle of its range,
        by more than a twentieth of it, for two values of the training range; 0 for choices.
    :param values: values of the feature over its bounds, shape ``(v,)``, physical units.
    :param distance: at each of them, mean difference from the action at the feature's default, shape ``(v,)``.
    :param jumps: where the actions change abruptly between neighbouring values.
    """

    mean: float
    largest: float
    reversed: float
    values: Vector
    distance: Vector
    jumps: tuple[Jump, ...]


@dataclass(frozen=True)
class PolicyGroup:
    """Contexts in which the agent acts alike.

    :param contexts: their indices among the contexts of the explanation.
    :param low: the smallest value of each feature among them, shape ``(d,)``.
    :param high: the largest, shape ``(d,)``.
    """

    contexts: tuple[int, ...]
    low: Vector
    high: Vector


class Visited:
    """States that an agent visits in some contexts, and what it does there when it is told other contexts.

    :param model: the agent.
    :param family: the family.
    :param contexts: shape ``(n, d)``, physical units; one episode is played in each.
    :param states: how many states to keep, drawn from all of those visited; fewer where there are no more.
    :param seed: of initial states and of the draw.
    """

    def __init__(
        self, model: BaseAlgorithm | Predictor, family: Family, contexts: Vector, states: int, seed: int
    ) -> None:
        limit, rng = time_limit(family), np.random.default_rng(seed)
        kept: list[dict[str, NDArray[Any]]] = []
        rows: list[NDArray[np.int64]] = []
        with closing(family.vec_env(len(contexts), contexts=contexts, seed=seed)) as vec_env:
            self._space, self._model = vec_env.observation_space, model
            self.action_space: spaces.Space[Any] = vec_env.action_space
            playing = np.ones(len(contexts), dtype=bool)
            for t, step in enumerate(rollout(Agent(model, vec_env.observation_space), vec_env), 1):
                rows.append(np.flatnonzero(playing))
                kept.append({name: entry[playing].copy() for name, entry in step.observation.items()})
                playing &= ~step.dones
                if t == limit or not playing.any():
                    break
        of = np.concatenate(rows)
        chosen = np.sort(rng.permutation(len(of))[:states])
        self.observations = {name: np.concatenate([part[name] for part in kept])[chosen] for name in kept[0]}
        """What was observed in the states, ``s`` rows."""
        self.contexts: Vector = contexts[of[chosen]]
        """The context of each state, shape ``(s, d)``."""

    def actions(self, told: Vector, rows: slice = slice(None)) -> NDArray[Any]:
        """Return the most likely actions in the states, ``s`` rows, when the agent is told these contexts.

        :param told: shape ``(s, d)``, or ``(d,)`` for all states.
        :param rows: the states.
        """
        observations = {name: entry[rows] for name, entry in self.observations.items()}
        agent = Agent(self._model, self._space, told)
        return agent.act(observations, np.ones(len(next(iter(observations.values()))), dtype=bool))

    def difference(self, one: NDArray[Any], other: NDArray[Any]) -> Vector:
        """Return how different actions are, in units of their range: ``s`` rows to ``(s,)``."""
        return difference(self.action_space, one, other)


def difference(space: spaces.Space[Any], one: NDArray[Any], other: NDArray[Any]) -> Vector:
    """Return how different actions are, mean over their entries: ``n`` rows to ``(n,)``.

    Of numbers, in units of the range, or of 1 where that has no end; of choices, 1 where they are not the same.

    >>> difference(spaces.Box(-2, 2, (1,)), np.array([[-1.0]]), np.array([[1.0]]))
    array([0.5])
    >>> difference(spaces.Discrete(3), np.array([0, 2]), np.array([0, 1]))
    array([0., 1.])
    """
    one, other = (np.asarray(actions).reshape(len(actions), -1) for actions in (one, other))
    if not isinstance(space, spaces.Box):
        return (one != other).mean(axis=1)
    return (np.abs(one.astype(np.float64) - other) / _range(space)).mean(axis=1)


def action_effects(visited: Visited, space: ContextSpace) -> dict[str, ActionEffect]:
    """Measure what each feature does to the actions, by the feature's name."""
    return {name: _effect(visited, space, i) for i, name in enumerate(space.names)}


def policy_distances(visited: Visited, contexts: Vector) -> Vector:
    """Return how differently the agent acts in two contexts, mean over states: ``(n, d)`` to ``(n, n)``."""
    few = slice(None, None, max(1, len(visited.contexts) // STATES_OF_GROUPS))
    actions = [visited.actions(context, few) for context in contexts]
    return np.array([[visited.difference(one, other).mean() for other in actions] for one in actions])


def policy_groups(distances: Vector, contexts: Vector, alike: float = ALIKE) -> tuple[PolicyGroup, ...]:
    """Group contexts by average linkage of their policies, the largest group first.

    :param distances: shape ``(n, n)``, see :func:`policy_distances`.
    :param contexts: shape ``(n, d)``.
    :param alike: the mean distance up to which groups are joined.

    >>> groups = policy_groups(np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0.0]]), np.array([[1.0], [2.0], [-1.0]]))
    >>> [(group.contexts, group.low, group.high) for group in groups]
    [((0, 1), array([1.]), array([2.])), ((2,), array([-1.]), array([-1.]))]
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    n = len(contexts)
    labels = np.ones(n, dtype=int)
    if n > 1:
        condensed = squareform((distances + distances.T) / 2, checks=False)
        labels = fcluster(linkage(condensed, "average"), alike, "distance")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members.sort(key=lambda group: (-len(group), group[0]))
    return tuple(
        PolicyGroup(tuple(group.tolist()), contexts[group].min(axis=0), contexts[group].max(axis=0))
        for group in members
    )


def _effect(visited: Visited, space: ContextSpace, i: int) -> ActionEffect:
    def actions(value: float) -> NDArray[Any]:
        told = visited.contexts.copy()
        told[:, i] = value
        return visited.actions(told)

    trained = [actions(value) for value in _spread(space, i, (np.arange(VALUES) + 0.5) / VALUES, bounds=False)]
    pairs = [visited.difference(a, b) for j, a in enumerate(trained) for b in trained[:j]]
    differences = np.array(pairs) if pairs else np.zeros((1, len(visited.contexts)))  # (pairs, s)
    ends = [end for interval in space.features[i].bounds for end in interval]
    values = np.union1d(_spread(space, i, np.linspace(0, 1, GRID), bounds=True), ends)
    along = [actions(value) for value in values]
    default = actions(space.default[i])
    distance = np.array([visited.difference(a, default).mean() for a in along])
    changes = np.array([visited.difference(a, b).mean() for a, b in zip(along, along[1:], strict=False)])
    typical = np.median(changes) if len(changes) else 0.0
    jumps = tuple(
        Jump(float(values[j]), float(values[j + 1]), float(change))
        for j, change in enumerate(changes)
        if change >= LARGE and (change >= ABRUPT * typical or len(changes) == 1)
    )
    return ActionEffect(
        float(differences.mean()),
        float(differences.max(axis=0).mean()),
        _reversed(visited.action_space, trained),
        values,
        distance,
        jumps,
    )


def _spread(space: ContextSpace, i: int, uniform: Vector, bounds: bool) -> Vector:
    """Return different values of one feature, evenly over its training range or its bounds, in increasing order."""
    inside = np.minimum(uniform, np.nextafter(1.0, 0.0))
    return np.unique(space.from_uniform(np.tile(inside[:, None], len(space)), bounds=bounds)[:, i])


def _reversed(space: spaces.Space[Any], actions: list[NDArray[Any]]) -> float:
    """Return the share of states in which an entry lies clearly on both sides of its middle among several actions."""
    if not isinstance(space, spaces.Box):
        return 0.0
    middle = np.where(np.isfinite(space.low) & np.isfinite(space.high), (space.low + space.high) / 2, 0.0)
    far = (np.stack(actions) - middle) / _range(space).reshape(space.shape)  # (values, s, *shape)
    both = np.asarray((far > CLEARLY).any(axis=0) & (far < -CLEARLY).any(axis=0))
    return float(both.reshape(len(both), -1).any(axis=1).mean())


def _range(space: spaces.Box) -> Vector:
    """Return the range of each entry of an action, flat; 1 where it has no end."""
    with np.errstate(over="ignore"):
        width = space.high.ravel().astype(np.float64) - space.low.ravel()
    return np.where(np.isfinite(width) & (width > 0), width, 1.0)
