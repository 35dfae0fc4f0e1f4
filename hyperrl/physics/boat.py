"""Boat: stay at a buoy in a current."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, RED, Canvas

DT = 0.1  # s
THRUST = 2.5  # m/s²
LIMIT = 4.0  # m
MAX_SPEED = 10.0  # m/s through the water
BOUND = np.array([LIMIT, LIMIT, 1.0, 1.0, MAX_SPEED], dtype=np.float32)


class Boat(Physics):
    """A boat with a propeller and a rudder. State: (x, y [m], heading [rad], speed through the water [m/s]).

    The rudder turns the boat the more the faster it goes, and a little at rest. The current carries it along. Where
    ``rudder_gain`` is negative the rudder works the wrong way round. x and y end at ±4.
    """

    features = ("current_x", "current_y", "drag", "rudder_gain")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-1.0, 1.0, (2,))  # throttle and rudder
    uniforms = 3
    kick = (0.7, 0.7, 0.0, 0.0)  # m

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Within 2 m of the buoy along either axis, with any heading, without speed through the water."""
        place = (2 * uniform - 1) * uniform.new_tensor([2.0, 2.0, torch.pi])
        return torch.cat((place, torch.zeros_like(place[:, :1])), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-d) for the distance d from the buoy in metres."""
        x, y, heading, speed = state.unbind(1)
        throttle, rudder = action.clamp(-1.0, 1.0).unbind(1)
        speed = (speed + DT * (THRUST * throttle - c["drag"] * speed)).clamp(-MAX_SPEED, MAX_SPEED)
        heading = heading + DT * c["rudder_gain"] * rudder * (0.5 + speed.abs())
        x = (x + DT * (speed * heading.cos() + c["current_x"])).clamp(-LIMIT, LIMIT)
        y = (y + DT * (speed * heading.sin() + c["current_y"])).clamp(-LIMIT, LIMIT)
        reward = (-torch.hypot(x, y)).exp()
        return columns(x, y, heading, speed), reward, torch.zeros_like(x, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(x, y, cos heading, sin heading, speed)."""
        x, y, heading, speed = state.unbind(1)
        return columns(x, y, heading.cos(), heading.sin(), speed)

    def state_of(self, observation: Tensor) -> Tensor:
        """The heading up to whole turns."""
        x, y, cos, sin, speed = observation.unbind(1)
        return columns(x, y, torch.atan2(sin, cos), speed)

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The buoy, the boat with its bow, and the current as a line from the buoy."""
        canvas = Canvas(4.2)
        x, y, heading, _ = map(float, state)
        canvas.line([(0, 0), (2 * context["current_x"], 2 * context["current_y"])], GREY, 0.06)
        canvas.disc((0, 0), 0.15, GREEN)
        bow = (x + 0.4 * math.cos(heading), y + 0.4 * math.sin(heading))
        canvas.line([(2 * x - bow[0], 2 * y - bow[1]), bow], RED, 0.2)
        canvas.disc(bow, 0.16, GREY)
        return canvas
