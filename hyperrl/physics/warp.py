"""MuJoCo's bodies on a device: stepped by MuJoCo Warp, in single precision."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from hyperrl.physics.base import Context, Physics
from hyperrl.physics.libmujoco import library
from hyperrl.physics.model_edit import value_of
from hyperrl.physics.mujoco import MujocoPhysics
from hyperrl.utils.devices import find_device
from hyperrl.utils.extras import require

DERIVED: Final = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_length0",
    "tendon_lengthspring",
    "tendon_invweight0",
    "actuator_acc0",
)
"""The fields of a model that ``mj_setConst`` computes and a step depends on."""
LARGEST: Final = 1e10
"""Beyond it MuJoCo gives a simulation up."""
ROOM: Final = 100
"""Contacts of each environment for which there is room, unless its shapes can have fewer."""


class WarpPhysics(Physics):
    """A body of :class:`MujocoPhysics` on a device: the same starts, observations and rewards, stepped by MuJoCo Warp.

    States are those of MuJoCo's physics, of which a step takes all but the time to float32. Where episodes start, and
    what a context changes of the model, is computed by MuJoCo itself on the cpu, once an episode.

    :param physics: the body.
    :param device: where it is stepped: ``"cuda"``, or ``"cpu"``, where MuJoCo itself is faster.
    :param contacts: how many contacts each environment has room for; by default as many as its shapes can have, or 100.
    :raises ValueError: where MuJoCo Warp is not installed, does not know something in the model, or cannot change for
        each environment what a context changes; for the humanoid and tasks of the Control Suite.
    """

    uniforms = MujocoPhysics.uniforms

    def __init__(self, physics: MujocoPhysics, device: str = "cuda", contacts: int | None = None) -> None:
        self.device = find_device(device)
        kind = type(physics.env).__name__
        if not physics.body.in_warp:
            raise ValueError(f"MuJoCo Warp cannot step {kind}: use backend='batched', device='cpu'")
        require(f"{kind} in MuJoCo Warp, as for device={device!r},", "gpu", "mujoco_warp")
        self._mujoco, self._contacts = physics, contacts
        self.features = physics.features
        self.observation_space, self.action_space = physics.observation_space, physics.action_space
        self._model = copy.copy(physics.env.model)
        rest = np.concatenate([[0.0], self._model.qpos0, np.zeros(physics.size - 1 - self._model.nq)])
        self._rest = torch.from_numpy(rest).to(self.device)
        self._worlds: _Worlds | None = None
        self._bound = torch.empty(0)  # the contexts of its simulations, (d, n)
        self._task: dict[str, Tensor] = {}  # and the environment's attributes in them, (n,) each

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._mujoco, str(self.device), self._contacts)

    def on(self, device: str) -> Physics:
        """Return itself, or the same body on another device."""
        same = device == "auto" or find_device(device) == self.device
        return self if same else type(self)(self._mujoco, device, self._contacts)

    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Where the environment's own ``reset_model`` starts."""
        state = self._mujoco.initial(uniform.cpu(), {name: values.cpu() for name, values in c.items()})
        return state.to(uniform.device)

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Let MuJoCo Warp take as many steps as the environment does, with the controls ``action``.

        :raises ValueError: where there are more contacts than there is room for.
        """
        body, moment = self._mujoco.body, self._mujoco.moment
        worlds = self._bind(c, len(state))
        goes_on = (state.isfinite().all(1) & action.isfinite().all(1))[:, None]
        begun = torch.where(goes_on, state[:, : len(self._rest)], self._rest)
        reached = worlds.step(begun[:, 1:], torch.where(goes_on, action, 0)).to(state.dtype)
        time = begun[:, :1] + self._mujoco.env.dt
        derived = body.derived_in_warp(worlds.found, moment(state)).to(state.dtype)
        whole = torch.cat([time, reached, derived], dim=1)
        goes_on = goes_on & (whole.abs() <= LARGEST).all(1, keepdim=True)
        after = torch.where(goes_on, whole, torch.nan)
        reward, terminated = body.outcome(moment(state), moment(after, self._task), action.float())
        return after, reward.to(state.dtype), terminated

    def observe(self, state: Tensor) -> Tensor:
        """What the environment observes."""
        return self._mujoco.body.observe(self._mujoco.moment(state))

    def state_of(self, observation: Tensor) -> Tensor:
        """A state at time 0, with velocities as far as they are observed."""
        return self._mujoco.state_of(observation.cpu()).to(observation.device)

    def _bind(self, c: Context, n: int) -> _Worlds:
        """Return ``n`` simulations, the model of each as its context says."""
        columns = self._mujoco.columns(c)  # (d, n)
        if self._worlds is None or self._worlds.n != n:
            self._worlds = _Worlds(self._mujoco, self._model, n, self._contacts, self._rest.device)
            self._bound = torch.full_like(columns, torch.nan)
            tasks = {name: getattr(self._mujoco.env, name) for name in self._mujoco.body.tasks}
            self._task = {name: torch.full_like(columns[0], value) for name, value in tasks.items()}
        rows = (columns != self._bound).any(0).nonzero()[:, 0]  # for which the host waits
        if len(rows):
            edited = {field: [] for field in self._worlds.live}
            tasks = {name: [] for name in self._mujoco.attributes}
            for context in self._mujoco.contexts(columns[:, rows].cpu().numpy()):
                self._mujoco.edit.apply(self._model, context)
                for field, values in edited.items():
                    values.append(np.array(value_of(self._model, field)))
                for name, values in tasks.items():
                    values.append(self._mujoco.attributes[name](context))
            for field, values in edited.items():
                live = self._worlds.live[field]
                new = torch.from_numpy(np.array(values, dtype=np.float32)).to(self.device)
                live[rows] = new.reshape(len(rows), *live.shape[1:])
            for name, values in tasks.items():
                self._task[name] = self._task[name].index_put((rows,), torch.tensor(values).to(columns))
            self._bound = self._bound.index_copy(1, rows, columns[:, rows])
        return self._worlds


class _Worlds:
    """Simulations of MuJoCo Warp side by side.

    :param physics: what is simulated.
    :param model: MuJoCo's model of it.
    :param n: how many simulations.
    :param contacts: how many contacts each has room for.
    :param device: where they are.
    """

    def __init__(self, physics: MujocoPhysics, model: Any, n: int, contacts: int | None, device: torch.device) -> None:
        self.n, self._steps = n, physics.env.frame_skip
        self._warp, self._mjw = _libraries()
        self._place = self._warp.device_from_torch(str(device))
        with torch.inference_mode(False), self._warp.ScopedDevice(self._place):
            try:
                self._make(model, physics.edit.fields, contacts, forces=physics.body.persistent)
            except (NotImplementedError, ValueError) as error:
                raise ValueError(f"MuJoCo Warp cannot step this model: {error}") from None
            if self._place.is_cuda:
                self._advance()  # which compiles what cannot be compiled while it is captured
                with self._warp.ScopedCapture() as capture:
                    self._advance()
                self._graph = capture.graph
                self._warp.synchronize_device(self._place)

    def _make(self, model: Any, edited: Sequence[str], contacts: int | None, forces: bool) -> None:
        mjw, view = self._mjw, self._warp.to_torch
        known = {field.name for field in fields(mjw.Model)}
        batched = [field for field in (*edited, *DERIVED) if field in known] if edited else []
        self._model = mjw.put_model(model, batch_sizes=dict.fromkeys(batched, self.n))
        self._model.opt.warn_overflow = 0  # it would print from the device
        self._model.opt.run_rne_postconstraint = forces
        self.live = {field: view(getattr(self._model, field)) for field in batched}
        """The fields of which each simulation has values of its own, shape ``(n, …)``."""
        for option in [field for field in edited if field.startswith("opt.")]:
            name = option.removeprefix("opt.")
            one = getattr(self._model.opt, name)
            many = self._warp.from_torch(view(one).repeat(self.n, *[1] * (view(one).ndim - 1)), dtype=one.dtype)
            setattr(self._model.opt, name, many)
            self.live[option] = view(many)
            self._model.has_fluid |= name in ("density", "viscosity", "wind")
        if contacts is None:
            contacts = min(ROOM, 4 * len(self._model.nxn_geom_pair_filtered))  # a pair of primitive shapes has up to 4
        self._contacts = contacts
        edges = max(1, 2 * (int(model.geom_condim.max()) - 1))
        rows = contacts * edges + model.njnt + model.nv
        self._data = mjw.make_data(model, nworld=self.n, nconmax=contacts, njmax=rows)
        data = self._data
        self._state = [view(data.qpos), view(data.qvel), view(data.act), view(data.qacc_warmstart)]
        self._control, self._overflow = view(data.ctrl), view(data.overflow)
        self.found = SimpleNamespace(xpos=view(data.xpos), cfrc_ext=view(data.cfrc_ext))
        """What is derived in a step."""

    def step(self, state: Tensor, control: Tensor) -> Tensor:
        """Take the steps.

        :param state: positions, velocities, activations, accelerations to start the solver with, ``(n, s)``.
        :param control: shape ``(n, a)``.
        :return: the state after it, float32.
        :raises ValueError: where there are more contacts than there is room for.
        """
        for entry, values in zip(self._state, state.split([e.shape[1] for e in self._state], dim=1), strict=True):
            entry.copy_(values)
        self._control.copy_(control)
        if self._place.is_cuda:
            stream = torch.cuda.current_stream(state.device)  # on which torch wrote the state
            self._warp.capture_launch(self._graph, stream=self._warp.stream_from_torch(stream))
        else:
            with self._warp.ScopedDevice(self._place):
                self._advance()
        kinds = self._mjw.OverflowType
        full = (self._overflow & int(kinds.NEFC | kinds.NJMAX_NNZ | kinds.BROADPHASE | kinds.NARROWPHASE)) != 0
        if full.any():
            self._overflow.zero_()
            raise ValueError(
                f"environment {int(full.int().argmax())}: more contacts than MuJoCo Warp has room for, "
                f"{self._contacts} in each environment: WarpPhysics(..., contacts=...) makes room for more"
            )
        return torch.cat(self._state, dim=1)

    def _advance(self) -> None:
        for _ in range(self._steps):
            self._mjw.step(self._model, self._data)


def _libraries() -> tuple[Any, Any]:
    """Import Warp, which says on the console what it compiles unless it was imported before, and MuJoCo Warp."""
    is_new = "warp" not in sys.modules
    warp = import_module("warp")
    if is_new:
        warp.config.log_level = warp.LOG_WARNING
    warp.init()
    library()
    return warp, import_module("mujoco_warp")
