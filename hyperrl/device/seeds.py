"""Agents of several seeds, trained side by side in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from hyperrl.device.acting import Acting
from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.distributions import Choice, Gaussian
from hyperrl.device.networks import Networks
from hyperrl.device.ppo import DevicePPO
from hyperrl.device.stepping import Stepping
from hyperrl.device.updating import Updates
from hyperrl.policies.tracing import unvalidated
from hyperrl.simulation import BatchedVecEnv
from hyperrl.simulation.arrays import ended_infos
from hyperrl.simulation.simulator import Observation


@final
class SideBySide:
    """G agents that differ in nothing but the seed; each learns what it would alone, but for rounding.

    Parameters are put one upon another, so that one batched product serves all agents, and environments stand side by
    side in one simulator. Each agent has its own random numbers, statistics, optimiser and logger. It ends an update
    where its own divergence is too large, while others go on.

    :param make: makes the agent of a seed, in batched environments that draw a fresh context for each episode.
    :param seeds: one of each agent.
    :param vec_env: as many environments as those of all agents together, alike but for the seeds.
    :raises ValueError: for agents that explore by gSDE, whose loss has terms that depend on which contexts a minibatch
        has, whose policy is of another package, or that are not in such environments.

    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("pendulum")
    >>> def make(seed):
    ...     sizes = dict(n_steps=32, batch_size=256, n_epochs=1)
    ...     return DevicePPO(HyperPolicy, family.vec_env(8, seed=seed), seed=seed, device="cpu", **sizes)
    >>> agents = SideBySide(make, [0, 1, 2], family.vec_env(24))
    >>> agents.learn(512)
    >>> [model.num_timesteps for model in agents.models]
    [512, 512, 512]
    """

    def __init__(self, make: Callable[[int], DevicePPO], seeds: Sequence[int], vec_env: BatchedVecEnv) -> None:
        self.models: Final[list[DevicePPO]] = []
        self._noise_generators: list[torch.Generator] = []
        self._shufflers: list[np.random.RandomState] = []
        for seed in seeds:
            model = make(seed)
            _check(model)
            self.models.append(model)
            # Alone, it would go on from the states that the generators have now.
            on_gpu = model.device.type == "cuda"
            state = torch.cuda.get_rng_state(model.device) if on_gpu else torch.get_rng_state()
            self._noise_generators.append(torch.Generator(model.device))
            self._noise_generators[-1].set_state(state)
            self._shufflers.append(np.random.RandomState())
            self._shufflers[-1].set_state(np.random.get_state())  # noqa: NPY002
        first = self.models[0]
        self.n: Final = first.n_envs
        """Environments of each agent."""
        self.vec_env: Final = vec_env
        self.networks: Final = Networks([model.policy for model in self.models])
        self.buffer: Final = TensorRolloutBuffer(
            first.n_steps,
            first.observation_space,
            first.action_space,
            first.device,
            first.gae_lambda,
            first.gamma,
            self.n * len(self.models),
        )
        self._updates: Final = Updates(self.models, self.networks, self.buffer)
        self._acting: Acting | None = None
        sources = [model.env for model in self.models if isinstance(model.env, VecNormalize)]
        self._stepping: Final = Stepping(vec_env, sources, first.device)
        space: Any = first.action_space
        size = int(space.n) if isinstance(space, spaces.Discrete) else int(space.shape[0])
        self._noise: Final = torch.ones(len(self.models), self.n, size, device=first.device)

    def learn(self, total_timesteps: int) -> None:
        """Train each agent for so many steps, rounded up to whole rollouts, from the start.

        Afterwards each is a model of its own. Episodes under way are given up: another training begins new ones.
        """
        self.vec_env._seeds = [seed for model in self.models for seed in _simulated(model)._seeds]
        self.vec_env.reset()
        for model in self.models:
            model._setup_learn(total_timesteps)
        device = self.models[0].device
        observed: list[Any] = [model._last_obs for model in self.models]
        observation = {
            key: torch.as_tensor(np.concatenate([each[key] for each in observed]), device=device) for key in observed[0]
        }
        starts = torch.ones(self.buffer.n_envs, dtype=torch.bool, device=device)
        iteration = 0
        while self.models[0].num_timesteps < total_timesteps:
            observation, starts = self._collect(observation, starts)
            iteration += 1
            self._update(iteration, total_timesteps)
        self.networks.part()
        for model in self.models:
            model._last_obs = None

    def _collect(self, observation: Observation, starts: Tensor) -> tuple[Observation, Tensor]:
        """Fill the buffer from an observation, and return what is observed then and where an episode begins."""
        buffer, model = self.buffer, self.models[0]
        self._stepping.load()
        buffer.reset()
        for each in self.models:
            each.policy.set_training_mode(False)
        with torch.no_grad(), unvalidated():
            if self._acting is None:
                self._acting = Acting(model.policy, observation, True, lambda it: self.networks.act(it, self._noise))
            for _ in range(buffer.buffer_size):
                self._draw()
                sampled, applied, values, log_probs = self._acting(observation, True)
                step = self._stepping(applied)
                buffer.add(observation, sampled, values, log_probs, step)
                for i, info in ended_infos(step, time.time() - model.start_time / 1e9).items():
                    self.models[i // self.n]._update_info_buffer([info])
                observation = step.observation
            cut, last = buffer.cut_short()
            last_values = []
            for i, each in enumerate(self.models):
                each.num_timesteps += buffer.buffer_size * self.n
                mine = cut % buffer.n_envs // self.n == i
                if mine.any():
                    values = each.policy.predict_values({key: entry[mine] for key, entry in last.items()})
                    buffer.bootstrap(values.flatten(), cut[mine])
                its = {key: entry[i * self.n : (i + 1) * self.n] for key, entry in observation.items()}
                last_values.append(each.policy.predict_values(its))
            buffer.finish(starts, torch.cat(last_values))
        self._stepping.export()
        return observation, buffer.flags["ended"][-1].clone()

    def _draw(self) -> None:
        """Draw what the next actions are sampled from."""
        distribution: Any = self.models[0].policy.action_dist
        for noise, generator in zip(self._noise, self._noise_generators, strict=True):
            noise.copy_(distribution.draw(*noise.shape, generator))

    def _update(self, iteration: int, total_timesteps: int) -> None:
        for model in self.models:
            model._update_current_progress_remaining(model.num_timesteps, total_timesteps)
            model.dump_logs(iteration)
            model.policy.set_training_mode(True)
            model._update_learning_rate(model.policy.optimizer)
        with unvalidated():
            measured = self._updates(self._shufflers)
        for i, (model, its) in enumerate(zip(self.models, measured, strict=True)):
            values, returns = (
                self.buffer.tensors[name][:, i * self.n : (i + 1) * self.n] for name in ("values", "returns")
            )
            model._log(its, values, returns)


def _simulated(model: DevicePPO) -> BatchedVecEnv:
    assert model.env is not None
    return model.env.unwrapped  # pyright: ignore[reportReturnType]


def _check(model: DevicePPO) -> None:
    if not isinstance(model.rollout_buffer, TensorRolloutBuffer) or not isinstance(_simulated(model), BatchedVecEnv):
        raise ValueError("expected agents in batched environments of a family: train others one after another")
    if _simulated(model).simulator.has_fixed_contexts:
        raise ValueError("expected environments that draw contexts, got a fixed set: train one seed after another")
    if not model._is_recorded or not isinstance(model.policy.action_dist, Gaussian | Choice):
        raise ValueError(
            "expected policies of hyperrl or Stable-Baselines3 with continuous or discrete actions, without gSDE, "
            "squared_norm and similarity: train others one seed after another"
        )
