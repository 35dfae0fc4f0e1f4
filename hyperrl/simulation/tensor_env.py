"""The tensor interface: vectorised environments that step without numpy, as a learner on the same device wants them."""

from __future__ import annotations

from typing import Any, Protocol

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from hyperrl.simulation.simulator import Step


class TensorVecEnv(Protocol):
    """A Stable-Baselines3 ``VecEnv`` with one more method, whose observation space is a Dict of ``Box`` entries.

    ``reset`` stays numpy's: it is called once. Stepped either way, the environments go on from where they are.
    """

    def step_tensors(self, actions: Tensor) -> Step:
        """Take one step in all environments; those whose episode ends begin the next one.

        :param actions: shape ``(n, *action shape)`` on any device, within the action space; int64 where it is discrete.
        :return: tensors with ``n`` rows, all on one device, which the environments do not change later.
        """
        ...


def has_tensors(env: VecEnv) -> bool:
    """Say whether :func:`find_tensor_env` finds what it looks for."""
    try:
        find_tensor_env(env)
    except ValueError:
        return False
    return True


def find_tensor_env(env: VecEnv) -> tuple[TensorVecEnv, VecNormalize | None]:
    """Return the environments that step tensors, and the ``VecNormalize`` around them, if there is one.

    :raises ValueError: where the environments do not, or are wrapped in anything else.

    >>> from hyperrl import load_family
    >>> find_tensor_env(load_family("pendulum").vec_env(2))[1] is None
    True
    """
    normalizer = env if isinstance(env, VecNormalize) else None
    inner: Any = env if normalizer is None else normalizer.venv
    if not hasattr(type(inner), "step_tensors"):  # a wrapper passes its environments' attributes on
        raise ValueError(
            f"expected environments that step tensors, batched ones of a family or others with 'step_tensors' "
            f"(docs/device.md), alone or in VecNormalize, got {type(inner).__name__}: train there with "
            "Stable-Baselines3's PPO"
        )
    space = inner.observation_space
    if not isinstance(space, spaces.Dict) or not all(isinstance(entry, spaces.Box) for entry in space.spaces.values()):
        raise ValueError(f"expected observations in a Dict of Box entries, got {space}")
    return inner, normalizer
