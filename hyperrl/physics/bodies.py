"""What Gymnasium's MuJoCo environments observe and reward, for all rows at once and equal to them to the bit.

The weights and limits of each are those of one environment of the kind, its prototype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from hyperrl.physics.libmujoco import library

if TYPE_CHECKING:
    from mujoco.batch import Batch

Array = np.ndarray


class Moment(NamedTuple):
    """What is known of ``n`` simulations after a step."""

    qpos: Array
    """Positions, shape ``(n, nq)``."""
    qvel: Array
    """Velocities, shape ``(n, nv)``."""
    derived: Array
    """What MuJoCo has derived from them and the environment reads, see :meth:`Body.derived`, shape ``(n, e)``."""


class Body(ABC):
    """One of Gymnasium's environments.

    :param env: the prototype, unwrapped.
    """

    persistent: ClassVar[bool] = False
    """Whether the whole data of each simulation are read, see ``Batch.get_data``."""
    reads: ClassVar[tuple[str, ...]] = ()
    """The derived fields that are read of a batch, which fills those alone that were asked for before the step."""
    begins_by: ClassVar[frozenset[str]] = frozenset()
    """The fields of the model on which depends what is derived at an episode's start."""

    def __init__(self, env: Any) -> None:
        self.env = env

    @abstractmethod
    def observe(self, now: Moment) -> Array:
        """Return the observations ``(n, o)``."""

    @abstractmethod
    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Return the rewards ``(n,)`` of a step and whether each episode terminates, bool ``(n,)``.

        :param action: shape ``(n, a)``, of the action space's type.
        """

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """Return what MuJoCo derives at an episode's start, shape ``(e,)``.

        :param model: the model in the episode's context.
        :param qpos: positions, shape ``(nq,)``.
        :param qvel: velocities, shape ``(nv,)``.
        """
        return np.zeros(0)

    def derived(self, batch: Batch) -> Array:
        """Return what MuJoCo has derived in a step, shape ``(n, e)``.

        As in Gymnasium's environments it is of the last substep's beginning.
        """
        return np.zeros((batch.nsim, 0))

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so; a place along the track is 0 where it is not."""
        hidden = self.env.model.nq + self.env.model.nv - observation.shape[1]
        whole = np.concatenate([np.zeros((len(observation), hidden)), observation], axis=1)
        return whole[:, : self.env.model.nq], whole[:, self.env.model.nq :]

    def derived_of(self, qpos: Array, qvel: Array) -> Array:
        """Return what MuJoCo has derived where positions ``(n, nq)`` and velocities ``(n, nv)`` are observed.

        Its shape is ``(n, e)``. NaN stands for what they do not tell and the next reward needs.
        """
        rows = [self.begun(self.env.model, *row) for row in zip(qpos, qvel, strict=True)]
        return np.array(rows).reshape(len(qpos), -1)

    @cached_property
    def _scratch(self) -> Any:
        return library().MjData(self.env.model)


class InvertedPendulum(Body):
    """A pole on a cart, to be kept upright."""

    def observe(self, now: Moment) -> Array:
        """All."""
        return np.concatenate([now.qpos, now.qvel], axis=1)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Reward 1 for each step within 0.2 rad."""
        finite = np.isfinite(self.observe(after)).all(axis=1)
        terminated = ~finite | (np.abs(after.qpos[:, 1]) > 0.2)
        return (~terminated).astype(np.float64), terminated


class HalfCheetah(Body):
    """Half of a cheetah, to run."""

    def observe(self, now: Moment) -> Array:
        """All but the place along the track."""
        return np.concatenate([now.qpos[:, self.env._exclude_current_positions_from_observation :], now.qvel], axis=1)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed less the cost of control."""
        return self.forward(before, after) - self.cost(action), np.zeros(len(action), dtype=bool)

    def forward(self, before: Moment, after: Moment) -> Array:
        """Return the reward of speed."""
        return self.env._forward_reward_weight * ((after.qpos[:, 0] - before.qpos[:, 0]) / self.env.dt)

    def cost(self, action: Array) -> Array:
        """Return the cost of control, in the action's precision."""
        return self.env._ctrl_cost_weight * np.sum(np.square(action), axis=1)


class Walker2d(HalfCheetah):
    """Two legs, to walk upright."""

    def observe(self, now: Moment) -> Array:
        """All but the place along the track; velocities within ±10."""
        return super().observe(now._replace(qvel=np.clip(now.qvel, -10, 10)))

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so; NaN for a velocity that was clipped."""
        qpos, qvel = super().state_of(observation)
        return qpos, np.where(np.abs(qvel) < 10, qvel, np.nan)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed and a reward for being upright, less the cost of control."""
        healthy = self.healthy(after.qpos, after.qvel)
        rewards = self.forward(before, after) + healthy * self.env._healthy_reward
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


class Swimmer(HalfCheetah):
    """Three links in a viscous fluid, to swim."""

    def observe(self, now: Moment) -> Array:
        """All but the place in the plane."""
        hidden = 2 * self.env._exclude_current_positions_from_observation
        return np.concatenate([now.qpos[:, hidden:], now.qvel], axis=1)


