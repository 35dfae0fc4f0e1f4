"""What Gymnasium's MuJoCo environments observe and reward, for all rows at once and equal to them to the bit.

The weights and limits of each are those of one environment of the kind, its prototype. Rows are numpy arrays of
MuJoCo's, or tensors of MuJoCo Warp's: what is written for both takes functions from the module that :func:`of` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
import torch

from hyperrl.physics.libmujoco import library

if TYPE_CHECKING:
    from mujoco.batch import Batch

Array = Any
"""A numpy array or a tensor."""


def of(array: Array) -> Any:
    """Return the module with functions for an array: numpy's, or torch's.

    >>> of(np.zeros(2)) is np, of(torch.zeros(2)) is torch
    (True, True)
    """
    return torch if isinstance(array, torch.Tensor) else np


class Moment(NamedTuple):
    """What is known of ``n`` simulations after a step."""

    qpos: Array
    """Positions, shape ``(n, nq)``."""
    qvel: Array
    """Velocities, shape ``(n, nv)``."""
    derived: Array
    """What MuJoCo has derived from them and the environment reads, see :meth:`Body.derived`, shape ``(n, e)``."""
    task: Mapping[str, Array] = {}
    """The environment's attributes of :attr:`Body.tasks` that contexts set = their values, shape ``(n,)``."""


class Body(ABC):
    """One of Gymnasium's environments.

    :param env: the prototype, unwrapped.
    """

    persistent: ClassVar[bool] = False
    """Whether the whole data of each simulation are read, see ``Batch.get_data``."""
    reads: ClassVar[tuple[str, ...]] = ()
    """The derived fields that are read of a batch, which fills those alone that were asked for before the step."""
    tasks: ClassVar[tuple[str, ...]] = ()
    """The environment's attributes that the reward depends on and a context may set."""
    begins_by: ClassVar[frozenset[str] | None] = frozenset()
    """The fields of the model on which an episode's start depends; ``None`` for all."""
    begins_forward: ClassVar[bool] = True
    """Whether an episode's first step begins with ``mj_forward``, as in Gymnasium's environments."""
    in_warp: ClassVar[bool] = True
    """Whether MuJoCo Warp can step it: what is derived and said of it is written for tensors too."""
    stage: ClassVar[str] = "mjSTAGE_NONE"
    """Up to where MuJoCo derives from the state after a step, see ``Batch.step``."""

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

    def start(self, env: Any, state: Array) -> Array:
        """Let an episode of an environment begin, and return what is derived, shape ``(e,)``.

        :param env: the environment, in the episode's context.
        :param state: zeros, of :func:`~hyperrl.physics.libmujoco.state_bits`; becomes the state.
        """
        caught: list[Array] = []
        env.set_state = lambda qpos, qvel: caught.extend((qpos, qvel))
        env.reset_model()
        state[1 : 1 + sum(map(len, caught))] = np.concatenate(caught)
        return self.begun(env.model, *caught)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """Return what MuJoCo derives at an episode's start, shape ``(e,)``.

        :param model: the model in the episode's context.
        :param qpos: positions, shape ``(nq,)``.
        :param qvel: velocities, shape ``(nv,)``.
        """
        return np.zeros(0)

    def derived(self, batch: Batch, before: Moment) -> Array:
        """Return what MuJoCo has derived in a step, shape ``(n, e)``.

        As in Gymnasium's environments it is of the last substep's beginning.

        :param before: what was known before the step.
        """
        return before.qpos[:, :0]

    def derived_in_warp(self, data: Any, before: Moment) -> Array:
        """Return the same of simulations of MuJoCo Warp.

        :param data: their derived fields as tensors.
        """
        return self.derived(data, before)

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
        return _joined(now.qpos, now.qvel)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Reward 1 for each step within 0.2 rad."""
        observed = self.observe(after)
        terminated = ~of(observed).isfinite(observed).all(1) | (abs(after.qpos[:, 1]) > 0.2)
        return 1.0 * ~terminated, terminated


class HalfCheetah(Body):
    """Half of a cheetah, to run."""

    def observe(self, now: Moment) -> Array:
        """All but the place along the track."""
        return _joined(now.qpos[:, self.env._exclude_current_positions_from_observation :], now.qvel)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed less the cost of control."""
        return self.forward(before, after) - self.cost(action), _nowhere(action)

    def forward(self, before: Moment, after: Moment) -> Array:
        """Return the reward of speed."""
        return self.env._forward_reward_weight * self.speed(before, after)

    def speed(self, before: Moment, after: Moment) -> Array:
        """Return the speed along the track."""
        return (after.qpos[:, 0] - before.qpos[:, 0]) / self.env.dt

    def cost(self, action: Array) -> Array:
        """Return the cost of control, in the action's precision."""
        return self.env._ctrl_cost_weight * _squares(action)


