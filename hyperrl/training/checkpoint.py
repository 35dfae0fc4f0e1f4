"""Checkpoints: everything that the rest of a training depends on, in one file."""

from __future__ import annotations

import io
import pickle
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from hyperrl.utils.files import write_bytes


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    :param model: the zip that Stable-Baselines3 makes of the model.
    :param vec_env: the environments, in mid-episode.
    :param normalizer: the ``VecNormalize`` and its returns, which it pickles without.
    :param torch: state of torch's generator of random numbers.
    :param numpy: of numpy's global one, with which SB3 shuffles minibatches.
    :param python: of Python's.
    :param actions: the action space, by whose generator SB3 explores.
    :param memory: what RecurrentPPO remembers, and forgets when it is loaded.
    :param replay_buffer: of an off-policy algorithm.
    """

    SCHEMA: ClassVar[str] = "checkpoint-1"

    model: bytes
    vec_env: Any
    normalizer: tuple[VecNormalize, Any] | None
    torch: torch.Tensor
    numpy: Any
    python: Any
    actions: Any
    memory: Any
    replay_buffer: Any


class Checkpoint(BaseCallback):
    """Write, between two updates, everything that the rest of the training depends on, to one file."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__()
        self.path = path
        self.seconds = seconds
        self.written = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self.written < self.seconds or self.num_timesteps == 0:
            return
        buffer = io.BytesIO()
        self.model.save(buffer)
        normalizer = self.model.get_vec_normalize_env()
        state = State(
            buffer.getvalue(),
            self.training_env.unwrapped,
            None if normalizer is None else (normalizer, normalizer.returns),
            torch.get_rng_state(),
            np.random.get_state(),  # noqa: NPY002
            random.getstate(),
            self.model.action_space,
            getattr(self.model, "_last_lstm_states", None),
            self.model.replay_buffer if isinstance(self.model, OffPolicyAlgorithm) else None,
        )
        write_bytes(self.path, f"hyperrl {State.SCHEMA}\n".encode() + pickle.dumps(state))
        self.written = time.monotonic()


def restore(algorithm: type[BaseAlgorithm], path: Path, device: torch.device) -> BaseAlgorithm:
    """Read a checkpoint: the model, its environments in mid-episode, and the generators of random numbers.

    :raises ValueError: where the file is damaged or follows another schema.
    """
    state = _read(path)
    vec_env = state.vec_env
    if state.normalizer is not None:
        normalizer, returns = state.normalizer
        normalizer.set_venv(vec_env)
        normalizer.returns = returns
        vec_env = normalizer
    model = algorithm.load(io.BytesIO(state.model), env=vec_env, device=device, force_reset=False)
    model.action_space = state.actions
    if state.memory is not None:
        setattr(model, "_last_lstm_states", state.memory)  # noqa: B010 (only RecurrentPPO has it)
    if isinstance(model, OffPolicyAlgorithm):
        model.replay_buffer = state.replay_buffer
    torch.set_rng_state(state.torch)
    np.random.set_state(state.numpy)  # noqa: NPY002
    random.setstate(state.python)
    return model


def _read(path: Path) -> State:
    head, _, body = path.read_bytes().partition(b"\n")
    expected = f"hyperrl {State.SCHEMA}".encode()
    if not head.startswith(b"hyperrl checkpoint-"):
        raise ValueError(f"{path}: expected a checkpoint of hyperrl's, got another file")
    if head != expected:
        schema = head.decode(errors="replace").removeprefix("hyperrl ")
        raise ValueError(f"{path} was written by schema {schema}; this hyperrl reads {State.SCHEMA}")
    try:
        return pickle.loads(body)
    except Exception as error:  # whatever unpickling damaged bytes may raise
        raise ValueError(
            f"{path} is damaged, so the training cannot go on: remove {path.parent}. {type(error).__name__}: {error}"
        ) from error