class Ant(Body):
    """A body on four legs, to walk forward.

    Derived are the torso's place in the plane, and the contact forces on all bodies.
    """

    persistent = True

    def observe(self, now: Moment) -> Array:
        """All but the place in the plane, and the contact forces on the bodies, within ±1."""
        hidden = 2 * self.env._exclude_current_positions_from_observation
        seen = [now.qpos[:, hidden:], now.qvel]
        if self.env._include_cfrc_ext_in_observation:
            seen.append(self.forces(now)[:, 6:])  # not on the world
        return np.concatenate(seen, axis=1)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed and a reward for being upright, less the costs of control and of contacts."""
        env = self.env
        healthy = np.isfinite(np.concatenate([after.qpos, after.qvel], axis=1)).all(axis=1)
        low, high = env._healthy_z_range
        healthy &= (low <= after.qpos[:, 2]) & (after.qpos[:, 2] <= high)
        speed = (after.derived[:, 0] - before.derived[:, 0]) / env.dt
        rewards = speed * env._forward_reward_weight + healthy * env._healthy_reward
        control = env._ctrl_cost_weight * np.sum(np.square(action), axis=1)
        contact = env._contact_cost_weight * np.sum(np.square(self.forces(after)), axis=1)
        return rewards - (control + contact), ~healthy & env._terminate_when_unhealthy

    def forces(self, now: Moment) -> Array:
        """Return the contact forces on the bodies, shape ``(n, 6 nbody)``."""
        return np.clip(now.derived[:, 2:], *self.env._contact_force_range)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """The torso is at its free joint, and nothing touches."""
        return np.concatenate([qpos[:2], np.zeros(6 * model.nbody)])

    def derived(self, batch: Batch) -> Array:
        """Where the torso is, and the forces, which Gymnasium has MuJoCo compute after the step."""
        mujoco, model, data = library(), self.env.model, self._scratch
        torso = model.body(self.env._main_body).id
        rows = np.empty((batch.nsim, 2 + 6 * model.nbody))
        for i, row in enumerate(rows):
            batch.get_data(i, data)
            mujoco.mj_rnePostConstraint(model, data)
            row[:2], row[2:] = data.xpos[torso, :2], data.cfrc_ext.ravel()
        return rows

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so, at the origin of the plane."""
        hidden = 2 * self.env._exclude_current_positions_from_observation
        observed = self.env.model.nq - hidden + self.env.model.nv
        return super().state_of(observation[:, :observed])

    def derived_of(self, qpos: Array, qvel: Array) -> Array:
        """Neither the forces nor where the torso was before the last substep."""
        return np.full((len(qpos), 2 + 6 * self.env.model.nbody), np.nan)


class Reacher(Body):
    """An arm of two links, to touch a target. Derived is the way from the target to the fingertip."""

    reads = ("xpos",)
    begins_by = frozenset({"body_pos"})

    def observe(self, now: Moment) -> Array:
        """(cosines and sines of both angles, target, angular velocities, way from the target in the plane)."""
        angles = now.qpos[:, :2]
        return np.concatenate([np.cos(angles), np.sin(angles), now.qpos[:, 2:], now.qvel[:, :2], now.derived[:, :2]], 1)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """The costs of distance and of control."""
        distance = np.sqrt(np.vecdot(after.derived, after.derived))
        near = -distance * self.env._reward_dist_weight
        cost = -np.square(action).sum(axis=1) * self.env._reward_control_weight
        return near + cost, np.zeros(len(action), dtype=bool)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """The way from the target by MuJoCo's kinematics."""
        data = self._scratch
        data.qpos[:] = qpos
        library().mj_kinematics(model, data)
        return data.body("fingertip").xpos - data.body("target").xpos

    def derived(self, batch: Batch) -> Array:
        """The way from the target."""
        model = self.env.model
        return batch.xpos[:, model.body("fingertip").id] - batch.xpos[:, model.body("target").id]

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so, the target at rest.

        NaN for an elbow within 1 rad of its limits: it may also have passed the other one, which gives way.
        """
        cos, sin, target, speeds, _ = np.split(observation, [2, 4, 6, 8], axis=1)
        angles = np.arctan2(sin, cos)
        low, high = self.env.model.joint("joint1").range
        angles[(angles[:, 1] < low + 1) | (angles[:, 1] > high - 1), 1] = np.nan
        return np.concatenate([angles, target], 1), np.concatenate([speeds, np.zeros_like(speeds)], 1)


BODIES: Final[dict[str, type[Body]]] = {
    "InvertedPendulumEnv": InvertedPendulum,
    "HopperEnv": Hopper,
    "HalfCheetahEnv": HalfCheetah,
    "Walker2dEnv": Walker2d,
    "SwimmerEnv": Swimmer,
    "AntEnv": Ant,
    "ReacherEnv": Reacher,
}
"""Class of an environment in ``gymnasium.envs.mujoco`` = what it observes and rewards."""


def _within(value: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return (low < value) & (value < high)
