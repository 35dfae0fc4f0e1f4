from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

import hyperrl
from hyperrl.evaluation import Report, episode_returns, evaluate
from hyperrl.policies import HyperPolicy
from hyperrl.statistics import interquartile_mean

SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)
FAMILY = hyperrl.load_family("cartpole")


@pytest.fixture(scope="module")
def model() -> PPO:
    return PPO(HyperPolicy, FAMILY.vec_env(2), **SIZES)


def test_returns_equal_those_of_playing_one_by_one(model: PPO) -> None:
    contexts = FAMILY.context_space.sample("extrapolation", 3, 1)
    together = episode_returns(model, FAMILY, contexts, episodes=2, seed=5)
    for i, context in enumerate(contexts):
        for episode in range(2):
            env = FAMILY.vec_env(1, contexts=context[None])
            env.seed(hyperrl.families.stream(5) + 2 * i + episode)
            observation: Any = env.reset()
            total, over = 0.0, False
            while not over:
                action, _ = model.predict(observation, deterministic=True)
                observation, rewards, dones, _ = env.step(action)
                total += float(rewards[0])
                over = dones[0]
            assert together[i, episode] == total


def test_report_holds_each_split(model: PPO) -> None:
    report = evaluate(model, FAMILY, contexts=4, episodes=3, seed=2, plane=3)
    assert list(report.splits) == ["train", "interpolation", "extrapolation"]
    for name, split in report.splits.items():
        assert_array_equal(split.contexts, FAMILY.context_space.sample(name, 4, 2))
        assert split.returns.shape == (4, 3)
        assert split.mean == pytest.approx(split.returns.mean())
        assert split.iqm.low <= split.iqm.value <= split.iqm.high
        assert split.iqm.value == pytest.approx(interquartile_mean(split.returns.mean(axis=1)))
    again = evaluate(model, FAMILY, contexts=4, episodes=3, seed=2, plane=3)
    assert all(np.array_equal(again.splits[name].returns, report.splits[name].returns) for name in report.splits)
    plane = report.plane
    assert plane is not None
    assert plane.features == ("force_mag", "length")
    assert plane.returns.shape == (3, 3)
    assert np.isnan(plane.returns[:, 1]).all()  # no force at all is out of bounds
    context = FAMILY.context_space.vector({"force_mag": plane.x[0], "length": plane.y[2]})
    seen = {tuple(c) for c in hyperrl.evaluation._grid(FAMILY, 3)[0]}
    assert tuple(context) in seen


def test_report_survives_its_file(model: PPO, tmp_path: Path) -> None:
    report = evaluate(model, FAMILY, contexts=2, episodes=1, plane=2)
    report.save(tmp_path / "e.json")
    again = Report.load(tmp_path / "e.json")
    assert again.family == "cartpole"
    assert again.settings == report.settings
    assert report.plane is not None
    assert again.plane is not None
    assert_array_equal(again.plane.returns, report.plane.returns)
    for name, split in report.splits.items():
        assert_array_equal(again.splits[name].returns, split.returns)
        assert_array_equal(again.splits[name].contexts, split.contexts)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"family": "x"}', '{"family": 1, "settings": 2, "splits": 3}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(ValueError, match=r"e\.json: not an evaluation written by hyperrl"):
        Report.load(tmp_path / "e.json")


def test_a_plain_model_of_the_base_environment_is_evaluated() -> None:
    plain = PPO("MlpPolicy", gym.make("CartPole-v1"), **SIZES)
    assert episode_returns(plain, FAMILY, FAMILY.context_space.default[None], episodes=2).shape == (1, 2)
    with pytest.raises(ValueError, match="the model acts on observations of"):
        episode_returns(plain, hyperrl.load_family("pendulum"), [[10, 1, 1, 1]])


def test_statistics_of_vec_normalize_are_applied() -> None:
    env = VecNormalize(FAMILY.vec_env(2), norm_obs_keys=["observation"])
    model = PPO(HyperPolicy, env, **SIZES).learn(64)
    seen: list[Any] = []
    predict = model.predict
    model.predict = lambda observation, *args: (seen.append(observation), predict(observation, *args))[1]
    episode_returns(model, FAMILY, FAMILY.context_space.default[None], episodes=2, seed=3)
    raw = FAMILY.vec_env(2, contexts=FAMILY.context_space.default[None], seed=3).reset()
    assert_allclose(seen[0]["observation"], env.normalize_obs(raw)["observation"])
    assert_array_equal(seen[0]["context"], raw["context"])


def test_bad_arguments_are_refused(model: PPO) -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        evaluate(model, FAMILY, episodes=0)
    with pytest.raises(ValueError, match=r"unknown split 'test'"):
        evaluate(model, FAMILY, splits=("test",))
    with pytest.raises(ValueError, match="at least one context"):
        evaluate(model, FAMILY, contexts=0)
