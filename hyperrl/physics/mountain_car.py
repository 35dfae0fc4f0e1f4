"""Mountain car: rock a weak car out of a valley, full throttle either way; Gymnasium's ``MountainCar-v0``."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns

MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07  # 1/step
LOW = np.array([MIN_POSITION, -MAX_SPEED], dtype=np.float32)
HIGH = np.array([MAX_POSITION, MAX_SPEED], dtype=np.float32)
GOAL_POSITION = 0.5


class MountainCar(Physics):
    """A car in a valley of height sin(3·x). State: (x, x' [1/step]).

    Moore's car (1990): each step x' grows by the engine's force less the slope's pull, gravity·cos(3·x).
    """

    features = ("gravity", "force")
    observation_space = spaces.Box(LOW, HIGH)
    action_space = spaces.Discrete(3)  # force, times -1, 0 or 1
    uniforms = 1
    kick = (0.0, -0.02)  # 1/step

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """At rest, x within [-0.6, -0.4]."""
        return columns(0.2 * uniform[:, 0] - 0.6, torch.zeros_like(uniform[:, 0]))

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Reward -1 a step; the left wall stops the car."""
        x, speed = state.unbind(1)
        speed = (speed + (action - 1) * c["force"] - (3 * x).cos() * c["gravity"]).clamp(-MAX_SPEED, MAX_SPEED)
        x = (x + speed).clamp(MIN_POSITION, MAX_POSITION)
        speed = torch.where(x == MIN_POSITION, speed.clamp(min=0.0), speed)
        return columns(x, speed), torch.full_like(x, -1.0), (x >= GOAL_POSITION) & (speed >= 0)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state
