"""Batched physics as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
from torch import Tensor

from hyperrl.contexts import ContextSpace
from hyperrl.physics.base import Physics
from hyperrl.simulation.arrays import Arrays, ended_infos, to_numpy, to_tensor
from hyperrl.simulation.simulator import Simulator, Step
from hyperrl.utils.errors import nearest


class BatchedVecEnv(VecEnv):
    """Environments of one family, stepped together.

    Observations are as :class:`hyperrl.ContextEnv`'s. The infos of environments that just ended hold
    ``terminal_observation``, ``TimeLimit.truncated`` and ``episode`` (``r``, ``l``, ``t``), so no ``Monitor`` is
    needed; those of episodes that go on in another context hold ``context_switched``; the others are empty.

    :param simulator: the environments.

    >>> from hyperrl import load_family
    >>> vec_env = load_family("pendulum").vec_env(1024, backend="batched")
    >>> vec_env.reset()["observation"].shape
    (1024, 3)
    >>> observation, rewards, dones, infos = vec_env.step(np.zeros((1024, 1)))
    """

    render_mode = None

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._actions = np.empty(0)
        self._start = time.time()
        super().__init__(simulator.n, simulator.observation_space, simulator.action_space)

    @property
    def context_space(self) -> ContextSpace:
        """The features over which the environments vary."""
        return self.simulator.context_space

    @property
    def physics(self) -> Physics:
        """The dynamics of the environments."""
        return self.simulator.physics

    def reset(self) -> Arrays:
        """Begin an episode in every environment, with the seeds and options set before."""
        if len(self._options) != self.num_envs:
            raise ValueError(f"expected options for {self.num_envs} environments, got {len(self._options)}")
        for options in self._options:
            unknown = [name for name in options if name != "context"]
            if unknown:
                raise ValueError(
                    f"unknown option {unknown[0]!r}: the options are ['context'].{nearest(unknown[0], ['context'])}"
                )
        seeds, contexts = self._seeds, [options.get("context") for options in self._options]
        self._reset_seeds()
        self._reset_options()
        self.simulator.seed(seeds)
        return to_numpy(self.simulator.reset(contexts))

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step, shape ``(n,)`` or ``(n, a)``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step."""
        step = self.simulator.step(to_tensor(self._actions, self.simulator.action_space))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i, info in ended_infos(step, time.time() - self._start).items():
            infos[i] = info
        if self.simulator.switching is not None:
            for i in step.switched.cpu().numpy().nonzero()[0].tolist():
                infos[i]["context_switched"] = True
        rewards, done = step.reward.cpu().numpy().astype(np.float32), step.ended.cpu().numpy()
        return to_numpy(step.observation), rewards, done, infos

    def step_tensors(self, actions: Tensor) -> Step:
        """Take one step without numpy, see :class:`~hyperrl.simulation.TensorVecEnv`."""
        return self.simulator.step(actions)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute for each environment: its ``context``, shape ``(d,)``, or one that all share.

        :raises AttributeError: for an unknown one.
        """
        rows = self._get_indices(indices)
        if attr_name == "context":
            return list(self.simulator.contexts.cpu().numpy()[list(rows)])
        value = getattr(self, attr_name)
        return [value for _ in rows]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: no environment has attributes of its own."""
        raise AttributeError(
            f"cannot set {attr_name!r}: batched environments have no attributes of their own. Give the contexts of the "
            "next episodes with set_options({'context': {...}}), or use backend='gymnasium'"
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Refuse: no environment is an object of its own."""
        raise AttributeError(
            f"cannot call {method_name!r}: batched environments are no objects of their own; use backend='gymnasium'"
        )

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Say whether the environments do what a wrapper does: only ``Monitor``'s work is done here.

        ``evaluate_policy`` asks this to know whether it may trust the returns in the infos.
        """
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]