class HalfCheetahVelocity(HalfCheetah):
    """Half of a cheetah, to run at a speed."""

    tasks = ("target_speed",)

    def forward(self, before: Moment, after: Moment) -> Array:
        """Beyond the speed, the reward falls as it rose."""
        speed = self.speed(before, after)
        excess = (speed - after.task["target_speed"]).clip(min=0)
        return self.env._forward_reward_weight * (speed - 2 * excess)


class Walker2d(HalfCheetah):
    """Two legs, to walk upright."""

    def observe(self, now: Moment) -> Array:
        """All but the place along the track; velocities within ±10."""
        return super().observe(now._replace(qvel=now.qvel.clip(-10, 10)))

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
        state = _within(_joined(qpos, qvel)[:, 2:], self.env._healthy_state_range)
        return super().healthy(qpos, qvel) & state.all(1)


class Swimmer(HalfCheetah):
    """Three links in a viscous fluid, to swim."""

    def observe(self, now: Moment) -> Array:
        """All but the place in the plane."""
        hidden = 2 * self.env._exclude_current_positions_from_observation
        return _joined(now.qpos[:, hidden:], now.qvel)


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
        return _joined(*seen)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed and a reward for being upright, less the costs of control and of contacts."""
        env = self.env
        state = _joined(after.qpos, after.qvel)
        healthy = of(state).isfinite(state).all(1)
        low, high = env._healthy_z_range
        healthy &= (low <= after.qpos[:, 2]) & (after.qpos[:, 2] <= high)
        velocity = (after.derived[:, :2] - before.derived[:, :2]) / env.dt
        rewards = self.speed(velocity, after) * env._forward_reward_weight + healthy * env._healthy_reward
        control = env._ctrl_cost_weight * _squares(action)
        contact = env._contact_cost_weight * _squares(self.forces(after))
        return rewards - (control + contact), ~healthy & env._terminate_when_unhealthy

    def speed(self, velocity: Array, after: Moment) -> Array:
        """Return the speed that is rewarded, of velocities ``(n, 2)``."""
        return velocity[:, 0]

    def forces(self, now: Moment) -> Array:
        """Return the contact forces on the bodies, shape ``(n, 6 nbody)``."""
        return now.derived[:, 2:].clip(*self.env._contact_force_range)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """The torso is at its free joint, and nothing touches."""
        return np.concatenate([qpos[:2], np.zeros(6 * model.nbody)])

    def derived(self, batch: Batch, before: Moment) -> Array:
        """Where the torso is, and the forces, which Gymnasium has MuJoCo compute after the step."""
        rows = []
        for i, mass in enumerate(batch.expand("body_mass")):
            batch.get_data(i, self._scratch)
            library().mj_rnePostConstraint(self.env.model, self._scratch)
            rows.append(self.read(self._scratch, mass))
        return np.array(rows)

    def derived_in_warp(self, data: Any, before: Moment) -> Array:
        """Where the torso is, and the forces."""
        return _joined(data.xpos[:, self._torso, :2], data.cfrc_ext.flatten(1))

    def read(self, data: Any, mass: Array) -> Array:
        """Return what is read of one simulation, shape ``(e,)``.

        :param mass: the masses of its bodies, shape ``(nbody,)``.
        """
        return np.concatenate([data.xpos[self._torso, :2], data.cfrc_ext.ravel()])

    @cached_property
    def _torso(self) -> int:
        return self.env.model.body(self.env._main_body).id

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so, at the origin of the plane."""
        hidden = 2 * self.env._exclude_current_positions_from_observation
        observed = self.env.model.nq - hidden + self.env.model.nv
        return super().state_of(observation[:, :observed])

    def derived_of(self, qpos: Array, qvel: Array) -> Array:
        """Neither the forces nor where the torso was before the last substep."""
        return np.full((len(qpos), 2 + 6 * self.env.model.nbody), np.nan)


