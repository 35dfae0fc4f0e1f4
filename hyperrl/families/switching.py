"""A Gymnasium environment whose context changes within an episode, and what users write for how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from hyperrl.contexts import Vector
from hyperrl.families.context_env import CONTEXT, ContextEnv

Switch = int | Sequence[int] | None
"""After how many steps a context changes: always as many, or any number from the first to the second; never."""


def switch_steps(switch: Switch, contexts: Vector | None = None) -> tuple[int, int] | None:
    """Return the least and the greatest number of steps between two switches.

    :param contexts: the contexts to switch between, shape ``(n, d)``; ``None`` for those of the training range.
    :raises ValueError: for other than a number or two of at least one step, and for a single context.

    >>> switch_steps(50), switch_steps([30, 80])
    ((50, 50), (30, 80))
    """
    if switch is None:
        return None
    steps: list[Any] = list(switch) if isinstance(switch, Sequence) else [switch, switch]
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in steps)
    if not whole or len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
        raise ValueError(
            "expected a number of steps ≥ 1 between two switches of the context, such as switch=50, or the least and "
            f"the greatest, such as switch=(30, 80), got switch={switch!r}"
        )
    if contexts is not None and len(contexts) < 2:
        raise ValueError(f"switch={switch!r} needs two contexts or more to switch between, got one")
    return int(steps[0]), int(steps[1])


class ContextSwitch(gym.Wrapper[Any, Any, Any, Any]):
    """Change the context of a :class:`hyperrl.ContextEnv` within its episodes. The state of the environment stays.

    It belongs around the time limit: the last observation of an episode holds the context of the last step. The info of
    a step after which the episode goes on in another context holds ``context_switched``.

    :param env: an environment around a ``ContextEnv``.
    :param steps: the least and the greatest number of steps between two switches.
    :param contexts: the contexts to draw from, each as often as another, shape ``(n, d)``; ``None`` draws from the
        training range.

    >>> from hyperrl import load_family
    >>> env = ContextSwitch(load_family("pendulum").make(), (2, 2))
    >>> observation, info = env.reset(seed=0)
    >>> [env.step([0.0])[-1] for _ in range(4)]
    [{}, {'context_switched': True}, {}, {'context_switched': True}]
    """

    def __init__(self, env: gym.Env[Any, Any], steps: tuple[int, int], contexts: Vector | None = None) -> None:
        super().__init__(env)
        self._steps = steps
        self._contexts = contexts
        self._rng = np.random.default_rng()
        self._left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed decides its switches too."""
        if seed is not None:  # apart from the numbers of ContextEnv and of its inner environment
            self._rng = np.random.Generator(np.random.PCG64(seed).jumped(2))
        self._left = self._draw_steps()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step, and change the context after it where it is time and the episode goes on."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._left -= 1
        if self._left <= 0 and not (terminated or truncated):
            self._left = self._draw_steps()
            varied: ContextEnv = self.unwrapped  # pyright: ignore[reportAssignmentType]
            if self._contexts is None:
                context = varied.context_space.sample("train", 1, self._rng)[0]
            else:
                context = self._contexts[self._rng.integers(len(self._contexts))]
            varied.set_context(context)
            observation = {**observation, CONTEXT: context.astype(np.float32)}
            info = {**info, "context_switched": True}
        return observation, reward, terminated, truncated, info

    def _draw_steps(self) -> int:
        low, high = self._steps
        return int(self._rng.integers(low, high + 1))
