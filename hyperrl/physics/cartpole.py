"""Cart-pole: keep a pole upright by pushing its cart left or right; Gymnasium's ``CartPole-v1``."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns

DT = 0.02  # s
MAX_ANGLE = math.radians(12)  # rad
MAX_POSITION = 2.4  # m
BOUND = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], dtype=np.float32)


class Cartpole(Physics):
    """A pole hinged on a cart. State: (x [m], x' [m/s], θ [rad] from upright, θ' [rad/s]).

    Equations of Barto, Sutton and Anderson (1983) without friction, ``length`` being half of the pole's.
    """

    features = ("gravity", "masscart", "masspole", "length", "force_mag")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Discrete(2)  # left, right
    uniforms = 4
    kick = (0.0, 0.0, 0.0, 0.5)  # rad/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """All four numbers within ±0.05."""
        return 0.1 * uniform - 0.05

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Reward 1, also for the step with which the episode ends."""
        _, x_dot, theta, theta_dot = state.unbind(1)
        length, mass = c["length"], c["masscart"] + c["masspole"]
        moment = c["masspole"] * length
        force = torch.where(action.bool(), c["force_mag"], -c["force_mag"])
        cos, sin = theta.cos(), theta.sin()
        push = (force + moment * theta_dot.square() * sin) / mass
        theta_acc = (c["gravity"] * sin - cos * push) / (length * (4 / 3 - c["masspole"] * cos.square() / mass))
        x_acc = push - moment * theta_acc * cos / mass
        state = torch.add(state, columns(x_dot, x_acc, theta_dot, theta_acc), alpha=DT)
        x, _, theta, _ = state.unbind(1)
        terminated = (x.abs() > MAX_POSITION) | (theta.abs() > MAX_ANGLE)
        return state, torch.ones_like(push), terminated

    def observe(self, state: Tensor) -> Tensor:
        """The state."""
        return state
