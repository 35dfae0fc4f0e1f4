"""Thermostat: hold the temperature of a room with a sluggish heat pump."""

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, RED, Canvas

DT = 0.1  # h
POWER = 40.0  # kW
TARGET = 20.0  # °C
LIMIT = 50.0  # °C from the target
BOUND = np.array([LIMIT, 1.0], dtype=np.float32)


class Thermostat(Physics):
    """One thermal mass, and a heat pump that follows its set point with a lag. State: (T - 20 [°C], heat [40 kW]).

    capacity·T' = loss·(outside - T) + 40·valve·heat and heat' = (set point - heat)/lag, which ends within ±1. Where
    ``valve`` is -1 the heat pump cools where it should heat.
    """

    features = ("capacity", "loss", "outside", "lag", "valve")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-1.0, 1.0, (1,))  # set point of the heat pump
    uniforms = 1
    kick = (-5.0, 0.0)  # K

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Within 10 °C of the target, the heat pump off."""
        temperature = 20 * uniform - 10
        return torch.cat((temperature, torch.zeros_like(temperature)), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-|T - 20 °C|/2)."""
        temperature, heat = state.unbind(1)
        flow = c["loss"] * (c["outside"] - TARGET - temperature) + POWER * c["valve"] * heat  # kW
        temperature = (temperature + DT * flow / c["capacity"]).clamp(-LIMIT, LIMIT)
        heat = (heat + DT / c["lag"] * (action[:, 0].clamp(-1.0, 1.0) - heat)).clamp(-1.0, 1.0)
        reward = (-temperature.abs() / 2).exp()
        return columns(temperature, heat), reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """A thermometer from 0 to 40 °C with the target, and the heat as a bar beside it."""
        canvas = Canvas(1.2)
        temperature, heat = map(float, state)
        canvas.bar(-0.4, -1, -0.2, 1, GREY)
        canvas.bar(-0.4, -1, -0.2, min(max(temperature / 20, -1.0), 1.0), RED)
        canvas.line([(-0.5, 0), (-0.1, 0)], GREEN, 0.03)
        canvas.bar(0.3, 0, 0.5, heat * context["valve"], GREY if heat * context["valve"] < 0 else RED)
        return canvas
