"""Checkpoints: everything that the rest of a training depends on, in one file.

A resumed training goes on exactly as if it had not been interrupted where the state of its environments can be kept:
batched ones, and those whose attributes are pickled as they are. Others, such as those that are made anew when they are
unpickled (Gymnasium's ``EzPickle``: Box2D, MuJoCo), begin new episodes; all else is restored.
"""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import random
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from gymnasium.utils import EzPickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from hyperrl.alignment.acting import find_aligned
from hyperrl.alignment.wrapper import AlignedContext
from hyperrl.simulation.last_step import VecLastStep
from hyperrl.training.diagnostics import HyperDiagnostics
from hyperrl.utils.environments import layers
from hyperrl.utils.files import read_bytes, write_bytes
from hyperrl.utils.seeding import stream

SHARE: Final = 0.05
"""The largest share of a training's time that goes to writing checkpoints, once the first is written."""


@dataclass(frozen=True)
class Generators:
    """The states of the generators of random numbers.

    :param torch: torch's, on the CPU.
    :param numpy: numpy's global one, with which SB3 shuffles minibatches.
    :param python: Python's.
    """

    torch: torch.Tensor
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> Generators:
        """Return the states as they are."""
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002

    def restore(self) -> None:
        """Put the generators into these states."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    :param model: the zip that Stable-Baselines3 makes of the model.
    :param vec_env: the environments, pickled in mid-episode; ``None`` where their state cannot be kept.
    :param normalizer: the ``VecNormalize`` and its returns, which it pickles without.
    :param aligned: the ``AlignedContext`` with its encoder, what that learns from, and the histories of the episodes.
    :param generators: of random numbers.
    :param noise: gSDE's exploration matrices, as SB3 has drawn them for the rollout that begins.
    :param actions: the action space, by whose generator SB3 explores.
    :param memory: what RecurrentPPO remembers, and forgets when it is loaded.
    :param replay_buffer: of an off-policy algorithm, its arrays cut to the part that is filled.
    :param diagnostics: what :class:`HyperDiagnostics` has seen.
    :param seconds: how long the training has taken so far.
    """

    SCHEMA: ClassVar[str] = "checkpoint-2"

    model: bytes
    vec_env: bytes | None
    normalizer: tuple[VecNormalize, Any] | None
    generators: Generators
    noise: dict[str, Any] | None
    actions: Any
    memory: Any
    replay_buffer: ReplayBuffer | None
    diagnostics: dict[str, Any]
    seconds: float
    aligned: AlignedContext | None = None


