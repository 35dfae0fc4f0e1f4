"""One environment of a family that has physics of its own and no Gymnasium original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from hyperrl.physics.base import Physics
from hyperrl.physics.canvas import Canvas, Frame


class PhysicsEnv(gym.Env[np.ndarray, Any]):
    """A Gymnasium environment of one row of physics, for :class:`hyperrl.ContextEnv` to vary.

    :param physics: the dynamics.
    :param render_mode: ``"rgb_array"`` or ``None``.

    >>> from hyperrl.physics.registry import load
    >>> env = PhysicsEnv(load("ode"))
    >>> env.context = {"c0": 1.0, "c1": -2.0}
    >>> observation, info = env.reset(seed=0)
    >>> observation.shape
    (1,)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's type)

    def __init__(self, physics: Physics, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}: the modes are ['rgb_array']")
        self.physics = physics
        self.render_mode = render_mode
        self.observation_space = physics.observation_space
        self.action_space = physics.action_space
        self.context = {}

    @property
    def context(self) -> Mapping[str, float]:
        """Feature name = value; may be set, and holds from the next ``reset`` or ``step``."""
        return self._context

    @context.setter
    def context(self, context: Mapping[str, float]) -> None:
        self._context = context
        self._c = {name: torch.tensor([value], dtype=torch.float64) for name, value in context.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in the context that is set."""
        super().reset(seed=seed)
        uniform = torch.from_numpy(self.np_random.random((1, self.physics.uniforms)))
        self._state = self.physics.initial(uniform, self._c)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step; time limits are Gymnasium's to set."""
        row = torch.as_tensor(np.asarray(action))[None]
        row = row.double() if row.is_floating_point() else row
        self._state, reward, terminated = self.physics.step(self._state, row, self._c)
        if not self._state.isfinite().all():
            raise ValueError(f"the state is no longer finite after action {action} in the context {dict(self.context)}")
        return self._observe(), reward.item(), bool(terminated.item()), False, {}

    @property
    def state(self) -> np.ndarray:
        """The state of the physics, shape ``(s,)``; may be set, and the next ``step`` goes on from it."""
        return self._state[0].numpy()

    @state.setter
    def state(self, state: np.ndarray) -> None:
        self._state = torch.tensor(state, dtype=torch.float64)[None]

    def render(self) -> Frame | None:
        """Draw the state in its context, with ``render_mode="rgb_array"``; shape ``(height, width, 3)``.

        :raises ValueError: where the physics has no drawing.
        """
        if self.render_mode is None:
            return None
        drawn = self.physics.draw(self.state, self.context)
        if drawn is None:
            raise ValueError(f"{type(self.physics).__name__} has no drawing: give it a method draw()")
        return drawn.frame() if isinstance(drawn, Canvas) else drawn

    def _observe(self) -> np.ndarray:
        return self.physics.observe(self._state)[0].to(torch.float32, copy=True).numpy()
