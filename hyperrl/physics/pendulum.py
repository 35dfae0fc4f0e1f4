"""Pendulum: swing a rod up and hold it there; Gymnasium's ``Pendulum-v1`` with a gain on the torque."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import INK, RED, Canvas

DT = 0.05  # s
MAX_SPEED = 8.0  # rad/s
BOUND = np.array([1, 1, MAX_SPEED], dtype=np.float32)


class Pendulum(Physics):
    """A uniform rod on a hinge, at angle θ from upright. State: (θ [rad], θ' [rad/s]).

    Newton for the rod, with inertia m·l²/3 and torque gain·u: θ'' = 3·g/(2·l)·sin θ + 3/(m·l²)·gain·u.
    """

    features = ("gravity", "mass", "length", "torque_gain")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-2.0, 2.0, (1,))  # N m
    uniforms = 2
    kick = (0.0, 4.0)  # rad/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Any angle, a speed within ±1 rad/s."""
        return (2 * uniform - 1) * uniform.new_tensor([math.pi, 1.0])

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The cost is of the state before the step, and of the torque as applied."""
        theta, speed = state.unbind(1)
        u = action[:, 0].clamp(-2.0, 2.0) * c["torque_gain"]
        from_upright = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
        reward = -(from_upright.square() + 0.1 * speed.square() + 0.001 * u.square())
        acceleration = 1.5 * c["gravity"] / c["length"] * theta.sin() + 3 * u / (c["mass"] * c["length"].square())
        speed = (speed + DT * acceleration).clamp(-MAX_SPEED, MAX_SPEED)
        return columns(theta + DT * speed, speed), reward, torch.zeros_like(theta, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(cos θ, sin θ, θ')."""
        theta, speed = state.unbind(1)
        return columns(theta.cos(), theta.sin(), speed)

    def state_of(self, observation: Tensor) -> Tensor:
        """θ up to whole turns."""
        cos, sin, speed = observation.unbind(1)
        return columns(torch.atan2(sin, cos), speed)

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The rod as long as it is, and as thick as its mass makes it; 1.6 m are shown either way."""
        canvas = Canvas(1.6)
        angle, length = float(state[0]), context["length"]
        tip = (-length * math.sin(angle), length * math.cos(angle))
        canvas.line([(0, 0), tip], RED, 0.16 * math.sqrt(context["mass"] / length))
        canvas.disc((0, 0), 0.04, INK)
        return canvas
