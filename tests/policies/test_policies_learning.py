"""Every algorithm solves the simplest task that needs the context: say what is seen, or its opposite."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import hyperrl.policies
from hyperrl.policies import POLICY_OF
from hyperrl.policies.registry import algorithm_class

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(2),
    "multidiscrete": spaces.MultiDiscrete([2, 2]),
    "multibinary": spaces.MultiBinary(2),
    "box": spaces.Box(-1, 1, (1,)),
}
DISCRETE = dict(learning_rate=1e-3, gamma=0.4)
DQN = DISCRETE | dict(learning_starts=100, target_update_interval=100, exploration_fraction=0.3)
BOX = dict(learning_rate=3e-3, gamma=0.4, learning_starts=100, batch_size=64)
# Each with the steps that it takes, most of the time less.
CASES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("PPO", "discrete", 4096, DISCRETE | dict(n_steps=64, batch_size=64, n_epochs=5)),
    ("PPO", "multidiscrete", 4096, DISCRETE | dict(n_steps=64, batch_size=64, n_epochs=5)),
    ("PPO", "multibinary", 4096, DISCRETE | dict(n_steps=64, batch_size=64, n_epochs=5)),
    ("A2C", "discrete", 6000, DISCRETE | dict(learning_rate=3e-3, n_steps=16)),
    ("TRPO", "discrete", 6000, DISCRETE | dict(n_steps=64, batch_size=64)),
    (
        "DQN",
        "discrete",
        3000,
        DISCRETE | dict(learning_starts=100, target_update_interval=100, exploration_fraction=0.3),
    ),
    (
        "QRDQN",
        "discrete",
        3000,
        DISCRETE | dict(learning_starts=100, target_update_interval=100, exploration_fraction=0.3),
    ),
    ("SAC", "box", 1500, BOX),
    ("TD3", "box", 3000, BOX | dict(learning_rate=1e-3)),
    ("DDPG", "box", 1500, BOX),
    ("TQC", "box", 1500, BOX),
    ("CrossQ", "box", 2500, BOX),
]
FAST = ("PPO discrete", "DQN discrete")


class Identity(gym.Env[Any, Any]):
    """Reward for an action that says the observation, in half of the contexts its opposite; 25 steps an episode."""

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space
        self.n = 1 if isinstance(action_space, spaces.Discrete) else (action_space.shape or (1,))[0]
        self.observation_space = spaces.Dict(observation=spaces.Box(-1, 1, (self.n,)), context=spaces.Box(-1, 1, (1,)))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.context = self.np_random.choice([-1.0, 1.0], size=1).astype(np.float32)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        target = self.context * self.seen
        if isinstance(self.action_space, spaces.Box):
            reward = 1 - float(np.abs(action - target).mean())
        else:
            reward = float((np.atleast_1d(action) == (target > 0)).mean())
        self.time += 1
        return self.observe(), reward, False, self.time == 25, {}

    def observe(self) -> Any:
        if isinstance(self.action_space, spaces.Box):
            self.seen = self.np_random.uniform(-1, 1, size=self.n).astype(np.float32)
        else:
            self.seen = self.np_random.choice([-1.0, 1.0], size=self.n).astype(np.float32)
        return {"observation": self.seen, "context": self.context}


def identity(action: str, n: int, flat: bool) -> VecEnv:
    def make() -> gym.Env[Any, Any]:
        env = Identity(ACTIONS[action])
        return FlattenObservation(env) if flat else env

    return DummyVecEnv([make] * n)


@pytest.mark.parametrize(
    ("name", "action", "steps", "kwargs"),
    [
        pytest.param(*case, id=f"{case[0]} {case[1]}", marks=() if f"{case[0]} {case[1]}" in FAST else pytest.mark.slow)
        for case in CASES
    ],
)
def test_identity_in_context(name: str, action: str, steps: int, kwargs: dict[str, Any]) -> None:
    """The mean reward a step is 1 for the right answer, a half or less for who does not know the context."""
    policy_kwargs: dict[str, Any] = dict(net_arch=[32])
    flat = name == "CrossQ"
    if flat:  # the context is the first entry
        policy_kwargs["context_slice"] = (0, 1)
    if name in ("TD3", "DDPG"):
        kwargs = kwargs | dict(action_noise=NormalActionNoise(np.zeros(1), np.full(1, 0.2)))
    policy = getattr(hyperrl.policies, POLICY_OF[name])
    algorithm: Any = sb3_contrib.CrossQ if flat else algorithm_class(name)
    n = 4 if name in ("PPO", "A2C", "TRPO") else 1
    model = algorithm(policy, identity(action, n, flat), policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs)
    model.learn(steps)
    reward, _ = evaluate_policy(model, identity(action, 1, flat), n_eval_episodes=20, warn=False)
    assert reward / 25 > 0.9
