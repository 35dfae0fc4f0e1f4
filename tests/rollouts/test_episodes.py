from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation, TransformObservation
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

import hyperrl
from hyperrl.adaptation.studies import study
from hyperrl.families.family import Family
from hyperrl.policies import ConcatPolicy, HyperPolicy
from hyperrl.report.films import record
from hyperrl.rollouts.episodes import play, random_returns
from hyperrl.utils.seeding import stream

SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)
FAMILY = hyperrl.load_family("cartpole")
PENDULUM = hyperrl.load_family("pendulum")
Observe = Callable[[dict[str, np.ndarray]], Any]


def side_by_side(family: Family) -> gym.Env:
    """Observation, then context, in one row: what algorithms without Dict observations are given."""
    env = family.make()
    parts: Any = env.observation_space
    box = gym.spaces.Box(
        *(np.r_[getattr(parts["observation"], e), getattr(parts["context"], e)] for e in ("low", "high"))
    )
    return TransformObservation(env, lambda o: np.r_[o["observation"], o["context"]], box)


def whole(observation: dict[str, np.ndarray]) -> Any:
    return observation


def base(observation: dict[str, np.ndarray]) -> Any:
    return observation["observation"]


def flat(observation: dict[str, np.ndarray]) -> Any:
    return np.concatenate([observation["observation"], observation["context"]], axis=1)


def flattened(observation: dict[str, np.ndarray]) -> Any:
    """As Gymnasium's FlattenObservation orders the entries."""
    return np.concatenate([observation[key] for key in FAMILY.make().observation_space.spaces], axis=1)  # pyright: ignore[reportAttributeAccessIssue]


MODELS: dict[str, tuple[Family, Callable[[], Any], Observe]] = {
    "hypernetwork": (FAMILY, lambda: PPO(HyperPolicy, FAMILY.vec_env(2), **SIZES), whole),
    "multi-input": (FAMILY, lambda: PPO("MultiInputPolicy", FAMILY.vec_env(2), **SIZES), whole),
    "base environment": (FAMILY, lambda: PPO("MlpPolicy", gym.make("CartPole-v1"), **SIZES), base),
    "side by side": (
        FAMILY,
        lambda: PPO(HyperPolicy, side_by_side(FAMILY), policy_kwargs=dict(context_slice=(-5, None)), **SIZES),
        flat,
    ),
    "flattened": (FAMILY, lambda: PPO("MlpPolicy", FlattenObservation(FAMILY.make()), **SIZES), flattened),
    "recurrent": (FAMILY, lambda: RecurrentPPO("MlpLstmPolicy", gym.make("CartPole-v1"), **SIZES), base),
    "off-policy": (FAMILY, lambda: DQN("MlpPolicy", gym.make("CartPole-v1"), device="cpu", seed=0), base),
    "off-policy, continuous": (PENDULUM, lambda: SAC("MlpPolicy", gym.make("Pendulum-v1"), device="cpu", seed=0), base),
}


@pytest.mark.parametrize("name", MODELS)
def test_returns_equal_those_of_playing_one_by_one(name: str) -> None:
    family, make, observe = MODELS[name]
    model = make()
    contexts = family.context_space.sample("extrapolation", 3, 1)
    together = play(model, family, contexts, episodes=2, seed=5).returns
    for i, context in enumerate(contexts):
        for episode in range(2):
            env = family.vec_env(1, contexts=context[None])
            env.seed(stream(5) + 2 * i + episode)
            observation: Any = env.reset()
            total, over, state, start = 0.0, False, None, np.ones(1, dtype=bool)
            while not over:
                action, state = model.predict(observe(observation), state, start, deterministic=True)
                observation, rewards, dones, _ = env.step(action)
                total, over, start = total + float(rewards[0]), bool(dones[0]), np.zeros(1, dtype=bool)
            assert together[i, episode] == pytest.approx(total, rel=1e-5)


def test_a_memory_is_carried_from_step_to_step() -> None:
    """The recurrent model above would play alike without its state only if the state did nothing."""
    model = MODELS["recurrent"][1]()
    observation = np.ones((1, 4), dtype=np.float32)
    _, state = model.predict(observation, None, np.ones(1, dtype=bool))
    first, second = (
        model.policy.get_distribution(
            torch.as_tensor(observation),
            tuple(torch.as_tensor(part) for part in state),
            torch.tensor([start]),
        )[0].distribution.logits
        for start in (0.0, 1.0)
    )
    assert not torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("family", [FAMILY, PENDULUM], ids=["terminated", "truncated"])
