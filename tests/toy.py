"""An environment of random numbers over the pendulum's context, and batches of its observations."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

import hyperrl

ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-2, 2, (3,)),
    "lopsided box": spaces.Box(np.array([0, -5], dtype=np.float32), np.array([1, 3], dtype=np.float32)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
}
CONTEXT = hyperrl.load_family("pendulum").context_space
VECTOR = {"observation": spaces.Box(-np.inf, np.inf, (5,)), "context": hyperrl.contexts.ContextBox(CONTEXT)}
IMAGE = {**VECTOR, "camera": spaces.Box(0, 255, (36, 36, 3), dtype=np.uint8)}


class Toy(gym.Env[Any, Any]):
    """Random observations and rewards, a new context each episode of seven steps."""

    def __init__(self, entries: dict[str, spaces.Space[Any]], action_space: spaces.Space[Any]) -> None:
        self.observation_space = spaces.Dict(entries)
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.context = CONTEXT.sample("train", 1, self.np_random)[0].astype(np.float32)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        return self.observe(), self.np_random.normal(), False, self.time == 7, {}

    def observe(self) -> Any:
        return {**self.observation_space.sample(), "context": self.context}


def toy(
    action: str = "box", entries: dict[str, spaces.Space[Any]] = VECTOR, n: int = 4, flat: bool = False
) -> DummyVecEnv:
    """Make a vectorised toy; ``flat``: its observation is one vector, the context first."""

    def make() -> gym.Env[Any, Any]:
        env = Toy(entries, copy.deepcopy(ACTIONS[action]))
        return gym.wrappers.FlattenObservation(env) if flat else env

    return DummyVecEnv([make for _ in range(n)])


def observations(model: Any, n: int = 12, contexts: int = 3) -> Any:
    """A batch of observations with a few contexts, mixed: tensors, or one tensor where they are flat."""
    picked = CONTEXT.sample("train", contexts, 0)[np.random.default_rng(0).integers(contexts, size=n)]
    context = torch.as_tensor(picked, dtype=torch.float32)
    space = model.observation_space
    if not isinstance(space, spaces.Dict):
        generator = torch.Generator().manual_seed(0)
        return torch.cat([context, torch.randn(n, space.shape[0] - context.shape[1], generator=generator)], dim=1)
    space.seed(0)
    batch = [space.sample() for _ in range(n)]
    result = {key: torch.as_tensor(np.stack([entry[key] for entry in batch])) for key in space.spaces}
    return {**result, "context": context}


def to_numpy(obs: Any) -> Any:
    """The same batch, as ``predict`` takes it."""
    return {key: value.numpy() for key, value in obs.items()} if isinstance(obs, dict) else obs.numpy()


def perturb(module: torch.nn.Module) -> None:
    """Make generated weights differ from context to context, as after learning."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "generator" in name:
                parameter += 0.2 * torch.randn_like(parameter)
