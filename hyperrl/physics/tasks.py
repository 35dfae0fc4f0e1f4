"""Gymnasium's MuJoCo environments with a task of many: how fast to run, which way, which point to touch.

They are registered by ``import hyperrl``; a family sets their attributes in ``[attributes]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.spaces import Box


class HalfCheetahVelocityEnv(HalfCheetahEnv):
    """Half of a cheetah, to run at a speed.

    Up to that speed the reward is ``HalfCheetah-v5``'s, the speed less the cost of control; beyond it falls as it rose.
    It is that of Finn et al. (2017), −|speed − target|, plus the target, with Gymnasium's cost of control.
    """

    target_speed = 3.0
    """In m/s."""

    def _get_rew(self, x_velocity: float, action: np.ndarray) -> tuple[Any, dict[str, Any]]:
        _, info = super()._get_rew(x_velocity, action)
        excess = np.maximum(x_velocity - self.target_speed, 0)
        info["reward_forward"] = self._forward_reward_weight * (x_velocity - 2 * excess)
        return info["reward_forward"] + info["reward_ctrl"], info


class AntHeadingEnv(AntEnv):
    """A body on four legs, to walk in a direction; along the x axis it is ``Ant-v5``."""

    direction = 0.0
    """In rad, counterclockwise from the x axis."""

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """Reward the speed in the direction."""
        observation, _, terminated, _, info = super().step(action)
        speed = info["x_velocity"] * np.cos(self.direction) + info["y_velocity"] * np.sin(self.direction)
        info["reward_forward"] = speed * self._forward_reward_weight
        gains, costs = info["reward_forward"] + info["reward_survive"], info["reward_ctrl"] + info["reward_contact"]
        return observation, gains + costs, terminated, False, info


class ReacherGoalEnv(ReacherEnv):
    """An arm of two links, to touch a point that it does not observe.

    The reward is ``Reacher-v5``'s with the target there. Observed are the cosines and sines of both angles and the
    angular velocities.
    """

    goal_x = 0.1
    """In m from the shoulder."""
    goal_y = -0.1

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = Box(-np.inf, np.inf, (6,), np.float64)

    def get_body_com(self, body_name: str) -> np.ndarray:
        """Return where a body is; the target is at the goal, also where that has changed within an episode."""
        place = super().get_body_com(body_name)
        return np.array([self.goal_x, self.goal_y, place[2]]) if body_name == "target" else place

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Set the state, the target that is drawn at the goal."""
        super().set_state(np.concatenate([qpos[:2], [self.goal_x, self.goal_y]]), qvel)

    def _get_obs(self) -> np.ndarray:
        angles = self.data.qpos[:2]
        return np.concatenate([np.cos(angles), np.sin(angles), self.data.qvel[:2]])
