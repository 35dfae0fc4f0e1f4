"""Lane keeping: drive along a line with a car that slips and whose wheels are out of true."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, INK, RED, Canvas

DT = 0.1  # s
MAX_ANGLE = 0.6  # rad, of the wheels
LIMIT = 3.0  # m
BOUND = np.array([LIMIT, 1.0, 1.0, MAX_ANGLE], dtype=np.float32)


class LaneKeeping(Physics):
    """A kinematic bicycle that drives at constant speed. State: (y [m], heading [rad], angle of the wheels [rad]).

    y' = speed·sin(heading) + slip and heading' = speed/wheelbase·tan(wheels + misalignment). The wheels go half of the
    way to where they are steered in a step. Where ``steering`` is -1 they go the other way. y ends at ±3.
    """

    features = ("speed", "wheelbase", "slip", "misalignment", "steering")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-1.0, 1.0, (1,))  # where to steer, a share of 0.6 rad
    uniforms = 2
    kick = (0.5, 0.2, 0.0)  # m, rad

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Within 2 m of the line and 0.8 rad of its direction, the wheels straight."""
        place = (2 * uniform - 1) * uniform.new_tensor([2.0, 0.8])
        return torch.cat((place, torch.zeros_like(place[:, :1])), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-2·|y|)·(1 + cos heading)/2."""
        y, heading, wheels = state.unbind(1)
        wheels = (wheels + MAX_ANGLE * c["steering"] * action[:, 0].clamp(-1.0, 1.0)) / 2
        heading = heading + DT * c["speed"] / c["wheelbase"] * (wheels + c["misalignment"]).tan()
        y = (y + DT * (c["speed"] * heading.sin() + c["slip"])).clamp(-LIMIT, LIMIT)
        reward = (-2 * y.abs()).exp() * (1 + heading.cos()) / 2
        return columns(y, heading, wheels), reward, torch.zeros_like(y, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(y, cos heading, sin heading, wheels)."""
        y, heading, wheels = state.unbind(1)
        return columns(y, heading.cos(), heading.sin(), wheels)

    def state_of(self, observation: Tensor) -> Tensor:
        """The heading up to whole turns."""
        y, cos, sin, wheels = observation.unbind(1)
        return columns(y, torch.atan2(sin, cos), wheels)

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The line, the car as long as its wheelbase, and its front wheels."""
        canvas = Canvas(3.2)
        y, heading, wheels = map(float, state)
        canvas.line([(-3, 0), (3, 0)], GREEN, 0.05)
        canvas.line([(-2, 0), (-2, 2 * context["slip"])], GREY, 0.05)
        dx, dy = context["wheelbase"] * math.cos(heading), context["wheelbase"] * math.sin(heading)
        canvas.line([(-dx, y - dy), (dx, y + dy)], RED, 0.3)
        angle = heading + wheels + context["misalignment"]
        canvas.line([(dx, y + dy), (dx + 0.3 * math.cos(angle), y + dy + 0.3 * math.sin(angle))], INK, 0.12)
        return canvas
