"""Batched physics as a Gymnasium ``VectorEnv``, for ``gymnasium.make_vec("hyperrl/Pendulum-v0", num_envs=1024)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from hyperrl.simulation.simulator import Observation, Simulator


class BatchedVectorEnv(VectorEnv[Observation, np.ndarray, NDArray[Any]]):
    """Environments of one family, stepped together; an episode that ends is followed by the next in the same step.

    The last observation of an episode is in ``info["final_obs"]``, as in Gymnasium's own environments of this mode.

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
    ) -> tuple[Observation, dict[str, Any]]:
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
        return self.simulator.reset([context] * self.num_envs), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take one step in every environment."""
        step = self.simulator.step(actions)
        info: dict[str, Any] = {}
        if step.ended is not None:
            for j, i in enumerate(step.ended.rows.tolist()):
                last = {key: value[j] for key, value in step.ended.observation.items()}
                info = self._add_info(info, {"final_obs": last, "final_info": {}}, i)
        return step.observation, step.reward, step.terminated, step.truncated, info
