"""Checkpoints: everything that the rest of a training depends on, in one file."""

from __future__ import annotations

import io
import pickle
import random
import time
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from hyperrl.utils.files import write_bytes


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
        state = {
            "model": buffer.getvalue(),
            "vec_env": self.training_env.unwrapped,
            "normalizer": None if normalizer is None else (normalizer, normalizer.returns),  # it pickles without them
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002 (SB3 shuffles minibatches with the global generator)
            "python": random.getstate(),
            "actions": self.model.action_space,  # SB3 explores by its generator
            "memory": getattr(self.model, "_last_lstm_states", None),  # of RecurrentPPO, which forgets it when loaded
        }
        if isinstance(self.model, OffPolicyAlgorithm):
            state["replay_buffer"] = self.model.replay_buffer
        write_bytes(self.path, pickle.dumps(state))
        self.written = time.monotonic()


def restore(algorithm: type[BaseAlgorithm], path: Path, device: torch.device) -> BaseAlgorithm:
    """Read a checkpoint: the model, its environments in mid-episode, and the generators of random numbers."""
    state = pickle.loads(path.read_bytes())
    vec_env = state["vec_env"]
    if state["normalizer"] is not None:
        normalizer, returns = state["normalizer"]
        normalizer.set_venv(vec_env)
        normalizer.returns = returns
        vec_env = normalizer
    model = algorithm.load(io.BytesIO(state["model"]), env=vec_env, device=device, force_reset=False)
    model.action_space = state["actions"]
    if state["memory"] is not None:
        setattr(model, "_last_lstm_states", state["memory"])  # noqa: B010 (only RecurrentPPO has it)
    if isinstance(model, OffPolicyAlgorithm):
        model.replay_buffer = state["replay_buffer"]
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
    return model
