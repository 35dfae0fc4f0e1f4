"""What tasks of the DeepMind Control Suite observe and reward, for all rows at once and equal to them to the bit.

Bounds and margins of the rewards are those of ``dm_control``'s modules.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hyperrl.physics.bodies import Array, Body, Moment
from hyperrl.physics.libmujoco import library, state_bits
from hyperrl.physics.suite import with_cos_sin, without_cos_sin

if TYPE_CHECKING:
    from mujoco.batch import Batch

_XX, _XZ, _ZZ = 0, 2, 8
"""Places in a rotation matrix, row by row."""


class SuiteTask(Body):
    """One of the suite's tasks. What MuJoCo derives is of the state after the step, and no episode terminates."""

    begins_by = None
    begins_forward = False
    in_warp = False
    stage = "mjSTAGE_VEL"

    @abstractmethod
    def read(self, data: Any) -> Array:
        """Return what the observation or the reward reads of a simulation, shape ``(e,)``, or of ``n``, ``(n, e)``.

        :param data: MuJoCo's data of it, or a batch.
        """

    @abstractmethod
    def own(self, now: Moment) -> Array:
        """Return what ``dm_control`` observes, ``(n, o)``."""

    @abstractmethod
    def reward(self, now: Moment, action: Array) -> Array:
        """Return the rewards ``(n,)`` of a step."""

    def observe(self, now: Moment) -> Array:
        """What ``dm_control`` observes, with cosines and sines of angles where the environment has them."""
        return with_cos_sin(self.own(now), self.env.angles)

    def state_of(self, observation: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so; a place along the track is 0."""
        return self.state_of_own(without_cos_sin(observation, self.env.angles))

    def state_of_own(self, own: Array) -> tuple[Array, Array]:
        """Return positions and velocities of which ``dm_control`` observes this."""
        return super().state_of(own)

    def start(self, env: Any, state: Array) -> Array:
        """Let an episode begin as the task does."""
        env.reset_model()
        library().mj_getState(env.model, env.data, state, state_bits())
        return self.read(env.data)

    def begun(self, model: Any, qpos: Array, qvel: Array) -> Array:
        """Derive from positions and velocities."""
        data = self._scratch
        data.qpos, data.qvel = qpos, qvel
        library().mj_forward(model, data)
        return self.read(data)

    def derived(self, batch: Batch, before: Moment) -> Array:
        """What the task reads."""
        return self.read(batch)

    def outcome(self, before: Moment, after: Moment, action: Array) -> tuple[Array, Array]:
        """The task's reward; it does not terminate."""
        return self.reward(after, action), np.zeros(len(action), dtype=bool)

    def _body(self, name: str) -> int:
        return self.env.model.body(name).id


class CartpoleBalance(SuiteTask):
    """A pole on a cart, to be kept upright in the middle. Derived are the cosine and sine of its angle."""

    reads = ("xmat",)

    def read(self, data: Any) -> Array:
        """(cosine, sine)."""
        return data.xmat[..., self._body("pole_1"), [_ZZ, _XZ]]

    def own(self, now: Moment) -> Array:
        """(place of the cart, cosine and sine of the pole's angle, velocities)."""
        return np.concatenate([now.qpos[:, :1], now.derived, now.qvel], axis=1)

    def reward(self, now: Moment, action: Array) -> Array:
        """A product of how upright, central, still and idle it is."""
        upright = (now.derived[:, 0] + 1) / 2
        centered = (1 + _tolerance(now.qpos[:, 0], margin=2)) / 2
        force = action[:, 0].astype(np.float64)
        small_control = (4 + _tolerance(force, margin=1, value_at_margin=0, sigmoid="quadratic")) / 5
        small_velocity = (1 + _tolerance(now.qvel[:, 1], margin=5)) / 2
        return upright * small_control * small_velocity * centered

    def state_of_own(self, own: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so."""
        place, cos, sin, speeds = np.split(own, [1, 2, 3], axis=1)
        return np.concatenate([place, np.arctan2(sin, cos)], axis=1), speeds


class BallInCupCatch(SuiteTask):
    """A ball on a string, to be caught with a cup. Derived is the way from the ball to the cup, in the plane."""

    reads = ("xpos", "site_xpos")

    def read(self, data: Any) -> Array:
        """(way along x, way along z)."""
        target = self.env.model.site("target").id
        return data.site_xpos[..., target, [0, 2]] - data.xpos[..., self._body("ball"), [0, 2]]

    def own(self, now: Moment) -> Array:
        """All."""
        return np.concatenate([now.qpos, now.qvel], axis=1)

    def reward(self, now: Moment, action: Array) -> Array:
        """1 while the ball is in the cup."""
        model = self.env.model
        room = model.site("target").size[[0, 2]] - model.geom("ball").size[0]
        return (np.abs(now.derived) < room).all(axis=1).astype(np.float64)


class WalkerWalk(SuiteTask):
    """Two legs, to walk upright.

    Derived are the orientations of all bodies, whether the torso is upright, its height and the body's speed.
    """

    reads = ("xmat", "xpos", "sensordata")

    def read(self, data: Any) -> Array:
        """(orientations, upright, height, speed)."""
        orientations = data.xmat[..., 1:, [_XX, _XZ]]
        orientations = orientations.reshape(*orientations.shape[:-2], -1)  # (…, 2 nbody - 2)
        torso = self._body("torso")
        upright, height = data.xmat[..., torso, [_ZZ]], data.xpos[..., torso, [2]]
        return np.concatenate([orientations, upright, height, data.sensordata[..., :1]], axis=-1)

    def own(self, now: Moment) -> Array:
        """(orientations, height, velocities)."""
        return np.concatenate([now.derived[:, :-3], now.derived[:, -2:-1], now.qvel], axis=1)

    def reward(self, now: Moment, action: Array) -> Array:
        """For standing upright, and up to six times that for walking."""
        upright, height, speed = now.derived[:, -3:].T
        stand_height = _module("walker")._STAND_HEIGHT
        standing = _tolerance(height, bounds=(stand_height, np.inf), margin=stand_height / 2)
        stand = (3 * standing + (1 + upright) / 2) / 4
        target = self.env.suite_env.task._move_speed
        move = _tolerance(speed, bounds=(target, np.inf), margin=target / 2, value_at_margin=0.5, sigmoid="linear")
        return stand * (5 * move + 1) / 6

    def state_of_own(self, own: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so, at the track's origin."""
        orientations, height, speeds = np.split(own, [-10, -9], axis=1)
        angle = np.arctan2(orientations[:, 1::2], orientations[:, ::2])  # of torso, right leg, left leg
        joints = -np.diff(angle, axis=1)
        joints[:, 3] = angle[:, 0] - angle[:, 4]  # the left leg is on the torso too
        joints = (joints + np.pi) % (2 * np.pi) - np.pi
        z = height - self.env.model.body("torso").pos[2]
        return np.concatenate([z, np.zeros_like(z), angle[:, :1], joints], axis=1), speeds


class CheetahRun(SuiteTask):
    """Half of a cheetah, to run. Derived is its speed."""

    reads = ("sensordata",)

    def read(self, data: Any) -> Array:
        """(speed,)."""
        return data.sensordata[..., :1]

    def own(self, now: Moment) -> Array:
        """All but the place along the track."""
        return np.concatenate([now.qpos[:, 1:], now.qvel], axis=1)

    def reward(self, now: Moment, action: Array) -> Array:
        """The speed as a share of that aimed at."""
        target = _module("cheetah")._RUN_SPEED
        bounds = (target, np.inf)
        return _tolerance(now.derived[:, 0], bounds=bounds, margin=target, value_at_margin=0, sigmoid="linear")


class Reach(SuiteTask):
    """An arm of two links, to touch a target. Derived are the target's place and the way to it, in the plane.

    The target is a part of the model, which each episode puts somewhere else.
    """

    reads = ("geom_xpos",)

    def start(self, env: Any, state: Array) -> Array:
        """Let an episode begin as the task does."""
        super().start(env, state)
        target = env.model.geom("target").pos[:2]
        return np.concatenate([target, target - self.read(env.data)])

    def read(self, data: Any) -> Array:
        """The place of the finger."""
        return data.geom_xpos[..., self.env.model.geom("finger").id, :2]

    def derived(self, batch: Batch, before: Moment) -> Array:
        """The target stays."""
        target = before.derived[:, :2]
        return np.concatenate([target, target - self.read(batch)], axis=1)

    def own(self, now: Moment) -> Array:
        """(angles, way to the target, angular velocities)."""
        return np.concatenate([now.qpos, now.derived[:, 2:], now.qvel], axis=1)

    def reward(self, now: Moment, action: Array) -> Array:
        """1 while the finger touches the target."""
        way = now.derived[:, 2:]
        radii = self.env.suite_env.task._target_size + self.env.model.geom("finger").size[0]
        return _tolerance(np.sqrt(np.vecdot(way, way)), bounds=(0, radii))

    def state_of_own(self, own: Array) -> tuple[Array, Array]:
        """Return positions and velocities that are observed so."""
        angles, _, speeds = np.split(own, [2, 4], axis=1)
        return angles, speeds

    def derived_of(self, qpos: Array, qvel: Array) -> Array:
        """They do not tell where the target is."""
        return np.full((len(qpos), 4), np.nan)


SUITE_TASKS: Final[dict[str, type[SuiteTask]]] = {
    "cartpole-balance": CartpoleBalance,
    "ball_in_cup-catch": BallInCupCatch,
    "walker-walk": WalkerWalk,
    "cheetah-run": CheetahRun,
    "reacher-easy": Reach,
    "reacher-hard": Reach,
}
"""Name of a task = what it observes and rewards."""


def _module(domain: str) -> Any:
    return import_module(f"dm_control.suite.{domain}")


def _tolerance(x: Array, **kwargs: Any) -> Array:
    rewards: Any = import_module("dm_control.utils.rewards")
    return rewards.tolerance(x, **kwargs)
