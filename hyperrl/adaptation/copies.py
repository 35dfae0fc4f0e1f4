"""Copies of environments to measure in: made where they are true, refused where they are not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium.utils import EzPickle
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from hyperrl.utils.environments import layers

STEPS = 20
"""How many steps original and copy take side by side."""
ASK = "Give eval_env=..., environments in the same context, to measure in"


def copied(env: VecEnv) -> VecEnv:
    """Return a copy of environments that acts as they do, and leaves them alone.

    Some environments do not copy: those of ``gymnasium.utils.EzPickle`` (Box2D, MuJoCo) are made anew by the arguments
    of their constructor, without what was set afterwards, and those that hold a handle of a simulation outside Python
    go on in that of the original. So the copy is tried: both begin with the same seed and take the same actions in
    turn, and must observe and earn the same.

    :param env: the environments; they are reset.
    :raises ValueError: where they cannot be copied, or the copy is another environment, with the difference.

    >>> from hyperrl import load_family
    >>> copied(load_family("pendulum").vec_env(1)).num_envs
    1
    """
    if any(isinstance(layer, SubprocVecEnv) for layer in layers(env)):  # a copy would hold, and close, its pipes
        raise ValueError(f"the environment cannot be copied: it is in another process (SubprocVecEnv). {ASK}")
    try:
        other = copy.deepcopy(env)
    except Exception as error:  # whatever an environment holds that does not copy, and however it says so
        raise ValueError(f"the environment cannot be copied ({type(error).__name__}: {error}). {ASK}") from error
    difference = _difference(env, other)
    if difference is not None:
        raise ValueError(f"a copy of the environment is not the same environment: {difference}. {ASK}")
    return other


def _difference(env: VecEnv, other: VecEnv) -> str | None:
    """Say in what a copy differs from the original, ``None`` for nothing that shows."""
    seen = []
    for one in (env, other):
        one.seed(0)
        seen.append(one.reset())
    for original, duplicate in zip(layers(env), layers(other), strict=True):
        if isinstance(original, EzPickle):
            for name, value in vars(original).items():
                if _is_plain(value) and not _same(value, vars(duplicate).get(name)):
                    return f"{type(original).__name__}.{name} is {value!r}, in the copy {vars(duplicate).get(name)!r}"
    if not _same(*seen):
        return f"from the same seed, it observes {seen[1]} first, the original {seen[0]}"
    actions = copy.deepcopy(env.action_space)
    actions.seed(0)
    for step in range(1, STEPS + 1):
        action = np.stack([actions.sample() for _ in range(env.num_envs)])
        (*first, _), (*second, _) = env.step(action), other.step(action)
        if not _same(first, second):
            return f"after {step} steps of the same actions, it observes {second[0]}, the original {first[0]}"
    return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | np.ndarray | np.generic | None)


def _same(one: Any, other: Any) -> bool:
    """Compare numbers, arrays, and lists, tuples and dicts of them."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float | np.ndarray | np.generic) and isinstance(other, float | np.ndarray | np.generic):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
    return type(one) is type(other) and one == other