def test_accuracy_of_the_critic_equals_that_of_a_loop(family: Family, normalize: bool) -> None:
    env: Any = family.vec_env(2)
    if normalize:
        env = VecNormalize(env, norm_obs=False, gamma=0.9)
    model = PPO(HyperPolicy, env, gamma=0.9, **SIZES).learn(64)
    contexts = family.context_space.sample("train", 2, 0)
    # A batch rounds otherwise than one row. No episode of this seed makes that larger; one of seed 3 does, to 0.008.
    measured = play(model, family, contexts, episodes=2, seed=4, values=True).values
    assert measured is not None
    for i, context in enumerate(contexts):
        values, returns = [], []
        for episode in range(2):
            vec_env = family.vec_env(1, contexts=context[None])
            vec_env.seed(stream(4) + 2 * i + episode)
            observation: Any = vec_env.reset()
            rewards, over, infos = [], False, [{}]
            while not over:
                values.append(value(model, observation))
                action, _ = model.predict(observation, deterministic=True)
                observation, reward, dones, infos = vec_env.step(action)
                rewards.append(float(env.normalize_reward(reward)[0] if normalize else reward[0]))
                over = bool(dones[0])
            follows = 0.0
            if infos[0]["TimeLimit.truncated"]:
                last: Any = infos[0]["terminal_observation"]
                follows = value(model, {key: entry[None] for key, entry in last.items()})
            steps = range(len(rewards))
            for t in steps:  # G_t written out
                g = sum(0.9 ** (k - t) * rewards[k] for k in steps[t:])
                returns.append(g + 0.9 ** (len(rewards) - t) * follows)
        g, v = np.array(returns), np.array(values)
        scale = np.sqrt(env.ret_rms.var + env.epsilon) if normalize else 1.0
        assert_allclose(measured.explained_variance[i], 1 - np.var(g - v) / np.var(g), rtol=1e-4, atol=1e-6)
        assert_allclose(measured.bias[i], scale * np.mean(v - g), rtol=1e-4)


def value(model: PPO, observation: Any) -> float:
    with torch.no_grad():
        return float(model.policy.predict_values(model.policy.obs_to_tensor(observation)[0]))


@pytest.mark.parametrize("name", ["off-policy", "recurrent"])
def test_models_without_a_critic_of_observations_have_no_accuracy(name: str) -> None:
    family, make, _ = MODELS[name]
    assert play(make(), family, family.context_space.default[None], 1, values=True).values is None


def test_an_aware_model_acts_on_what_it_is_told() -> None:
    model = PPO(ConcatPolicy, PENDULUM.vec_env(2), **SIZES)
    contexts = PENDULUM.context_space.sample("train", 3, 0)
    truth = np.repeat(contexts[:, None], 2, axis=1)
    assert_array_equal(
        play(model, PENDULUM, contexts, 2, reported=truth).returns, play(model, PENDULUM, contexts, 2).returns
    )
    seen: list[Any] = []
    predict = model.predict
    model.predict = lambda observation, **kwargs: (seen.append(observation), predict(observation, **kwargs))[1]  # pyright: ignore[reportAttributeAccessIssue]
    reported = np.arange(3 * 2 * 4).reshape(3, 2, 4) / 10
    play(model, PENDULUM, contexts, 2, reported=reported)
    for observation in seen:
        assert_array_equal(observation["context"], reported.reshape(6, 4).astype(np.float32))
    play(PPO(ConcatPolicy, PENDULUM.vec_env(2), **SIZES), PENDULUM, contexts, 2, reported=truth + 100)  # and no warning
    with pytest.raises(ValueError, match=r"'reported' of shape \(3, 2, 4\), got \(6, 4\)"):
        play(model, PENDULUM, contexts, 2, reported=reported.reshape(6, 4))


class Leaning:
    """An agent of somebody's own: pushes the cart to where the pole leans."""

    def predict(self, observation: Any) -> np.ndarray:
        return (observation["observation"][:, 2] > 0).astype(int)


