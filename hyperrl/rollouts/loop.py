"""The loop: an agent acts in environments, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrl.contexts import Vector
from hyperrl.rollouts.agent import Acting

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


class Step(NamedTuple):
    """One step of ``n`` environments."""

    observation: Any
    """What they observed before, ``n`` rows or a Dict of such."""
    actions: NDArray[Any]
    """What the agent did, ``n`` rows."""
    rewards: NDArray[np.float32]
    """Shape ``(n,)``."""
    dones: NDArray[np.bool_]
    """Where an episode ended, shape ``(n,)``."""
    infos: list[dict[str, Any]]
    """What the environments say besides, as Stable-Baselines3's ``VecEnv``."""
    following: Any
    """What they observe next, of a new episode where one ended."""

    @property
    def reached(self) -> Any:
        """What the actions led to: ``following``, but the last observation of the episode where one ended."""
        rows = self.dones.nonzero()[0]
        if not len(rows):
            return self.following
        last = [self.infos[i]["terminal_observation"] for i in rows]
        if not isinstance(self.following, dict):
            return _replaced(self.following, rows, last)
        return {key: _replaced(entry, rows, [end[key] for end in last]) for key, entry in self.following.items()}


def rollout(agent: Acting, vec_env: VecEnv, observation: Any = None) -> Iterator[Step]:
    """Let an agent act in environments for as long as the caller takes steps.

    :param agent: who acts; its memory begins anew.
    :param vec_env: the environments.
    :param observation: what they observe now, where episodes have just begun; by default they are reset.

    >>> from hyperrl import load_family
    >>> from hyperrl.rollouts.agent import Agent, RandomActions
    >>> vec_env = load_family("pendulum").vec_env(3)
    >>> agent = Agent(RandomActions(vec_env.action_space, n=3, seed=0), vec_env.observation_space)
    >>> for step in rollout(agent, vec_env):
    ...     if step.dones.all():
    ...         break
    >>> step.infos[0]["episode"]["l"]
    200
    """
    agent.reset()
    observation = vec_env.reset() if observation is None else observation
    starts, rewards = np.ones(vec_env.num_envs, dtype=bool), None
    while True:
        actions = agent.act(observation, starts, rewards)
        following, rewards, starts, infos = vec_env.step(actions)
        yield Step(observation, actions, rewards, starts, infos, following)
        observation = following


class Tally:
    """Undiscounted returns and lengths of the first episodes of each environment, added up step by step.

    :param n: how many environments.
    :param episodes: how many episodes of each.
    """

    def __init__(self, n: int, episodes: int = 1) -> None:
        self.returns: Vector = np.zeros((n, episodes))
        """Shape ``(n, episodes)``."""
        self.lengths: NDArray[np.int64] = np.zeros((n, episodes), dtype=np.int64)
        """Shape ``(n, episodes)``."""
        self.playing: NDArray[np.bool_] = np.ones(n, dtype=bool)
        """Which environments have episodes to go, shape ``(n,)``."""
        self._ended = np.zeros(n, dtype=np.int64)

    def add(self, step: Step) -> None:
        """Take in a step of the environments, the first ``n`` where there are more."""
        n, episodes = self.returns.shape
        of = (np.arange(n), np.minimum(self._ended, episodes - 1))
        self.returns[of] += step.rewards[:n] * self.playing
        self.lengths[of] += self.playing
        self._ended += step.dones[:n]
        self.playing = self._ended < episodes


def first_episodes(agent: Acting, vec_env: VecEnv, episodes: int = 1, rows: int | None = None) -> Tally:
    """Play until each environment has ended its first episodes.

    :param agent: who acts.
    :param vec_env: the environments.
    :param episodes: how many of each.
    :param rows: of how many environments, the first ones; all by default.
    """
    tally = Tally(vec_env.num_envs if rows is None else rows, episodes)
    for step in rollout(agent, vec_env):
        tally.add(step)
        if not tally.playing.any():
            break
    return tally


def _replaced(entry: NDArray[Any], rows: NDArray[np.int64], values: list[Any]) -> NDArray[Any]:
    entry = entry.copy()
    entry[rows] = np.stack(values)
    return entry
