"""Acrobot: swing the tip of a two-link arm above a line, driven at the elbow; Gymnasium's ``Acrobot-v1``."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns

DT = 0.2  # s
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi  # rad/s
GRAVITY = 9.8  # m/s²
CENTER_2 = 0.5  # m, of the second link's mass
INERTIA = 1.0  # kg m², of either link
BOUND = np.array([1, 1, 1, 1, MAX_SPEED_1, MAX_SPEED_2], dtype=np.float32)


class Acrobot(Physics):
    """Two links, the shoulder free and the elbow driven. State: (θ₁, θ₂ [rad], θ₁', θ₂' [rad/s]).

    θ₁ is the first link's angle from hanging down, θ₂ the second's from the first. Equations of Sutton and Barto's
    book, integrated with one step of the classical Runge-Kutta method.
    """

    features = ("link_length_1", "link_mass_1", "link_mass_2", "torque")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Discrete(3)  # torque, times -1, 0 or 1
    uniforms = 4
    kick = (0.0, 0.0, 1.0, 2.0)  # rad/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """All four numbers within ±0.1, in single precision as Gymnasium has them."""
        return (0.2 * uniform - 0.1).float().to(uniform.dtype)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Reward -1, and 0 for the step that brings the tip above the line."""
        l1, m1, m2 = c["link_length_1"], c["link_mass_1"], c["link_mass_2"]
        torque = (action - 1) * c["torque"]
        # What of the equations does not depend on the angles: four evaluations share it.
        coupling = m2 * l1 * CENTER_2
        inertia_1 = m1 * (l1 / 2).square() + m2 * (l1.square() + CENTER_2**2) + 2 * INERTIA
        inertia_2 = m2 * CENTER_2**2 + INERTIA
        weight_1, weight_2 = (m1 * l1 / 2 + m2 * l1) * GRAVITY, m2 * (CENTER_2 * GRAVITY)

        def derivative(state: Tensor) -> Tensor:
            theta_1, theta_2, speed_1, speed_2 = state  # each (n,)
            coupled, twisting = coupling * theta_2.cos(), coupling * theta_2.sin()
            d1, d2 = inertia_1 + 2 * coupled, inertia_2 + coupled
            phi_2 = weight_2 * (theta_1 + theta_2).sin()  # cos(α - π/2) = sin α
            phi_1 = weight_1 * theta_1.sin() + phi_2 - twisting * speed_2 * (speed_2 + 2 * speed_1)
            ratio = d2 / d1
            acceleration_2 = (torque + ratio * phi_1 - twisting * speed_1.square() - phi_2) / (inertia_2 - ratio * d2)
            return torch.stack((speed_1, speed_2, -(d2 * acceleration_2 + phi_1) / d1, acceleration_2))

        y = state.T  # (4, n)
        k1 = derivative(y)
        k2 = derivative(y + DT / 2 * k1)
        k3 = derivative(y + DT / 2 * k2)
        k4 = derivative(y + DT * k3)
        angles, speeds = (y + DT / 6 * (k1 + 2 * (k2 + k3) + k4)).split(2)  # each (2, n)
        theta_1, theta_2 = torch.remainder(angles + math.pi, 2 * math.pi) - math.pi
        speed_1, speed_2 = speeds[0].clamp(-MAX_SPEED_1, MAX_SPEED_1), speeds[1].clamp(-MAX_SPEED_2, MAX_SPEED_2)
        terminated = theta_1.cos() + (theta_1 + theta_2).cos() < -1.0
        return columns(theta_1, theta_2, speed_1, speed_2), terminated.to(state.dtype) - 1, terminated

    def observe(self, state: Tensor) -> Tensor:
        """(cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ₁', θ₂')."""
        theta_1, theta_2, speed_1, speed_2 = state.unbind(1)
        return columns(theta_1.cos(), theta_1.sin(), theta_2.cos(), theta_2.sin(), speed_1, speed_2)

    def state_of(self, observation: Tensor) -> Tensor:
        """Both angles within ±π."""
        cos_1, sin_1, cos_2, sin_2, speed_1, speed_2 = observation.unbind(1)
        return columns(torch.atan2(sin_1, cos_1), torch.atan2(sin_2, cos_2), speed_1, speed_2)