class AntHeading(Ant):
    """A body on four legs, to walk in a direction."""

    tasks = ("direction",)

    def speed(self, velocity: Array, after: Moment) -> Array:
        """The speed in the direction."""
        direction = after.task["direction"]
        return velocity[:, 0] * of(direction).cos(direction) + velocity[:, 1] * of(direction).sin(direction)


class Humanoid(Ant):
    """A body on two legs and with arms, to walk forward.

    Derived are the place of the center of mass in the plane, the contact forces on all bodies, then their inertias and
    velocities about the center of mass, and the torques of the motors.
    """

    begins_by = frozenset({"body_mass", "body_pos"})
    in_warp = False

    def observe(self, now: Moment) -> Array:
        """All but the place in the plane; of what is derived, all but the center of mass."""
        env, nbody = self.env, self.env.model.nbody
        hidden = 2 * env._exclude_current_positions_from_observation
        ends = 2 + np.cumsum([6 * nbody, 10 * (nbody - 1), 6 * (nbody - 1)])
        _, inertias, velocities, torques = np.split(now.derived, ends, axis=1)
        seen = [now.qpos[:, hidden:], now.qvel]
        seen += [inertias] * (env._include_cinert_in_observation is True)
        seen += [velocities] * (env._include_cvel_in_observation is True)
        seen += [torques] * (env._include_qfrc_actuator_in_observation is True)
        seen += [self.forces(now)[:, 6:]] * (env._include_cfrc_ext_in_observation is True)
        return np.concatenate(seen, axis=1)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """Speed and a reward for being upright, less the costs of control and of contacts."""
        env = self.env
        low, high = env._healthy_z_range
        healthy = (low < after.qpos[:, 2]) & (after.qpos[:, 2] < high)
        speed = (after.derived[:, 0] - before.derived[:, 0]) / env.dt
        rewards = env._forward_reward_weight * speed + healthy * env._healthy_reward
        control = env._ctrl_cost_weight * np.sum(np.square(action.astype(np.float64)), axis=1)
        contact = env._contact_cost_weight * np.sum(np.square(self.forces(after)), axis=1)
        costs = control + np.clip(contact, *env._contact_cost_range)
        return rewards - costs, ~healthy & env._terminate_when_unhealthy

    def forces(self, now: Moment) -> Array:
        """Return the contact forces on the bodies, shape ``(n, 6 nbody)``."""
        return now.derived[:, 2 : 2 + 6 * self.env.model.nbody]

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """Neither contacts nor motors have acted."""
        mujoco, data = library(), self._scratch
        mujoco.mj_resetData(model, data)
        data.qpos, data.qvel = qpos, qvel
        for derive in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel):
            derive(model, data)
        return self.read(data, model.body_mass)

    def read(self, data: Any, mass: Array) -> Array:
        """What is read of one simulation."""
        center = (np.sum(mass[:, None] * data.xipos, axis=0) / np.sum(mass))[:2]
        motors = data.qfrc_actuator[6:]  # not at the root
        return np.concatenate([center, *map(np.ravel, (data.cfrc_ext, data.cinert[1:], data.cvel[1:], motors))])

    def derived_of(self, qpos: Array, qvel: Array) -> Array:
        """Nothing is derived from the state after the last substep."""
        nbody = self.env.model.nbody
        return np.full((len(qpos), 2 + 6 * nbody + 16 * (nbody - 1) + self.env.model.nv - 6), np.nan)


