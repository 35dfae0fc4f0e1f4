"""Double integrator: push a mass in the plane to the origin; as in Benad et al. (2026)."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics
from hyperrl.physics.canvas import GREEN, GREY, RED, Canvas

DT = 0.1  # s
RADIUS = 0.1  # m


class DoubleIntegrator(Physics):
    """A mass in the square [-1, 1]². State: (x, y [m], x', y' [m/s]), all clipped to ±1.

    x ← x + dt·v, then v ← v·(1 - dt·friction/mass) + dt·force/mass, where force = clip(action_factor·action, ±1).
    A family that has no ``friction`` has none, and one that has no ``action_factor`` has 1. Where ``permutation`` is 1,
    the first number of the action pushes along y and the second along x.
    """

    features = ("mass",)
    observation_space = spaces.Box(-1.0, 1.0, (4,))
    action_space = spaces.Box(-1.0, 1.0, (2,))  # force, N
    uniforms = 4
    kick = (0.0, 0.0, 0.5, 0.3)  # m/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """At rest near a corner: either coordinate within [0.8, 1], either sign."""
        distance, sign = uniform.split(2, dim=1)  # each (n, 2)
        position = (0.8 + 0.2 * distance) * (1 - 2 * (sign < 0.5).to(sign.dtype))
        return torch.cat((position, torch.zeros_like(position)), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Reward 1 within 0.1 m of the origin."""
        position, velocity = state.split(2, dim=1)  # each (n, 2)
        position = (position + DT * velocity).clamp(-1.0, 1.0)
        per_mass = DT / c["mass"]
        if "friction" in c:
            velocity = velocity * (1 - per_mass * c["friction"])[:, None]
        if "permutation" in c:
            action = torch.where(c["permutation"][:, None] == 1, action.flip(1), action)
        force = (action * c["action_factor"][:, None] if "action_factor" in c else action).clamp(-1.0, 1.0)
        velocity = (velocity + force * per_mass[:, None]).clamp(-1.0, 1.0)
        reward = (position.square().sum(1) <= RADIUS**2).to(state.dtype)
        return torch.cat((position, velocity), dim=1), reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The square, the goal in it, and the mass as a disc whose area is proportional to it."""
        canvas = Canvas(1.25)
        canvas.line([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], GREY, 0.02)
        canvas.disc((0, 0), 0.1, GREEN)
        canvas.disc((float(state[0]), float(state[1])), 0.09 * math.sqrt(context["mass"]), RED)
        return canvas
