"""ODE: keep a number near zero whose rate is a polynomial of the action; as in Beukman et al. (2023)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics
from hyperrl.physics.canvas import GREEN, GREY, RED, Canvas

DT = 0.01
LIMIT = 20.0
REWARDS = ((2.0, 0.05), (0.5, 1 / 4), (0.2, 1 / 3), (0.1, 1 / 2), (0.05, 1.0))  # for |x| below


class Ode(Physics):
    """x' = Re(c₀·a + c₁·a² + c₂·a³ + …) for the complex action a = a₀ + i·a₁. State: (x,), clipped to ±20.

    There are as many coefficients as the family has features, in their order.
    """

    features = ()
    observation_space = spaces.Box(-LIMIT, LIMIT, (1,))
    action_space = spaces.Box(-1.0, 1.0, (2,))  # real and imaginary part
    uniforms = 1
    kick = (1.0,)

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Within ±1."""
        return 2 * uniform - 1

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The nearer to zero after the step, the greater the reward."""
        a0, a1 = action.clamp(-1.0, 1.0).unbind(1)
        first, *others = c.values()
        real, imaginary = a0, a1
        rate = first * real
        for coefficient in others:
            real, imaginary = real * a0 - imaginary * a1, real * a1 + imaginary * a0
            rate = rate + coefficient * real
        state = (state + DT * rate[:, None]).clamp(-LIMIT, LIMIT)
        distance = state[:, 0].abs()
        reward = torch.zeros_like(distance)
        for below, value in REWARDS:
            reward.masked_fill_(distance < below, value)
        return state, reward, torch.zeros_like(distance, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state

    def optimum(self, c: Context, steps: int) -> Tensor:
        """Go to zero as fast as the actions allow, and stay.

        The rates of all actions are an interval around 0, as the square of actions is connected. So x may move by any
        amount up to the greatest, and from x₀ = u no policy is nearer to zero after t steps than max(0, u - s) for the
        distance s = 0.01·t·rate, which this one attains at every t. Rewards fall with the distance. u is uniform, and
        P(u - s < b) = min(1, b + s) for each bound b at which the reward changes.
        """
        rates = [rate for context in torch.stack([*c.values()], dim=1).tolist() for rate in _extreme_rates(context)]
        reach = DT * torch.arange(1, steps + 1) * torch.tensor(rates, dtype=torch.float64)[:, None]  # (2n, steps)
        total, previous = torch.zeros(len(rates), dtype=torch.float64), 0.0
        for below, value in REWARDS:
            total += (value - previous) * (below + reach).clamp(max=1.0).sum(dim=1)
            previous = value
        return total.reshape(-1, 2).mean(dim=1)  # x₀ is as often positive as negative

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The number on a line from -2 to 2; beyond that it is drawn at the end."""
        canvas = Canvas(2.3)
        canvas.line([(-2, 0), (2, 0)], GREY, 0.03)
        canvas.line([(0, -0.3), (0, 0.3)], GREEN, 0.06)
        canvas.disc((min(max(float(state[0]), -2.0), 2.0), 0.0), 0.1, RED)
        return canvas


def _extreme_rates(coefficients: list[float]) -> tuple[float, float]:
    """Return the fastest rates down and up, both positive, over all actions of one context.

    The rate is the real part of an analytic function of the action: it is extreme on an edge of the square.
    """
    rate = Polynomial([0.0, *coefficients])
    values: list[float] = []
    for corner, along in ((1, 1j), (-1, 1j), (1j, 1), (-1j, 1)):
        edge: Any = rate(Polynomial([corner, along]))
        real = Polynomial(edge.coef.real)
        roots = real.deriv().roots()
        inner = roots.real[(np.abs(roots.imag) < 1e-9) & (np.abs(roots.real) < 1)]
        values += real(np.concatenate([[-1.0, 1.0], inner])).tolist()
    return -min(values), max(values)
