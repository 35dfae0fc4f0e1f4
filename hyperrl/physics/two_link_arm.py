"""Two-link arm: move a payload to a point in the plane."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.base import Context, Physics, columns
from hyperrl.physics.canvas import GREEN, INK, RED, Canvas

DT = 0.05  # s
UPPER_ARM = 0.5  # m
ELBOW_MASS = 1.0  # kg
MOTOR_INERTIA = 0.1  # kg m², at either joint
MAX_TORQUE = (4.0, 2.0)  # N m, of shoulder and elbow
MAX_SPEED = 10.0  # rad/s
BOUND = np.array([1.0] * 4 + [MAX_SPEED] * 2 + [0.8] * 2, dtype=np.float32)


class TwoLinkArm(Physics):
    """Two massless links in a horizontal plane, point masses at the elbow and in the hand (Murray et al. 1994).

    State: (q₁, q₂ [rad], q₁', q₂' [rad/s], goal x, y [m]); q₂ is the angle at the elbow, 0 for a straight arm. The mass
    matrix is that of the two masses plus the motors' inertia; joints are damped.
    """

    features = ("payload", "forearm", "damping", "torque_gain")
    observation_space = spaces.Box(-BOUND, BOUND)
    action_space = spaces.Box(-1.0, 1.0, (2,))  # shares of the largest torques
    uniforms = 4
    kick = (0.0, 0.0, 3.0, -3.0, 0.0, 0.0)  # rad/s

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """At rest in any posture; the goal is 0.2 m to 0.7 m from the shoulder."""
        q = (2 * uniform[:, :2] - 1) * torch.pi  # (n, 2)
        distance, angle = 0.2 + 0.5 * uniform[:, 2], 2 * torch.pi * uniform[:, 3]
        goal = columns(distance * angle.cos(), distance * angle.sin())
        return torch.cat((q, torch.zeros_like(q), goal), dim=1)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """The reward is exp(-3·d) for the distance d of the hand from the goal in metres."""
        q1, q2, w1, w2, goal_x, goal_y = state.unbind(1)
        u1, u2 = (action.clamp(-1.0, 1.0) * c["torque_gain"][:, None]).unbind(1)
        m, l2 = c["payload"], c["forearm"]
        coupling = m * UPPER_ARM * l2
        m22 = m * l2.square() + MOTOR_INERTIA
        m12 = m * l2.square() + coupling * q2.cos()
        m11 = (ELBOW_MASS + m) * UPPER_ARM**2 + m * l2.square() + 2 * coupling * q2.cos() + MOTOR_INERTIA
        h = coupling * q2.sin()
        t1 = MAX_TORQUE[0] * u1 + h * (2 * w1 * w2 + w2.square()) - c["damping"] * w1
        t2 = MAX_TORQUE[1] * u2 - h * w1.square() - c["damping"] * w2
        determinant = m11 * m22 - m12.square()
        w1, w2 = (
            (w1 + DT * (m22 * t1 - m12 * t2) / determinant).clamp(-MAX_SPEED, MAX_SPEED),
            (w2 + DT * (m11 * t2 - m12 * t1) / determinant).clamp(-MAX_SPEED, MAX_SPEED),
        )
        q1, q2 = q1 + DT * w1, q2 + DT * w2
        hand_x = UPPER_ARM * q1.cos() + l2 * (q1 + q2).cos()
        hand_y = UPPER_ARM * q1.sin() + l2 * (q1 + q2).sin()
        reward = (-3 * torch.hypot(hand_x - goal_x, hand_y - goal_y)).exp()
        return columns(q1, q2, w1, w2, goal_x, goal_y), reward, torch.zeros_like(q1, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """(cos q₁, sin q₁, cos q₂, sin q₂, q₁', q₂', goal x, y)."""
        q1, q2, w1, w2, goal_x, goal_y = state.unbind(1)
        return columns(q1.cos(), q1.sin(), q2.cos(), q2.sin(), w1, w2, goal_x, goal_y)

    def state_of(self, observation: Tensor) -> Tensor:
        """Angles up to whole turns."""
        cos1, sin1, cos2, sin2, *others = observation.unbind(1)
        return columns(torch.atan2(sin1, cos1), torch.atan2(sin2, cos2), *others)

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas:
        """The arm as long as it is, the payload as a disc whose area is proportional to it, and the goal."""
        canvas = Canvas(1.4)
        q1, q2, _, _, *goal = map(float, state)
        elbow = (UPPER_ARM * math.cos(q1), UPPER_ARM * math.sin(q1))
        hand = (elbow[0] + context["forearm"] * math.cos(q1 + q2), elbow[1] + context["forearm"] * math.sin(q1 + q2))
        canvas.disc((goal[0], goal[1]), 0.07, GREEN)
        canvas.line([(0, 0), elbow, hand], INK, 0.05)
        canvas.disc(hand, 0.07 * math.sqrt(context["payload"]), RED)
        return canvas