class Checkpoint(BaseCallback):
    """Write, between two updates, everything that the rest of the training depends on, to one file.

    One that cannot be written is warned of, and the training goes on.

    :param path: the file.
    :param seconds: the least time between two; more where writing takes longer than :data:`SHARE` of it.
    :param diagnostics: whose state is kept too.
    :param restored: the checkpoint that the training goes on from.
    """

    def __init__(
        self, path: Path, seconds: float, diagnostics: HyperDiagnostics, restored: State | None = None
    ) -> None:
        super().__init__()
        self.path = path
        self.pause = self.seconds = seconds
        self.diagnostics = diagnostics
        self.restored = restored
        self.begun = time.monotonic() - (0.0 if restored is None else restored.seconds)
        self.written = time.monotonic()

    @property
    def elapsed(self) -> float:
        """How long the training has taken, its parts before interruptions included."""
        return time.monotonic() - self.begun

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.restored is not None:
            # SB3 has drawn gSDE's noise once more than without the interruption.
            self.restored.generators.restore()
            _set_noise(self.model, self.restored.noise)
            self.restored = None
        begun = time.monotonic()
        if begun - self.written < self.pause or self.num_timesteps == 0:
            return
        try:
            data = pickle.dumps(self._state())
            write_bytes(self.path, f"hyperrl {State.SCHEMA} {hashlib.sha256(data).hexdigest()}\n".encode() + data)
        except Exception as error:  # whatever pickling a foreign object, or a full disk, may raise
            warnings.warn(
                f"no checkpoint could be written to {self.path}, and the training goes on without: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
        self.written = time.monotonic()
        self.pause = max(self.seconds, (self.written - begun) / SHARE) if self.seconds else 0.0

    def _state(self) -> State:
        model = self.model
        buffer = io.BytesIO()
        model.save(buffer)
        normalizer = model.get_vec_normalize_env()
        replay_buffer = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None
        return State(
            buffer.getvalue(),
            _pickled(self.training_env.unwrapped),
            None if normalizer is None else (normalizer, normalizer.returns),
            Generators.now(),
            _noise(model),
            model.action_space,
            getattr(model, "_last_lstm_states", None),
            None if replay_buffer is None else _resized(replay_buffer, _filled(replay_buffer)),
            self.diagnostics.state(),
            self.elapsed,
            find_aligned(model),
        )


def read(path: Path) -> State:
    """Read a checkpoint.

    :raises ValueError: where the file is damaged or follows another schema.
    """
    head, _, body = read_bytes(path).partition(b"\n")
    hyperrl, _, rest = head.decode(errors="replace").partition(" ")
    schema, _, digest = rest.partition(" ")
    if hyperrl != "hyperrl" or not schema.startswith("checkpoint-"):
        raise ValueError(f"{path}: expected a checkpoint of hyperrl's, got another file")
    if schema != State.SCHEMA:
        raise ValueError(f"{path} was written by schema {schema}; this hyperrl reads {State.SCHEMA}")
    try:
        if hashlib.sha256(body).hexdigest() != digest:
            raise ValueError("its contents are not those of its checksum")
        return pickle.loads(body)
    except Exception as error:  # whatever unpickling what another version wrote may raise
        raise ValueError(
            f"{path} is damaged, so the training cannot go on: remove {path.parent}. {type(error).__name__}: {error}"
        ) from error


def restore(state: State, fresh: BaseAlgorithm) -> BaseAlgorithm:
    """Return the model of a checkpoint, with its environments.

    :param state: the checkpoint.
    :param fresh: the same model untrained. Where the checkpoint has no environments, new episodes begin in its own, in
        other contexts and from other states than those that the training began with.
    """
    assert fresh.env is not None  # build() gave it some
    vec_env = fresh.env.unwrapped if state.vec_env is None else pickle.loads(state.vec_env)
    if state.aligned is not None:
        state.aligned.set_venv(vec_env)
        vec_env = state.aligned
    if any(isinstance(layer, VecLastStep) for layer in layers(fresh.env)):
        vec_env = VecLastStep(vec_env)  # it has no state between two steps
    if state.normalizer is not None:
        normalizer, returns = state.normalizer
        normalizer.set_venv(vec_env)
        if state.vec_env is not None:
            normalizer.returns = returns
        vec_env = normalizer
    model: BaseAlgorithm = type(fresh).load(
        io.BytesIO(state.model), env=vec_env, device=fresh.device, force_reset=state.vec_env is None
    )
    model.action_space = state.actions
    if state.vec_env is None:
        vec_env.seed(stream(model.seed or 0, model.num_timesteps))
    elif state.memory is not None:
        setattr(model, "_last_lstm_states", state.memory)  # noqa: B010 (only RecurrentPPO has it)
    if isinstance(model, OffPolicyAlgorithm) and state.replay_buffer is not None:
        model.replay_buffer = _resized(state.replay_buffer, state.replay_buffer.buffer_size)
    state.generators.restore()
    return model


def _pickled(vec_env: VecEnv) -> bytes | None:
    """Pickle environments with what they are in the middle of, or return ``None`` where that is not kept."""
    if any(isinstance(layer, EzPickle) for layer in layers(vec_env)):
        return None
    try:
        return pickle.dumps(vec_env)
    except Exception:  # whatever a foreign object may raise
        return None


def _noise(model: BaseAlgorithm) -> dict[str, Any] | None:
    distribution = _distribution(model)
    return None if distribution is None else {name: getattr(distribution, name, None) for name in _MATRICES}


def _set_noise(model: BaseAlgorithm, noise: dict[str, Any] | None) -> None:
    for name, matrix in (noise or {}).items():
        setattr(_distribution(model), name, matrix)


_MATRICES: Final = ("exploration_mat", "exploration_matrices")


def _distribution(model: BaseAlgorithm) -> StateDependentNoiseDistribution | None:
    """Find the distribution of actions of a model that explores by gSDE."""
    actor = getattr(model.policy, "actor", None)
    for part in (model.policy, actor):
        distribution = getattr(part, "action_dist", None)
        if isinstance(distribution, StateDependentNoiseDistribution):
            return distribution
    return None


def _filled(buffer: ReplayBuffer) -> int:
    return buffer.buffer_size if buffer.full else buffer.pos


def _resized(buffer: ReplayBuffer, rows: int) -> ReplayBuffer:
    """Return a copy of a buffer whose arrays have so many rows: a part of them, or more, which are zero."""

    def resized(array: Any) -> Any:
        if isinstance(array, dict):
            return {key: resized(entry) for key, entry in array.items()}
        if not isinstance(array, np.ndarray) or array.ndim < 2:
            return array
        if len(array) >= rows:
            return array[:rows]
        return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), dtype=array.dtype)])

    copied = copy.copy(buffer)
    for name, value in vars(buffer).items():
        setattr(copied, name, resized(value))
    return copied
