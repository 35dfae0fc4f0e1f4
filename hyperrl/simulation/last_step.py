"""The last action and reward as observations, for agents that find out from them where they are."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from hyperrl.utils.rows import encode

LAST_ACTION: Final = "last_action"
LAST_REWARD: Final = "last_reward"
LAST_STEP: Final = (LAST_ACTION, LAST_REWARD)
"""The entries of an observation that hold the last action and reward."""
SOLE: Final = "observation"
"""What an observation is called that was no Dict."""


class VecLastStep(VecEnvWrapper):
    """Add the last action and the last reward to what environments observe.

    The entry ``last_action`` is the action as a row of numbers, one-hot where it is a choice; ``last_reward`` is
    ``sign(r)·ln(1 + |r|)``, shape ``(n, 1)``. Both are zero at the beginning of an episode. An observation that is no
    Dict becomes the entry ``observation``.

    :param venv: the environments. Put ``VecNormalize`` around this wrapper, so that rewards are the environments' own.
    :raises ValueError: for actions that are neither a ``Box`` nor ``Discrete``, and where an entry is there already.

    >>> from hyperrl import load_family
    >>> vec_env = VecLastStep(load_family("cartpole").vec_env(3))
    >>> list(vec_env.reset()), vec_env.step(np.array([0, 1, 1]))[0]["last_action"].tolist()
    (['observation', 'context', 'last_action', 'last_reward'], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv, observation_space=with_last_step(venv.observation_space, venv.action_space))
        self._actions: Any = None

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment."""
        return self._observed(self.venv.reset(), first_entries(self.action_space, self.num_envs))

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step; the last observation of an episode has its last action and reward."""
        observation, rewards, dones, infos = self.venv.step_wait()
        last = last_entries(self.action_space, self._actions, rewards)
        ended = np.flatnonzero(dones)
        infos = list(infos)  # some give a tuple
        for i in ended:
            end = infos[i]["terminal_observation"]
            end = self._observed(end, {name: entry[i].copy() for name, entry in last.items()})
            infos[i] = infos[i] | {"terminal_observation": end}
        for entry in last.values():
            entry[ended] = 0
        return self._observed(observation, last), rewards, dones, infos

    def _observed(self, observation: Any, last: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        named = observation if isinstance(observation, dict) else {SOLE: observation}
        return {**named, **last}


def observes_last_step(space: spaces.Space[Any] | None) -> bool:
    """Say whether an observation has the entries of the last action and reward."""
    return isinstance(space, spaces.Dict) and all(name in space.spaces for name in LAST_STEP)


def with_last_step(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> spaces.Dict:
    """Return an observation space with the entries of the last action and reward."""
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {SOLE: space}
    there = [name for name in LAST_STEP if name in entries]
    if there:
        raise ValueError(f"the observation has an entry {there[0]!r} already: its entries are {list(entries)}")
    return spaces.Dict([*entries.items(), *last_spaces(action_space).items()])


def last_spaces(action_space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """Return the spaces of the entries ``last_action`` and ``last_reward``."""
    if isinstance(action_space, spaces.Box):
        low, high = (
            np.float32(np.minimum(action_space.low, 0)).ravel(),
            np.float32(np.maximum(action_space.high, 0)).ravel(),
        )
        action = spaces.Box(low, high)  # with 0, which stands for no action
    elif isinstance(action_space, spaces.Discrete):
        action = spaces.Box(0, 1, (int(action_space.n),))
    else:
        raise ValueError(f"expected actions in a Box or Discrete to observe the last one, got {action_space}")
    return {LAST_ACTION: action, LAST_REWARD: spaces.Box(-np.inf, np.inf, (1,))}


def last_entries(
    action_space: spaces.Space[Any], actions: NDArray[Any], rewards: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    """Return the entries after a step: ``n`` actions and rewards ``(n,)`` to ``(n, a)`` and ``(n, 1)``.

    >>> last_entries(spaces.Discrete(3), np.array([2]), np.array([-np.e + 1]))
    {'last_action': array([[0., 0., 1.]], dtype=float32), 'last_reward': array([[-1.]], dtype=float32)}
    """
    rewards = np.asarray(rewards, dtype=np.float32)[:, None]
    action = np.array(encode(action_space, actions))  # a copy: entries are cleared where episodes end
    return {LAST_ACTION: action, LAST_REWARD: np.sign(rewards) * np.log1p(np.abs(rewards))}


def first_entries(action_space: spaces.Space[Any], n: int) -> dict[str, NDArray[np.float32]]:
    """Return the entries of ``n`` episodes that begin: zeros."""
    return {name: np.zeros((n, *box.shape), dtype=np.float32) for name, box in last_spaces(action_space).items()}
