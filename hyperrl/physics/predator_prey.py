"""Predator and prey: hold the number of prey by releasing or hunting predators."""

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, INK, RED, Canvas

DT = 0.05  # years
CAPACITY = 4.0  # prey, in units of the number to hold
LIMIT = 4.0  # of the logarithms


class PredatorPrey(Physics):
    """The Lotka-Volterra equations with limited food (Murray 2002), in logarithms. State: (log prey, log predators).

    (log prey)' = growth·(1 - prey/4) - predation·predators and (log predators)' = conversion·prey - mortality + 2·u for
    the action u. Both logarithms end at ±4.
    """

    features = ("growth", "predation", "conversion", "mortality")
    observation_space = spaces.Box(-LIMIT, LIMIT, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))  # release predators, or hunt them
    uniforms = 2
    kick = (0.5, -0.5)

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Both numbers between a third of 1 and 3."""
        return (2 * uniform - 1) * 1.1

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-3·|log prey|): 1 where the number of prey is 1."""
        prey, predators = state.unbind(1)
        growth = c["growth"] * (1 - prey.exp() / CAPACITY) - c["predation"] * predators.exp()
        change = c["conversion"] * prey.exp() - c["mortality"] + 2 * action[:, 0].clamp(-1.0, 1.0)
        prey = (prey + DT * growth).clamp(-LIMIT, LIMIT)
        predators = (predators + DT * change).clamp(-LIMIT, LIMIT)
        reward = (-3 * prey.abs()).exp()
        return columns(prey, predators), reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The plane of the logarithms: the number of prey to hold, where the prey stay as many, and the state."""
        canvas = Canvas(3.0)
        canvas.line([(-3, 0), (3, 0)], GREY, 0.02)
        canvas.line([(0, -3), (0, 3)], GREEN, 0.05)
        prey = np.linspace(-3, 1.35, 40)
        steady = np.log(context["growth"] * (1 - np.exp(prey) / CAPACITY) / context["predation"])
        canvas.line([*zip(prey.tolist(), steady.tolist(), strict=True)], INK, 0.03)
        canvas.disc((float(state[0]), float(state[1])), 0.12, RED)
        return canvas
