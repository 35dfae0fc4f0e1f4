"""Epidemic: weigh infections against the cost of keeping apart."""

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, GREY, INK, RED, Canvas

DT = 1.0  # day


class Epidemic(Physics):
    """The SIR model (Kermack and McKendrick 1927). State: shares of the population (susceptible, infected).

    s' = -contact_rate·(1 - compliance·u)·s·i and i' = -s' - recovery_rate·i, where u in [0, 1] is how strictly people
    are asked to keep apart. The cost of asking is part of the context: the reward depends on it, the infections do not.
    """

    features = ("contact_rate", "recovery_rate", "compliance", "cost")
    observation_space = spaces.Box(0.0, 1.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))  # from no measures to the strictest
    uniforms = 2

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """0.1 % to 10 % are infected; of the others 70 % to all are susceptible."""
        infected = 0.001 * 100 ** uniform[:, 1]
        return columns((0.7 + 0.3 * uniform[:, 0]) * (1 - infected), infected)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is 1 - 20·infected - cost·u²."""
        susceptible, infected = state.unbind(1)
        u = (1 + action[:, 0].clamp(-1.0, 1.0)) / 2
        new = (DT * c["contact_rate"] * (1 - c["compliance"] * u) * susceptible * infected).minimum(susceptible)
        infected = infected + new - DT * c["recovery_rate"] * infected
        reward = 1 - 20 * infected - c["cost"] * u.square()
        return columns(susceptible - new, infected), reward, torch.zeros_like(u, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """Shares of the population as bars: susceptible, infected and recovered."""
        canvas = Canvas(1.2)
        susceptible, infected = map(float, state)
        bars = (susceptible, GREEN), (infected, RED), (1 - susceptible - infected, GREY)
        for x, (share, color) in zip((-0.7, 0.0, 0.7), bars, strict=True):
            canvas.bar(x - 0.2, -1, x + 0.2, 2 * share - 1, color)
        canvas.line([(-1.1, -1), (1.1, -1)], INK, 0.03)
        return canvas
