"""Contexts identified from what was logged, and in environments that no family made."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from numpy.testing import assert_allclose
from outside import hyperrl as command
from outside import python
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

import hyperrl
from hyperrl.adaptation.identification import Transitions, identify
from hyperrl.policies import HyperPolicy

PENDULUM = hyperrl.load_family("pendulum")
CARTPOLE = hyperrl.load_family("cartpole")
# A project that knows nothing of hyperrl writes a log, and another one reads it.
LOGGER = """
import gymnasium
import numpy as np

env = gymnasium.make("Pendulum-v1", g=7.0)
env.action_space.seed(0)
observations, actions, rewards = [env.reset(seed=0)[0]], [], []
for _ in range(100):
    action = env.action_space.sample()
    observation, reward, *_ = env.step(action)
    observations.append(observation), actions.append(action), rewards.append(reward)
np.savez("log.npz", observation=observations, action=actions, reward=rewards)
"""
READER = """
import hyperrl
from hyperrl.adaptation import Transitions, identify

found = identify(hyperrl.load_family("pendulum"), Transitions.from_npz("log.npz"))
print(dict(zip(found.names, found.context.round(2).tolist())))
"""


def test_a_log_that_numpy_wrote(tmp_path: Path) -> None:
    for name, code in (("logger", LOGGER), ("reader", READER)):
        (tmp_path / f"{name}.py").write_text(code)
        printed = python(tmp_path, f"{name}.py")
    printed_by_command = command(tmp_path, "identify", "pendulum", "log.npz")
    assert "the context of 100 steps" in printed_by_command
    found = eval(printed.splitlines()[-1])
    # One step ahead, a pendulum shows gravity / length and torque_gain / (mass * length²).
    assert_allclose(found["gravity"] / found["length"], 7.0, rtol=0.02)
    row = next(line for line in printed_by_command.splitlines() if "gravity" in line)
    assert_allclose(float(row.split("│")[2]), found["gravity"], rtol=1e-3)
    assert "no such file: nowhere.npz" in command(tmp_path, "identify", "pendulum", "nowhere.npz", expect=2)


def test_without_rewards_and_with_choices() -> None:
    env: Any = CARTPOLE.make(context={"length": 0.8})
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    before, actions, after = [], [], []
    for _ in range(60):
        action = env.action_space.sample()
        before.append(observation["observation"])
        observation, _, terminated, _, _ = env.step(action)
        actions.append([float(action)])  # as a log of numbers has choices
        after.append(observation["observation"])
        if terminated:
            observation, _ = env.reset()
    found = identify(CARTPOLE, Transitions.from_arrays(before, actions, after))
    known = dict(zip(found.names, found.context, strict=True))
    assert_allclose(known["length"], 0.8, rtol=0.01)


STEPS = dict(observation=np.zeros((5, 3)), action=np.zeros((5, 1)), following=np.zeros((5, 3)), reward=np.zeros(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(following=np.zeros((4, 3))), "expected 'observation' and 'following' of shape (5, o)"),
        (dict(following=None), "expected 'observation' of shape (6, o) for 5 actions of one episode"),
        (dict(reward=np.zeros((5, 1))), "and (5, 1)"),
        (dict(observation=np.full((5, 3), np.nan)), "'observation' has a number that is not finite, in row 0"),
        (dict(action=["left"] * 5), "expected numbers, one row a step, as 'action'"),
    ],
)
def test_arrays_of_other_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Transitions.from_arrays(**(STEPS | change))


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        (PENDULUM, dict(observation=np.zeros((5, 2)), following=np.zeros((5, 2))), "expected observations Box"),
        (PENDULUM, dict(action=np.zeros((5, 2))), "expected actions of Box"),
        (CARTPOLE, dict(observation=np.zeros((5, 4)), following=np.zeros((5, 4)), action=np.full(5, 0.5)), "Discrete"),
    ],
)
def test_logs_of_another_environment_are_refused(family: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        identify(family, Transitions.from_arrays(**(STEPS | change)))


def test_files_that_are_no_logs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    with pytest.raises(ValueError, match="no such file"):
        Transitions.from_npz(path)
    for content in (b"", b"PK\x03\x04 damaged", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            Transitions.from_npz(path)
    np.savez(path, observations=np.zeros((5, 3)), action=np.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"log\.npz: expected arrays \['observation', 'action', "):
        Transitions.from_npz(path)
    np.savez(path, observation=np.array([{"a": 1}], dtype=object), action=np.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"log\.npz: .*allow_pickle"):
        Transitions.from_npz(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.npy: expected an \.npz file"):
        Transitions.from_npz(tmp_path / "one.npy")


class Rig(gym.Env[Any, Any]):
    """Gymnasium's pendulum, behind an interface that tells nothing of it."""

    def __init__(self, gravity: float = 7.0) -> None:
        self.pendulum = PendulumEnv(g=gravity)
        self.observation_space, self.action_space = self.pendulum.observation_space, self.pendulum.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self.pendulum.reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation, reward, terminated, _, info = self.pendulum.step(action)
        return observation, reward, terminated, self.steps == 50, info


def test_an_environment_that_follows_the_physics_of_a_family() -> None:
    model = PPO(HyperPolicy, PENDULUM.vec_env(2), n_steps=50, batch_size=25, device="cpu")
    with pytest.raises(ValueError, match=r"family=\.\.\., whose physics the environment follows"):
        hyperrl.adapt(model, Rig(), "identify", episodes=1, evaluations=1)
    with pytest.raises(ValueError, match="Cartpole needs the features"):
        hyperrl.adapt(model, Rig(), "identify", episodes=1, evaluations=1, family=CARTPOLE)
    for wrong in (dict(method="search"), dict(method="identify", dynamics=object())):
        with pytest.raises(ValueError, match=r"family=\.\.\. is for method 'identify'"):
            hyperrl.adapt(model, Rig(), episodes=1, family=PENDULUM, **wrong)
    for env in (Rig(), DummyVecEnv([Rig])):
        found = hyperrl.adapt(model, env, "identify", episodes=1, evaluations=1, family=PENDULUM).identified
        assert found is not None
        known = dict(zip(found.names, found.context, strict=True))
        assert_allclose(known["gravity"] / known["length"], 7.0, rtol=0.02)


def test_nothing_of_the_physics_is_pickled_on_the_way() -> None:
    model = PPO(HyperPolicy, PENDULUM.vec_env(2), n_steps=50, batch_size=25, device="cpu")
    env = SubprocVecEnv([Rig])
    try:
        curve = hyperrl.adapt(model, env, "identify", episodes=1, evaluations=1, eval_env=Rig(), family=PENDULUM)
        assert curve.identified is not None
        with pytest.raises(ValueError, match=r"cannot be copied: it is in another process .*Give eval_env="):
            hyperrl.adapt(model, env, "search", episodes=1, evaluations=1)
    finally:
        env.close()