class Reacher(Body):
    """An arm of two links, to touch a target. Derived is the way from the target to the fingertip."""

    reads = ("xpos",)
    begins_by = frozenset({"body_pos"})

    def observe(self, now: Moment) -> Array:
        """(cosines and sines of both angles, target, angular velocities, way from the target in the plane)."""
        angles = now.qpos[:, :2]
        return _joined(*_direction(angles), now.qpos[:, 2:], now.qvel[:, :2], now.derived[:, :2])

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """The costs of distance and of control."""
        distance = _dot(after.derived, after.derived) ** 0.5
        near = -distance * self.env._reward_dist_weight
        cost = -_squares(action) * self.env._reward_control_weight
        return near + cost, _nowhere(action)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """The way from the target by MuJoCo's kinematics."""
        data = self._scratch
        data.qpos[:] = qpos
        library().mj_kinematics(model, data)
        return data.body("fingertip").xpos - data.body("target").xpos

    def derived(self, batch: Batch, before: Moment) -> Array:
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


class ReacherGoal(Reacher):
    """An arm of two links, to touch a point that it does not observe. Derived is the place of the fingertip."""

    tasks = ("goal_x", "goal_y")
    begins_by = frozenset()

    def observe(self, now: Moment) -> Array:
        """(cosines and sines of both angles, angular velocities)."""
        angles = now.qpos[:, :2]
        return _joined(*_direction(angles), now.qvel[:, :2])

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """The costs of distance and of control."""
        x, y = after.task["goal_x"], after.task["goal_y"]
        goal = of(x).stack([x, y, 0 * x + self.env.model.body("target").pos[2]], 1)
        return super().outcome(before, after._replace(derived=after.derived - goal), action)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """Nothing of it is observed or rewarded."""
        return np.zeros(3)

    def derived(self, batch: Batch, before: Moment) -> Array:
        """The place of the fingertip."""
        return batch.xpos[:, self.env.model.body("fingertip").id]

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so, the target anywhere."""
        unseen = np.zeros((len(observation), 2))
        cos_sin, speeds = np.split(observation, [4], axis=1)
        return super().state_of(np.concatenate([cos_sin, unseen, speeds, unseen], axis=1))


BODIES: Final[dict[str, type[Body]]] = {
    "InvertedPendulumEnv": InvertedPendulum,
    "HopperEnv": Hopper,
    "HalfCheetahEnv": HalfCheetah,
    "Walker2dEnv": Walker2d,
    "SwimmerEnv": Swimmer,
    "AntEnv": Ant,
    "ReacherEnv": Reacher,
    "HumanoidEnv": Humanoid,
    "HalfCheetahVelocityEnv": HalfCheetahVelocity,
    "AntHeadingEnv": AntHeading,
    "ReacherGoalEnv": ReacherGoal,
}
"""Class in ``gymnasium.envs.mujoco`` or :mod:`hyperrl.physics.tasks` = what the environment observes and rewards."""


def _within(value: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    return (low < value) & (value < high)


def _joined(*parts: Array) -> Array:
    """Put arrays ``(n, …)`` side by side."""
    return of(parts[0]).concatenate(parts, 1)


def _squares(values: Array) -> Array:
    """Return the sum of squares of each row of ``(n, k)``."""
    return of(values).square(values).sum(1)


def _direction(angles: Array) -> tuple[Array, Array]:
    """Return cosines and sines."""
    return of(angles).cos(angles), of(angles).sin(angles)


def _dot(one: Array, other: Array) -> Array:
    """Return the inner product of each row of one with that of the other."""
    return np.vecdot(one, other) if of(one) is np else (one * other).sum(1)


def _nowhere(action: Array) -> Array:
    """Return False for each row, shape ``(n,)``."""
    return of(action).zeros_like(action[:, 0], dtype=bool)
