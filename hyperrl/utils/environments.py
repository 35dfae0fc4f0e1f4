"""Environments and the wrappers around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper


def layers(env: Any) -> Iterator[Any]:
    """Go through environments and their wrappers, from the outside.

    :param env: Gymnasium's, or a ``VecEnv``; of one whose environments are in other processes, itself alone.

    >>> from gymnasium.wrappers import FlattenObservation
    >>> env = FlattenObservation(gym.make("CartPole-v1").unwrapped)
    >>> [type(layer).__name__ for layer in layers(env)]
    ['FlattenObservation', 'CartPoleEnv']
    """
    yield env
    if isinstance(env, VecEnvWrapper):
        yield from layers(env.venv)
    elif isinstance(env, VecEnv):
        for inner in getattr(env, "envs", ()):
            yield from layers(inner)
    elif isinstance(inner := vars(env).get("env"), gym.Env):
        yield from layers(inner)
