"""Tasks that a context sets: Gymnasium's rewards where they are its own, and the formula elsewhere."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose

import hyperrl
from tests.physics.test_mujoco import assert_same, begin, mujoco, play


def inner(env: Any) -> Any:
    """Gymnasium's environment inside a family's."""
    return env.unwrapped.env.unwrapped


@pytest.mark.parametrize(("name", "base"), [("cheetah_velocity", "HalfCheetah-v5"), ("ant_direction", "Ant-v5")])
def test_the_default_task_is_gymnasiums_to_the_bit(name: str, base: str) -> None:
    """The cheetah's as long as it is slower than 3 m/s, as with random actions."""
    ours: Any = hyperrl.load_family(name).make({})
    theirs: Any = gym.make(base)
    for env in (ours, theirs):
        env.reset(seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (200, *theirs.action_space.shape)).astype(np.float32)
    assert_same(play(ours, actions), play(theirs, actions))


@pytest.mark.parametrize("speed", [-1.0, 0.5, 4.0])
def test_beyond_its_target_a_speed_is_worth_as_much_less(speed: float) -> None:
    """target - |speed - target|, less the cost of control."""
    env: Any = hyperrl.load_family("cheetah_velocity").make({"target_speed": 1.5})
    env.reset(seed=0)
    qvel = np.zeros(9)
    qvel[0] = speed
    begin(inner(env), inner(env).init_qpos, qvel)
    _, reward, _, _, info = env.step(np.full(6, 0.5, dtype=np.float32))
    assert (info["x_velocity"] > 1.5) == (speed > 1.5)
    assert reward == pytest.approx(1.5 - abs(info["x_velocity"] - 1.5) - 0.1 * 6 * 0.25)


@pytest.mark.parametrize("direction", [2.0, -0.7])
def test_the_speed_in_a_direction_is_rewarded(direction: float) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 8)).astype(np.float32)
    rewards = []
    for context in ({}, {"direction": direction}):
        env: Any = hyperrl.load_family("ant_direction").make(context)
        env.reset(seed=2)
        rewards.append([(env.step(action)[1], inner(env).data.body("torso").xpos[:2].copy()) for action in actions])
    (ahead, places), (turned, same) = ([np.array(x) for x in zip(*said, strict=True)] for said in rewards)
    assert_allclose(places, same)
    velocity = np.diff(places, axis=0) / 0.05
    unit = [np.cos(direction), np.sin(direction)]
    assert_allclose((turned - ahead)[1:], velocity @ unit - velocity[:, 0], atol=1e-9)


def test_the_goal_is_the_target_and_nothing_tells_of_it() -> None:
    goal = {"goal_x": -0.05, "goal_y": 0.12}
    env: Any = hyperrl.load_family("point_goal").make(goal)
    base: Any = gym.make("Reacher-v5").unwrapped
    env.reset(seed=0)
    qpos, qvel = inner(env).data.qpos.copy(), inner(env).data.qvel.copy()
    assert_allclose(qpos[2:], [*goal.values()])  # where it is drawn
    base.reset(seed=0)
    begin(base, qpos, qvel)
    assert_allclose(base.data.body("target").xpos[:2], [*goal.values()])
    begin(inner(env), qpos, qvel)
    for action in np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32):
        (seen, reward, *_), (whole, expected, *_) = env.step(action), base.step(action)
        assert_allclose(seen["observation"], whole[[0, 1, 2, 3, 6, 7]], rtol=1e-12)
        assert reward == pytest.approx(expected, rel=1e-12)
    env.reset(options={"context": {"goal_x": 0.1, "goal_y": 0.1}})
    assert_allclose(inner(env).get_body_com("target"), [0.1, 0.1, 0.01])
    tip = inner(env).data.body("fingertip").id
    model, data = inner(env).model, inner(env).data
    _, reward, *_ = env.step(np.zeros(2, dtype=np.float32))
    mujoco.mj_kinematics(model, data)
    assert reward == pytest.approx(-np.hypot(*(data.xpos[tip, :2] - 0.1)), abs=1e-2)
