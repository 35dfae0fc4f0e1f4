"""What Gymnasium's MuJoCo environments observe and reward, for all rows at once and equal to them to the bit.

The weights and limits of each are those of one environment of the kind, its prototype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np

Array = np.ndarray


class Body(ABC):
    """One of Gymnasium's environments.

    :param env: the prototype, unwrapped.
    """

    def __init__(self, env: Any) -> None:
        self.env = env

    @abstractmethod
    def observe(self, qpos: Array, qvel: Array) -> Array:
        """Return the observations ``(n, o)`` of positions ``(n, nq)`` and velocities ``(n, nv)``."""

    @abstractmethod
    def outcome(self, before: Array, qpos: Array, qvel: Array, action: Array) -> tuple[Array, Array]:
        """Return the rewards ``(n,)`` and whether each episode terminates, bool ``(n,)``.

        :param before: the positions before the step, shape ``(n, nq)``.
        :param qpos: those after it.
        :param qvel: the velocities after it, shape ``(n, nv)``.
        :param action: shape ``(n, a)``, of the action space's type.
        """

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so; a place along the track is 0 where it is not."""
        hidden = self.env.model.nq + self.env.model.nv - observation.shape[1]
        whole = np.concatenate([np.zeros((len(observation), hidden)), observation], axis=1)
        return whole[:, : self.env.model.nq], whole[:, self.env.model.nq :]


class InvertedPendulum(Body):
    """A pole on a cart, to be kept upright."""

    def observe(self, qpos: Array, qvel: Array) -> Array:
        """All."""
        return np.concatenate([qpos, qvel], axis=1)

    def outcome(self, before: Array, qpos: Array, qvel: Array, action: Array) -> tuple[Array, Array]:
        """Reward 1 for each step within 0.2 rad."""
        finite = np.isfinite(self.observe(qpos, qvel)).all(axis=1)
        terminated = ~finite | (np.abs(qpos[:, 1]) > 0.2)
        return (~terminated).astype(np.float64), terminated


class HalfCheetah(Body):
    """Half of a cheetah, to run."""

    def observe(self, qpos: Array, qvel: Array) -> Array:
        """All but the place along the track."""
        return np.concatenate([qpos[:, self.env._exclude_current_positions_from_observation :], qvel], axis=1)

    def outcome(self, before: Array, qpos: Array, qvel: Array, action: Array) -> tuple[Array, Array]:
        """Speed less the cost of control."""
        return self.forward(before, qpos) - self.cost(action), np.zeros(len(qpos), dtype=bool)

    def forward(self, before: Array, qpos: Array) -> Array:
        """Return the reward of speed."""
        return self.env._forward_reward_weight * ((qpos[:, 0] - before[:, 0]) / self.env.dt)

    def cost(self, action: Array) -> Array:
        """Return the cost of control, in the action's precision."""
        return self.env._ctrl_cost_weight * np.sum(np.square(action), axis=1)


class Walker2d(HalfCheetah):
    """Two legs, to walk upright."""

    def observe(self, qpos: Array, qvel: Array) -> Array:
        """All but the place along the track; velocities within ±10."""
        return super().observe(qpos, np.clip(qvel, -10, 10))

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so; NaN for a velocity that was clipped."""
        qpos, qvel = super().state_of(observation)
        return qpos, np.where(np.abs(qvel) < 10, qvel, np.nan)

    def outcome(self, before: Array, qpos: Array, qvel: Array, action: Array) -> tuple[Array, Array]:
        """Speed and a reward for being upright, less the cost of control."""
        healthy = self.healthy(qpos, qvel)
        rewards = self.forward(before, qpos) + healthy * self.env._healthy_reward
        return rewards - self.cost(action), ~healthy & self.env._terminate_when_unhealthy

    def healthy(self, qpos: Array, qvel: Array) -> Array:
        """Say of each whether its height and angle are those of one that walks."""
        return _within(qpos[:, 1], self.env._healthy_z_range) & _within(qpos[:, 2], self.env._healthy_angle_range)


class Hopper(Walker2d):
    """One leg, to hop."""

    def healthy(self, qpos: Array, qvel: Array) -> Array:
        """Say of each whether its state is that of one that hops."""
        state = _within(np.concatenate([qpos, qvel], axis=1)[:, 2:], self.env._healthy_state_range)
        return super().healthy(qpos, qvel) & state.all(axis=1)


BODIES: Final[dict[str, type[Body]]] = {
    "InvertedPendulumEnv": InvertedPendulum,
    "HopperEnv": Hopper,
    "HalfCheetahEnv": HalfCheetah,
    "Walker2dEnv": Walker2d,
}
"""Class of an environment in ``gymnasium.envs.mujoco`` = what it observes and rewards."""


def _within(value: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return (low < value) & (value < high)
