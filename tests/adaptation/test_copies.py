"""Copies to measure in: the same environment, or a refusal."""

import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils import EzPickle
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import hyperrl
from hyperrl.adaptation.copies import copied
from hyperrl.contexts import ContextSpace, Feature
from hyperrl.policies import HyperPolicy


class Ball(gym.Env[Any, Any]):
    """A ball that falls."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, gravity: float = 9.81) -> None:
        self.gravity = gravity

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.speed = self.np_random.uniform()
        return np.float32([self.speed]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.speed += self.gravity * 0.01 + action[0]
        return np.float32([self.speed]), -abs(self.speed), False, False, {}


class EzBall(Ball, EzPickle):
    """A ball that is copied by its constructor's arguments."""

    def __init__(self, gravity: float = 9.81) -> None:
        EzPickle.__init__(self, gravity)
        super().__init__(gravity)


class BoxedBall(EzBall):
    """A ball whose gravity is kept where no attribute shows it."""

    def __init__(self, gravity: float = 9.81) -> None:
        super().__init__(gravity)
        self.box = {"gravity": gravity}

    def step(self, action: Any) -> Any:
        self.gravity, hidden = self.box["gravity"], self.gravity
        try:
            return super().step(action)
        finally:
            self.gravity = hidden


class LockedBall(Ball):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class SharedBall(Ball):
    """A ball in a simulation outside Python: a copy holds the same handle."""

    worlds: dict[int, float] = {}  # noqa: RUF012

    @property
    def speed(self) -> float:
        return self.worlds[0]

    @speed.setter
    def speed(self, value: float) -> None:
        self.worlds[0] = value


def one(env: gym.Env[Any, Any]) -> DummyVecEnv:
    return DummyVecEnv([lambda: env])


def test_what_was_set_by_hand_is_in_the_copy() -> None:
    env = Ball()
    env.gravity = 1.62
    assert copied(one(env)).get_attr("gravity") == [1.62]
    assert copied(one(EzBall(1.62))).get_attr("gravity") == [1.62]


def test_environments_that_are_made_anew_are_refused() -> None:
    env = EzBall()
    env.gravity = 1.62
    with pytest.raises(ValueError, match=r"EzBall\.gravity is 1\.62, in the copy 9\.81\. Give eval_env="):
        copied(one(gym.wrappers.TimeLimit(env, 50)))
    boxed = BoxedBall()
    boxed.box["gravity"] = 1.62
    with pytest.raises(ValueError, match=r"after 1 steps of the same actions, it observes .*Give eval_env="):
        copied(one(boxed))


def test_environments_that_do_not_copy_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot be copied \(TypeError: cannot pickle '_thread\.lock' object\)"):
        copied(one(LockedBall()))
    with pytest.raises(ValueError, match="is not the same environment"):
        copied(one(SharedBall()))


SPACE = ContextSpace((Feature("gravity", "m/s²", 9.81, ((5.0, 15.0),), ((1.0, 20.0),)),))


def contextual(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    def apply(env: Any, context: Any) -> None:
        env.gravity = context["gravity"]

    return gym.wrappers.TimeLimit(hyperrl.ContextEnv(env, SPACE, apply, [[5.0]]), 10)


def test_adapt_asks_for_environments_to_measure_in() -> None:
    model = PPO(HyperPolicy, one(contextual(Ball())), n_steps=10, batch_size=10, device="cpu")
    bare = gym.wrappers.TimeLimit(EzBall(), 10)
    bare.unwrapped.gravity = 5.0  # pyright: ignore[reportAttributeAccessIssue]
    given: dict[str, Any] = dict(context={"gravity": 5.0}, episodes=1, evaluations=2)
    with pytest.raises(ValueError, match="Give eval_env="):
        hyperrl.adapt(model, bare, **given)
    told = hyperrl.adapt(model, bare, eval_env=contextual(Ball()), **given)
    assert (hyperrl.adapt(model, contextual(EzBall()), **given).returns == told.returns).all()  # set at each reset