def test_any_object_with_predict_plays() -> None:
    contexts = FAMILY.context_space.sample("train", 3, 0)
    played = play(Leaning(), FAMILY, contexts, 4, values=True)
    assert played.values is None
    assert_array_equal(played.returns, played.lengths)  # a reward of 1 a step
    assert played.returns.mean() > 1.3 * random_returns(FAMILY, contexts, 4).mean()
    with pytest.raises(ValueError, match=r"an object with a method predict\(observation\), got str"):
        play("model.zip", FAMILY, contexts)


def test_progress_is_told_step_by_step_and_adds_up() -> None:
    told: list[int] = []
    played = play(Leaning(), FAMILY, FAMILY.context_space.sample("train", 3, 0), 4, progress=told.append)
    assert len(told) == played.lengths.max()
    assert sum(told) == 3 * 4 * 500  # an episode that ends early has nothing left to do
    assert told[0] == 12
    assert len(np.unique(played.lengths)) > 1


def test_random_actions_are_uniform_and_seeded() -> None:
    """A pole pushed at random falls after 22 steps on average, as Gymnasium's own does."""
    context = FAMILY.context_space.default[None]
    returns = random_returns(FAMILY, context, episodes=400, seed=0)
    assert returns.shape == (1, 400)
    assert returns.mean() == pytest.approx(22, abs=2)
    assert_array_equal(returns, random_returns(FAMILY, context, episodes=400, seed=0))
    assert not np.array_equal(returns, random_returns(FAMILY, context, episodes=400, seed=1))


def test_a_model_of_other_observations_is_refused() -> None:
    with pytest.raises(ValueError, match="the model acts on observations of"):
        play(MODELS["base environment"][1](), PENDULUM, [[10, 1, 1, 1]])


def test_statistics_of_vec_normalize_are_applied() -> None:
    env = VecNormalize(FAMILY.vec_env(2), norm_obs_keys=["observation"])
    model = PPO(HyperPolicy, env, **SIZES).learn(64)
    seen: list[Any] = []
    predict = model.predict
    model.predict = lambda observation, **kwargs: (seen.append(observation), predict(observation, **kwargs))[1]  # pyright: ignore[reportAttributeAccessIssue]
    play(model, FAMILY, FAMILY.context_space.default[None], episodes=2, seed=3)
    raw = FAMILY.vec_env(2, contexts=FAMILY.context_space.default[None], seed=3).reset()
    assert_allclose(seen[0]["observation"], env.normalize_obs(raw)["observation"])
    assert_array_equal(seen[0]["context"], raw["context"])  # pyright: ignore[reportCallIssue]


ENDLESS = """
id = "hyperrl/Endless-v0"
base = "EndlessPendulum-v0"
plane = ["mass", "length"]
[attributes]
m = "mass"
l = "length"
[features.mass]
unit = "kg"
default = 1.0
train = [0.5, 1.5]
bounds = [0.1, 2.0]
[features.length]
unit = "m"
default = 1.0
train = [0.5, 1.5]
bounds = [0.1, 2.0]
"""


def test_episodes_without_a_time_limit_are_refused(tmp_path: Path) -> None:
    if "EndlessPendulum-v0" not in gym.registry:
        gym.register("EndlessPendulum-v0", "gymnasium.envs.classic_control:PendulumEnv")
    path = tmp_path / "endless.toml"
    path.write_text(ENDLESS)
    family = hyperrl.load_family(path)
    model = PPO(HyperPolicy, family.vec_env(2), **SIZES)
    contexts = family.context_space.default[None]
    says = r"set max_episode_steps = \.\.\. in .*endless\.toml"
    with pytest.raises(ValueError, match=says):
        hyperrl.evaluate(model, family)
    with pytest.raises(ValueError, match=says):
        random_returns(family, contexts)
    with pytest.raises(ValueError, match=says):
        record(model, family, contexts, tmp_path / "film.gif")
    with pytest.raises(ValueError, match=says):
        study({"hyper": [model]}, family, contexts)
    path.write_text("max_episode_steps = 7\n" + ENDLESS)
    assert_array_equal(play(model, hyperrl.load_family(path), contexts, 2).lengths, 7)
