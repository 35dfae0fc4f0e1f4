"""Environments whose context is an embedding of the transitions that the agent has just seen."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from hyperrl.alignment.history import History, Rower, Rows
from hyperrl.alignment.learning import Learner
from hyperrl.alignment.networks import AlignedDynamics
from hyperrl.contexts import ContextBox, ContextSpace, Feature
from hyperrl.utils.devices import find_device
from hyperrl.utils.environments import layers
from hyperrl.utils.seeding import check_seed
from hyperrl.utils.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class EncoderRecord:
    """What an encoder's file says beside its tensors.

    :param sizes: arguments of :class:`~hyperrl.alignment.AlignedDynamics`.
    :param context_key: entry of the embedding.
    """

    SCHEMA: ClassVar[str] = "encoder-1"

    sizes: Mapping[str, int]
    context_key: str


class AlignedContext(VecEnvWrapper):
    """Put an embedding of the last transitions in the context's place (DMA*-SH, Benad et al. 2026).

    The entry ``context`` of what the environments observe becomes the embedding, whose features are ``z0``, ``z1``, …
    in [0, 1]; where there is no such entry, there is one now, and a flat observation becomes the entry ``observation``.
    The true context is not looked at. An encoder makes the embedding of the last ``history`` transitions of the running
    episode, of observation, action and next observation; at an episode's start there are none.

    The encoder learns by predicting the next observation, beside the agent and from the same steps, when
    :class:`~hyperrl.alignment.AlignmentCallback` tells it to. What the agent gets are numbers, so that no gradient of
    the agent's loss reaches the encoder. Buffers hold each embedding as it was when the agent acted on it.

    :param venv: the environments; what they observe besides the context is a row of numbers, or a Dict of such.
    :param history: the number of transitions K that the encoder sees.
    :param embedding: length of the embedding.
    :param group: how many of its numbers :class:`~hyperrl.alignment.SimNorm` makes add up to 1.
    :param width: width of the hidden layers.
    :param masking: share of the transitions of a history that the encoder does not see while it learns.
    :param capacity: how many transitions to learn from, the last ones.
    :param batch_size: transitions of a gradient step.
    :param every: environment steps for each gradient step.
    :param learning_rate: at the beginning; it falls linearly to zero over the training.
    :param seed: of initial weights and minibatches.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param context_key: entry of the context.
    :raises ValueError: for observations that are no rows of numbers, and sizes that do not fit.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> from hyperrl.alignment import AlignmentCallback
    >>> vec_env = AlignedContext(load_family("pendulum").vec_env(4), seed=0)
    >>> vec_env.reset()["context"].shape
    (4, 16)
    >>> model = PPO(HyperPolicy, vec_env, n_steps=32, batch_size=64, device="cpu")
    >>> model = model.learn(256, callback=AlignmentCallback())
    """

    def __init__(
        self,
        venv: VecEnv,
        *,
        history: int = 16,
        embedding: int = 16,
        group: int = 4,
        width: int = 64,
        masking: float = 0.25,
        capacity: int = 100_000,
        batch_size: int = 128,
        every: int = 32,
        learning_rate: float = 1e-3,
        seed: int = 0,
        device: str | torch.device = "auto",
        context_key: str = "context",
    ) -> None:
        check_seed(seed)
        counts = dict(history=history, embedding=embedding, group=group, width=width, capacity=capacity)
        for name, value in (counts | dict(batch_size=batch_size, every=every)).items():
            if value < 1:
                raise ValueError(f"expected {name} ≥ 1, got {name}={value}")
        if embedding % group or group < 2:
            raise ValueError(f"expected a group ≥ 2 that divides the embedding, got {embedding=}, {group=}")
        if not 0 <= masking < 1:
            raise ValueError(f"expected 0 ≤ masking < 1, got masking={masking}")
        if not 0 < learning_rate < float("inf"):
            raise ValueError(f"expected learning_rate > 0, got learning_rate={learning_rate}")
        if any(isinstance(layer, VecNormalize) and layer.norm_obs for layer in layers(venv)):
            raise ValueError("put VecNormalize around AlignedContext, not inside: the encoder standardises by itself")
        self.rower = Rower(venv.observation_space, venv.action_space, context_key)
        self.context_key = context_key
        self.sizes = dict(
            observation=self.rower.observation_size,
            action=self.rower.action_size,
            history=history,
            embedding=embedding,
            group=group,
            width=width,
        )
        with torch.random.fork_rng(devices=[]):  # the agent's initial weights do not depend on the encoder
            torch.manual_seed(seed)
            self.dynamics = AlignedDynamics(**self.sizes).to(find_device(str(device)))
        self.learner = Learner(self.dynamics, venv.num_envs, capacity, batch_size, every, learning_rate, masking, seed)
        features = (Feature(f"z{i}", "1", 1 / group, ((0.0, 1.0),), ((0.0, 1.0),)) for i in range(embedding))
        box = ContextBox(ContextSpace(tuple(features)))
        super().__init__(venv, observation_space=spaces.Dict({**self.rower.others, context_key: box}))
        self.history = self.no_history(self.num_envs)
        self._observed: Rows = np.zeros((self.num_envs, self.rower.observation_size), dtype=np.float32)
        self._actions: Any = None

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment, without history."""
        observation = self.venv.reset()
        self.learner.interrupt()
        self.history = self.no_history(self.num_envs)
        self._observed = self.rower.observation(observation)
        return self.observed(observation, self.embed(self.history))

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step; the last observation of an episode has the embedding of that episode."""
        observation, rewards, dones, infos = self.venv.step_wait()
        infos = list(infos)  # some give a tuple
        ended = np.flatnonzero(dones)
        following = reached = self.rower.observation(observation)
        if len(ended):
            last = [self.rower.named(infos[i]["terminal_observation"]) for i in ended]
            reached = following.copy()
            reached[ended] = self.rower.observation({k: np.stack([end[k] for end in last]) for k in self.rower.others})
        rows = self.transitions(self._observed, self._actions, reached)
        self.learner.add(rows, dones)
        self.history = self.history.with_transitions(rows)
        z = self.embed(self.history)
        if len(ended):
            for i in ended:
                end = self.rower.named(infos[i]["terminal_observation"]) | {self.context_key: z[i].copy()}
                infos[i] = infos[i] | {"terminal_observation": end}
            self.history = self.history.without(dones)
            z[ended] = self.embed(self.no_history(1))
        self._observed = following
        return self.observed(observation, z), rewards, dones, infos

    def learn(self, progress: float) -> list[float]:
        """Let encoder and dynamics learn from what came in; see :meth:`Learner.learn`."""
        return self.learner.learn(progress)

    def no_history(self, n: int) -> History:
        """Return the histories of ``n`` episodes that begin."""
        return History.empty(n, self.sizes["history"], len(self.dynamics.mean))

    def transitions(self, observed: Rows, actions: NDArray[Any], reached: Rows) -> Rows:
        """Lay out transitions from observations ``(n, o)`` by actions to observations ``(n, o)``."""
        return np.concatenate([observed, self.rower.action(actions), reached - observed], axis=1)

    def observed(self, observation: Any, embedding: Rows) -> dict[str, Any]:
        """Return what the agent observes: all but the true context, and the embedding ``(n, e)`` in its place."""
        return {**self.rower.named(observation), self.context_key: embedding}

    @torch.no_grad()
    def embed(self, history: History) -> Rows:
        """Return the embedding of each history, shape ``(n, e)``."""
        device = self.dynamics.mean.device
        transitions, present = (torch.as_tensor(a, device=device) for a in (history.transitions, history.present))
        return self.dynamics.embed(transitions, present).clamp(0, 1).cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Write encoder and dynamics to a safetensors file: numbers, and nothing that runs."""
        write_tensors(path, self.dynamics.state_dict(), EncoderRecord(self.sizes, self.context_key))

    def load(self, path: str | Path) -> None:
        """Take encoder and dynamics from a file that :meth:`save` wrote.

        :raises ValueError: where the file is damaged, or of an encoder of other sizes; the message names both.
        """
        tensors, record = read_tensors(EncoderRecord, path)
        mine = EncoderRecord(self.sizes, self.context_key)
        if record != mine:
            raise ValueError(f"{path} holds another encoder: expected {mine}, got {record}")
        expected = {name: tensor.shape for name, tensor in self.dynamics.state_dict().items()}
        got = {name: tensor.shape for name, tensor in tensors.items()}
        if expected != got:
            wrong = next(name for name in (*expected, *got) if expected.get(name) != got.get(name))
            raise ValueError(f"{path}: expected {wrong!r} to be {expected.get(wrong)}, got {got.get(wrong)}")
        self.dynamics.load_state_dict(tensors)

    def set_venv(self, venv: VecEnv) -> None:
        """Wrap environments, after unpickling."""
        self.venv = venv

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("venv", "class_attributes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.venv: Any = None
        self.class_attributes = dict(inspect.getmembers(type(self)))  # as SB3's constructor sets it
