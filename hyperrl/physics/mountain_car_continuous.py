"""Mountain car with a throttle: as little effort as possible; Gymnasium's ``MountainCarContinuous-v0``."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns

MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07  # 1/step
LOW = np.array([MIN_POSITION, -MAX_SPEED], dtype=np.float32)
HIGH = np.array([MAX_POSITION, MAX_SPEED], dtype=np.float32)
GRAVITY = 0.0025  # 1/step²


class MountainCarContinuous(Physics):
    """A car in a valley of height sin(3·x). State: (x, x' [1/step]).

    Gymnasium rounds this state to single precision after each step; here it has the precision of all others.
    """

    features = ("power", "goal_position")
    observation_space = spaces.Box(LOW, HIGH)
    action_space = spaces.Box(-1.0, 1.0, (1,))  # throttle
    uniforms = 1
    kick = (0.0, -0.02)  # 1/step

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """At rest, x within [-0.6, -0.4]."""
        return columns(0.2 * uniform[:, 0] - 0.6, torch.zeros_like(uniform[:, 0]))

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Reward 100 at the goal, less the effort; the left wall stops the car."""
        x, speed = state.unbind(1)
        throttle = action[:, 0]
        push = torch.sub(throttle.clamp(-1.0, 1.0) * c["power"], (3 * x).cos(), alpha=GRAVITY)
        speed = (speed + push).clamp(-MAX_SPEED, MAX_SPEED)
        x = (x + speed).clamp(MIN_POSITION, MAX_POSITION)
        speed = torch.where(x == MIN_POSITION, speed.clamp(min=0.0), speed)
        terminated = (x >= c["goal_position"]) & (speed >= 0)
        reward = torch.addcmul(100 * terminated, throttle, throttle, value=-0.1)
        return columns(x, speed), reward, terminated

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state
