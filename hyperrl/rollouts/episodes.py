"""Episodes: a model plays a family in given contexts, all of them together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.contexts import Vector
from hyperrl.families.family import Family
from hyperrl.rollouts.agent import Agent, Predictor, RandomActions
from hyperrl.rollouts.critic import Critic, ValueAccuracy, has_critic
from hyperrl.rollouts.loop import Tally, first_episodes, rollout

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Played:
    """What :func:`play` saw.

    :param returns: undiscounted return of each episode, shape ``(n, episodes)``.
    :param lengths: number of steps of each, shape ``(n, episodes)``.
    :param values: how accurate the critic was, if asked for and the model has one.
    """

    returns: Vector
    lengths: NDArray[np.int64]
    values: ValueAccuracy | None = None


def play(
    model: BaseAlgorithm | Predictor,
    family: Family,
    contexts: ArrayLike,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    *,
    reported: ArrayLike | None = None,
    values: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Played:
    """Play episodes in each context, every one in an environment of its own.

    :param model: any Stable-Baselines3 model, recurrent or not, that acts on the family's observations, on those of its
        base environment, or on both parts laid side by side; or any object with ``predict``. See
        :class:`hyperrl.rollouts.Agent`.
    :param contexts: shape ``(n, d)``, physical units.
    :param episodes: episodes per context.
    :param seed: seed of the initial states.
    :param deterministic: take the most likely action rather than a sample.
    :param reported: the context that the model is given in each episode, shape ``(n, episodes, d)``; the true one by
        default.
    :param values: judge the critic too, where the model has one (an actor-critic without memory).
    :param progress: called with numbers of steps as they are done, ``n * episodes * family.max_episode_steps`` in all:
        an episode that ends early has done all of its.
    :raises ValueError: for a model of other observations, contexts out of bounds, wrong shapes, and a family whose
        episodes have no time limit.
    """
    limit = time_limit(family)
    contexts = family.context_space.matrix(contexts)
    n = len(contexts) * episodes
    if reported is not None:
        reported = np.asarray(reported, dtype=np.float32)
        shape = (len(contexts), episodes, len(family.context_space))
        if reported.shape != shape:
            raise ValueError(f"expected 'reported' of shape {shape}, got {reported.shape}")
        reported = reported.reshape(n, -1)
    tally = Tally(n)
    with (
        closing(family.vec_env(n, contexts=np.repeat(contexts, episodes, axis=0), seed=seed)) as vec_env,
        warnings.catch_warnings(),
    ):
        if reported is not None:  # a wrong context may lie out of bounds, and a policy need not warn of it
            warnings.filterwarnings("ignore", "the context lies outside its bounds")
        agent = Agent(model, vec_env.observation_space, reported, deterministic)
        critic = Critic(agent) if values and has_critic(model) else None
        for step in rollout(agent, vec_env):
            before = tally.playing
            if critic is not None:
                critic.add(step, before)
            tally.add(step)
            if progress is not None:
                left_out = limit - tally.lengths[before & ~tally.playing]
                progress(int(before.sum() + left_out.sum()))
            if not tally.playing.any():
                break
    accuracy = None if critic is None else critic.accuracy(len(contexts))
    shape = (len(contexts), episodes)
    return Played(tally.returns.reshape(shape), tally.lengths.reshape(shape), accuracy)


def random_returns(family: Family, contexts: ArrayLike, episodes: int = 10, seed: int = 0) -> Vector:
    """Return the returns of uniformly random actions, shape ``(n, episodes)``; parameters as in :func:`play`."""
    time_limit(family)
    contexts = family.context_space.matrix(contexts)
    n = len(contexts) * episodes
    with closing(family.vec_env(n, contexts=np.repeat(contexts, episodes, axis=0), seed=seed)) as vec_env:
        agent = Agent(RandomActions(vec_env.action_space, n, seed), vec_env.observation_space)
        return first_episodes(agent, vec_env).returns.reshape(len(contexts), episodes)


def time_limit(family: Family) -> int:
    """Return how many steps an episode takes at most.

    :raises ValueError: where there is no limit: an episode that nothing ends would be played for ever.
    """
    limit = family.max_episode_steps
    if limit is None:
        raise ValueError(
            f"the episodes of {family.name} have no time limit, so that playing them to the end may never end: set "
            f"max_episode_steps = ... in {family.place}"
        )
    return limit
