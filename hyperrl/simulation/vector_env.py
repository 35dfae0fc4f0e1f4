"""Batched physics as a Gymnasium ``VectorEnv``, for ``gymnasium.make_vec("hyperrl/Pendulum-v0", num_envs=1024)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from hyperrl.simulation.arrays import Arrays, to_numpy, to_tensor
from hyperrl.simulation.simulator import Simulator


class BatchedVectorEnv(VectorEnv[Arrays, np.ndarray, NDArray[Any]]):
    """Environments of one family, stepped together; an episode that ends is followed by the next in the same step.

    The last observation of an episode is in ``info["final_obs"]``, as in Gymnasium's own environments of this mode.
    ``info["context_switched"]`` says which go on in another context, where any does.

    :param simulator: the environments.

    >>> import gymnasium, hyperrl
    >>> env = gymnasium.make_vec("hyperrl/Pendulum-v0", num_envs=3)
    >>> observation, info = env.reset(seed=0)
    >>> observation["context"].shape
    (3, 4)
    """

    def __init__(self, simulator: Simulator) -> None:
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self.simulator = simulator
        self.num_envs = simulator.n
        self.single_observation_space = simulator.observation_space
        self.single_action_space = simulator.action_space
        self.observation_space = batch_space(simulator.observation_space, simulator.n)
        self.action_space = batch_space(simulator.action_space, simulator.n)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Begin an episode in every environment.

        :param seed: environment ``i`` gets ``seed + i``, or its own of a list.
        :param options: ``{"context": {...}}`` sets the context of every environment, the rest at default.
        """
        unknown = set(options or {}) - {"context"}
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)}: the options are ['context']")
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"expected {self.num_envs} seeds, got {len(seeds)}")
            self.simulator.seed(seeds)
        context = (options or {}).get("context")
        return to_numpy(self.simulator.reset([context] * self.num_envs)), {}

    def step(self, actions: np.ndarray) -> tuple[Arrays, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take one step in every environment."""
        step = self.simulator.step(to_tensor(actions, self.simulator.action_space))
        info: dict[str, Any] = {}
        rows = step.ended.cpu().numpy().nonzero()[0]
        if len(rows):
            last = to_numpy(step.last)
            for i in rows.tolist():
                final = {key: value[i].copy() for key, value in last.items()}
                info = self._add_info(info, {"final_obs": final, "final_info": {}}, i)
        if self.simulator.switching is not None:
            for i in step.switched.cpu().numpy().nonzero()[0].tolist():
                info = self._add_info(info, {"context_switched": True}, i)
        observation, reward = to_numpy(step.observation), step.reward.cpu().numpy()
        return observation, reward, step.terminated.cpu().numpy(), step.truncated.cpu().numpy(), info
