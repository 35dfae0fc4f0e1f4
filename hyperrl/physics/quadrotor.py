"""Planar quadrotor: hover at a point with two rotors, in the wind."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, INK, RED, Canvas

DT = 0.04  # s
GRAVITY = 9.81  # m/s²
MAX_THRUST = 12.0  # N, of one rotor
BODY_INERTIA = 0.02  # kg m²
BOUND = np.array([3.0, 3.0, 1.0, 1.0, 5.0, 5.0, 10.0], dtype=np.float32)


class Quadrotor(Physics):
    """A rigid body in a vertical plane with a rotor at either end. State: (x, y, θ, x', y', θ') in m, rad and s.

    Half of the mass is at either end, so the inertia is 0.02 + mass·arm_length². The wind is a force along x. Where
    ``rotors`` is -1 the two rotors are connected the wrong way round. x and y end at ±3 m, the speeds at ±5 m/s and
    ±10 rad/s.
    """

    features = ("mass", "arm_length", "wind", "rotors")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-1.0, 1.0, (2,))  # of the left and the right rotor, -1 for no thrust and 1 for all of it
    uniforms = 3
    kick = (0.0, 0.0, 0.0, 1.5, 0.0, 2.0)  # m/s, rad/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """At rest, within 1.5 m of the origin along either axis, tilted by at most 0.3 rad."""
        place = (2 * uniform - 1) * uniform.new_tensor([1.5, 1.5, 0.3])  # (n, 3)
        return torch.cat((place, torch.zeros_like(place)), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-d²) for the distance d from the origin in metres."""
        x, y, theta, vx, vy, omega = state.unbind(1)
        left, right = ((action.clamp(-1.0, 1.0) + 1) * (MAX_THRUST / 2)).unbind(1)
        thrust = (left + right) / c["mass"]
        torque = (right - left) * c["arm_length"] * c["rotors"]
        vx = (vx + DT * (c["wind"] / c["mass"] - thrust * theta.sin())).clamp(-5.0, 5.0)
        vy = (vy + DT * (thrust * theta.cos() - GRAVITY)).clamp(-5.0, 5.0)
        inertia = BODY_INERTIA + c["mass"] * c["arm_length"].square()
        omega = (omega + DT * torque / inertia).clamp(-10.0, 10.0)
        x, y = (x + DT * vx).clamp(-3.0, 3.0), (y + DT * vy).clamp(-3.0, 3.0)
        reward = (-(x.square() + y.square())).exp()
        return columns(x, y, theta + DT * omega, vx, vy, omega), reward, torch.zeros_like(x, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(x, y, cos θ, sin θ, x', y', θ')."""
        x, y, theta, vx, vy, omega = state.unbind(1)
        return columns(x, y, theta.cos(), theta.sin(), vx, vy, omega)

    def state_of(self, observation: Tensor) -> Tensor:
        """θ up to whole turns."""
        x, y, cos, sin, vx, vy, omega = observation.unbind(1)
        return columns(x, y, torch.atan2(sin, cos), vx, vy, omega)

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The body twice as long as it is, with its rotors, the goal, and the wind as a line from the centre."""
        canvas = Canvas(3.2)
        x, y, theta = map(float, state[:3])
        canvas.disc((0, 0), 0.12, GREEN)
        canvas.line([(x, y), (x + 0.5 * context["wind"], y)], GREY, 0.04)
        dx, dy = 2 * context["arm_length"] * math.cos(theta), 2 * context["arm_length"] * math.sin(theta)
        canvas.line([(x - dx, y - dy), (x + dx, y + dy)], RED, 0.1 * math.sqrt(context["mass"]))
        for end, color in ((-1, INK), (1, GREY)):
            canvas.disc((x + end * dx, y + end * dy), 0.08, color)
        return canvas
