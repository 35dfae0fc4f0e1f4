"""Two tanks: hold the level of the second one by pumping into the first."""

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, INK, Canvas

DT = 0.2  # min
LIMIT = 5.0  # m
SMALL = 1e-6  # m, at which the outflow's slope stays finite


class Tanks(Physics):
    """Two tanks of 1 m² in series, after Torricelli. State: their levels (h₁, h₂ [m]), from 0 to 5.

    h₁' = pump·(1 + u)/2 - outlet_1·√h₁ and h₂' = outlet_1·√h₁ - outlet_2·√h₂ for the action u. The level to hold is
    part of the context: the reward depends on it, and the flow does not.
    """

    features = ("outlet_1", "outlet_2", "pump", "level")
    observation_space = spaces.Box(0.0, LIMIT, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))  # the pump, off to full
    uniforms = 2
    kick = (0.0, 0.5)  # m

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Either level up to 2 m."""
        return 2 * uniform

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-4·d) for the distance d of the second level from that to hold, in metres."""
        first, second = state.unbind(1)
        inflow = c["pump"] * (1 + action[:, 0].clamp(-1.0, 1.0)) / 2
        between = c["outlet_1"] * first.clamp(min=SMALL).sqrt()
        outflow = c["outlet_2"] * second.clamp(min=SMALL).sqrt()
        first = (first + DT * (inflow - between)).clamp(0.0, LIMIT)
        second = (second + DT * (between - outflow)).clamp(0.0, LIMIT)
        reward = (-4 * (second - c["level"]).abs()).exp()
        return columns(first, second), reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """Both tanks, 3 m of them, and the level to hold."""
        canvas = Canvas(1.7)
        for left, level in zip((-1.3, 0.3), state.tolist(), strict=True):
            top = min(level, 3.0) - 1.5
            canvas.bar(left, -1.5, left + 1, top, GREY)
            canvas.line([(left, 1.5), (left, -1.5), (left + 1, -1.5), (left + 1, 1.5)], INK, 0.05)
        canvas.line([(0.3, context["level"] - 1.5), (1.3, context["level"] - 1.5)], GREEN, 0.05)
        return canvas
