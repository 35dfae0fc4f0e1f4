"""ODE: keep a number near zero whose rate is a polynomial of the action; as in Beukman et al. (2023)."""

import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.physics import Context, Physics

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
