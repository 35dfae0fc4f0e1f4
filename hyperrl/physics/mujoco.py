"""MuJoCo's bodies: Gymnasium's environments of them as physics, stepped by MuJoCo itself on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from hyperrl.physics.base import Context, Physics
from hyperrl.physics.bodies import BODIES, Array, Body, Moment
from hyperrl.physics.libmujoco import library, quiet, state_bits
from hyperrl.physics.model_edit import ModelEdit, Value
from hyperrl.physics.suite import SuiteEnv
from hyperrl.physics.suite_tasks import SUITE_TASKS
from hyperrl.utils.errors import nearest

if TYPE_CHECKING:
    from mujoco.batch import Batch


class MujocoPhysics(Physics):
    """One of Gymnasium's MuJoCo environments, for many rows at once and equal to it to the bit.

    A state is (time [s], positions, velocities, activations, the accelerations with which MuJoCo's solver starts, and
    what the body observes besides): all that the next step and the observation depend on. At time 0 an episode starts,
    where the solver has not yet been called.

    A step whose action is not a finite number, or that MuJoCo stops because positions, velocities or accelerations are
    none or huge, leads to a state of NaN; the other rows go on. It runs on the cpu.

    :param make: makes the environment.
    :param edit: returns what a context changes of the model of an unwrapped environment.
    :param attributes: attribute of the environment on which its reward depends = its value in a context.
    :param features: the features of the context.
    :raises ValueError: where what the environment observes and rewards is not known for many rows at once, and for an
        attribute on which the reward does not depend.

    >>> from hyperrl import load_family
    >>> physics = load_family("hopper").physics()
    >>> c = {name: torch.ones(3, dtype=torch.float64) for name in physics.features}
    >>> state = physics.initial(torch.rand(3, physics.uniforms, dtype=torch.float64), c)
    >>> state, reward, terminated = physics.step(state, torch.zeros(3, 3), c)
    >>> physics.observe(state).shape
    torch.Size([3, 11])
    """

    uniforms = 2
    device = torch.device("cpu")
    threads = 0

    def __init__(
        self,
        make: Callable[[], gym.Env[Any, Any]],
        edit: Callable[[Any], ModelEdit],
        attributes: Mapping[str, Value],
        features: Collection[str],
    ) -> None:
        self._made_of = (make, edit, attributes, features)
        self.features = tuple(features)
        env: Any = make().unwrapped
        self.env = env
        self.body = _body(env)
        for name in attributes:
            if name not in self.body.tasks:
                raise ValueError(
                    f"[attributes] {name!r}: physics = 'mujoco' knows those of {type(env).__name__} that its reward "
                    f"depends on, {list(self.body.tasks)}: use [model], or leave physics out."
                    f"{nearest(name, self.body.tasks)}"
                )
        self.attributes = attributes
        """Attribute of the environment on which its reward depends = its value in a context."""
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        model = env.model
        self.edit = edit(env)
        """What a context changes of the model."""
        begins_by, fields = self.body.begins_by, self.edit.fields
        self._begins_by_context = begins_by is None or not begins_by.isdisjoint(fields) or "qpos0" in fields
        self._starter: Any = make().unwrapped if self._begins_by_context else env
        """Where episodes begin; where that depends on the context, with a model of its own."""
        self._qpos, self._qvel = slice(1, 1 + model.nq), slice(1 + model.nq, 1 + model.nq + model.nv)
        self.size = library().mj_stateSize(model, state_bits())
        """How many numbers a state has without those that are derived."""
        self._stage = getattr(library().mjtStage, self.body.stage).value
        kinds = library().mjtWarning  # those with which MuJoCo gives a simulation up
        self._stops = [int(kind) for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)]
        self._batch: Batch | None = None
        self._bound = np.empty((len(self.features), 0))  # the contexts of its simulations, (d, n)
        self._task: dict[str, np.ndarray] = {}  # and the environment's attributes in them, (n,) each

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of, {"threads": self.threads}

    def on(self, device: str) -> Physics:
        """Return itself for the cpu; for another device, the same body stepped by MuJoCo Warp.

        :raises ValueError: for a device that is not there, and where MuJoCo Warp is not installed or cannot step it.
        """
        if device in ("cpu", "auto"):
            return self
        from hyperrl.physics.warp import WarpPhysics

        return WarpPhysics(self, device)

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Where the environment's own ``reset_model`` starts, whose random numbers begin at the two given."""
        _check_cpu(uniform)
        env = self._starter
        contexts: Iterable[dict[str, float] | None] = [None] * len(uniform)
        if self._begins_by_context:
            contexts = self.contexts(self.columns(c).numpy())
        rows = []
        words = (uniform.double().numpy() * 2.0**53).astype(np.uint64).tolist()
        generator = env._np_random = np.random.Generator(np.random.PCG64(0))
        begun: Any = generator.bit_generator.state
        for (high, low), context in zip(words, contexts, strict=True):
            if context is not None:
                self.edit.apply_to(env, context)
            begun["state"]["state"] = (high << 75) + (low << 11)  # the upper bits of two words of 64
            generator.bit_generator.state = begun
            state = np.zeros(self.size)
            derived = self.body.start(env, state)
            rows.append(np.concatenate([state, derived]))  # which copies: the next start overwrites MuJoCo's arrays
        return torch.from_numpy(np.array(rows)).to(uniform.dtype)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Let MuJoCo take as many steps as the environment does, with the controls ``action``."""
        from mujoco.batch import SimulationError

        _check_cpu(state)
        before, controls = state.double().numpy(), action.double().numpy()
        batch = self._bind(c, len(before))
        batch.state[:, : self.size] = before[:, : self.size]
        batch.ctrl = controls
        batch.warning[:] = 0
        goes_on: Any = np.isfinite(before).all(axis=1) & np.isfinite(controls).all(axis=1)
        first = (before[:, 0] == 0) & self.body.begins_forward
        step = partial(batch.step, nstep=self.env.frame_skip, stage=self._stage)
        calls = ((batch.forward, first), (step, True)) if first.any() else ((step, True),)
        with quiet():
            for call, rows in calls:
                try:
                    call(ids=goes_on & rows)
                except SimulationError as error:
                    goes_on[error.ids] = False
        goes_on &= ~batch.warning[:, self._stops, 1].any(axis=1)
        after = np.concatenate([batch.state[:, : self.size], self.body.derived(batch, self.moment(before))], axis=1)
        after[~goes_on] = np.nan
        acted = controls.astype(self.action_space.dtype)
        reward, terminated = self.body.outcome(self.moment(before), self.moment(after, self._task), acted)
        return (
            torch.from_numpy(after).to(state.dtype),
            torch.from_numpy(reward).to(state.dtype),
            torch.from_numpy(terminated),
        )

    def observe(self, state: Tensor) -> Tensor:
        """What the environment observes."""
        return torch.from_numpy(self.body.observe(self.moment(state.numpy())))

    def state_of(self, observation: Tensor) -> Tensor:
        """A state at time 0, with velocities as far as they are observed."""
        states = np.zeros((len(observation), self.size))
        states[:, self._qpos], states[:, self._qvel] = self.body.state_of(observation.numpy())
        states = np.concatenate([states, self.body.derived_of(states[:, self._qpos], states[:, self._qvel])], axis=1)
        return torch.from_numpy(states).to(observation.dtype)

    def moment(self, states: Array, task: Mapping[str, Array] | None = None) -> Moment:
        """Return what states ``(n, s)`` say, numpy's or torch's, of environments with these attributes."""
        return Moment(states[:, self._qpos], states[:, self._qvel], states[:, self.size :], task or {})

    def _bind(self, c: Context, n: int) -> Batch:
        """Return the batch of ``n`` simulations, the model of each as its context says."""
        from mujoco.batch import Batch

        threads = self.threads or len(os.sched_getaffinity(0))
        if self._batch is None or (self._batch.nsim, self._batch.nthread) != (n, min(threads, n)):
            self._batch = Batch(self.env.model, n, min(threads, n), persistent=self.body.persistent)
            for field in self.body.reads:
                getattr(self._batch, field)
            self._bound = np.full((len(self.features), n), np.nan)
            self._task = {name: np.full(n, getattr(self.env, name)) for name in self.body.tasks}
        columns = self.columns(c).numpy()
        changed = (columns != self._bound).any(axis=0).nonzero()[0]
        if len(changed):
            live = {field: self._batch.expand(field) for field in self.edit.fields}
            for i, context in zip(changed.tolist(), self.contexts(columns[:, changed]), strict=True):
                for field, value in self.edit.values(context).items():
                    live[field][i] = value
                for name, value in self.attributes.items():
                    self._task[name][i] = value(context)
            if live:
                self._batch.set_const(ids=changed)
            self._bound[:, changed] = columns[:, changed]
        return self._batch

    def columns(self, c: Context) -> Tensor:
        """Return the features, float64 of shape ``(d, n)``."""
        return torch.stack([c[name] for name in self.features]).double()

    def contexts(self, columns: np.ndarray) -> list[dict[str, float]]:
        """Return contexts by name, of features of shape ``(d, n)``."""
        return [dict(zip(self.features, context, strict=True)) for context in columns.T.tolist()]


def _body(env: Any) -> Body:
    """Return what an environment observes and rewards.

    :raises ValueError: where that is not known.
    """
    if isinstance(env, SuiteEnv) and env.name in SUITE_TASKS:
        return SUITE_TASKS[env.name](env)
    kind, module = type(env).__name__, type(env).__module__
    if kind in BODIES and module.startswith(("gymnasium.envs.mujoco.", "hyperrl.physics.")):
        return BODIES[kind](env)
    raise ValueError(
        f"physics = 'mujoco' knows what Gymnasium's {list(BODIES)} of version 5 and the tasks {list(SUITE_TASKS)} of "
        f"the Control Suite observe and reward, and got {module}.{kind}: leave it out.{nearest(kind, BODIES)}"
    )


def _check_cpu(tensor: Tensor) -> None:
    if not tensor.is_cpu:
        raise ValueError(f"MuJoCo's physics run on the cpu, got tensors on {tensor.device}")
