import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from numpy.testing import assert_array_equal
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env

import hyperrl
from hyperrl.families.definition import family_spec
from hyperrl.utils.definitions import folder, names

FAMILIES = names("envs")
BASES = {name: base for name in FAMILIES if (base := family_spec(name).definition.base) is not None}
FEATURES = [(name, feature) for name in FAMILIES for feature in hyperrl.load_family(name).context_space.names]


def trajectory(env: gym.Env[Any, Any], seed: int, steps: int, **options: Any) -> list[tuple[Any, ...]]:
    """Play the same random actions and return all that the environment said."""
    env.action_space.seed(seed)
    said: list[tuple[Any, ...]] = [(env.reset(seed=seed, **options)[0],)]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        said.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            said.append((env.reset()[0],))
    return said


def assert_same(said: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert len(said) == len(expected)
    for step, other in zip(said, expected, strict=True):
        observation = step[0]["observation"] if isinstance(step[0], dict) else step[0]
        assert_array_equal(observation, other[0])
        assert step[1:] == other[1:]


@pytest.mark.parametrize("name", BASES)
def test_default_context_is_the_gymnasium_environment(name: str) -> None:
    family = hyperrl.load_family(name)
    base = gym.make(BASES[name])
    assert_same(trajectory(family.make(context={}), seed=7, steps=700), trajectory(base, seed=7, steps=700))


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("seed", range(3))
def test_any_context_is_the_environment_with_its_attributes_set(name: str, seed: int) -> None:
    family = hyperrl.load_family(name)
    context = family.context_space.as_dict(family.context_space.sample("extrapolation", 5, seed)[seed])
    base = gym.make(BASES[name], disable_env_checker=True)
    values: dict[str, Any] = {
        "cartpole": lambda c: dict(
            gravity=c["gravity"],
            masscart=c["masscart"],
            masspole=c["masspole"],
            total_mass=c["masscart"] + c["masspole"],
            length=c["length"],
            polemass_length=c["masspole"] * c["length"],
            force_mag=c["force_mag"],
        ),
        "pendulum": lambda c: dict(g=c["gravity"], m=c["mass"], l=c["length"], max_torque=2 * abs(c["torque_gain"])),
        "acrobot": lambda c: dict(
            LINK_LENGTH_1=c["link_length_1"],
            LINK_COM_POS_1=c["link_length_1"] / 2,
            LINK_MASS_1=c["link_mass_1"],
            LINK_MASS_2=c["link_mass_2"],
            AVAIL_TORQUE=[-c["torque"], 0, c["torque"]],
        ),
        "mountain_car": lambda c: c,
        "mountain_car_continuous": lambda c: c,
    }
    for attribute, value in values[name](context).items():
        setattr(base.unwrapped, attribute, value)
    if name == "pendulum":
        gain = context["torque_gain"]
        base = gym.wrappers.TransformAction(base, lambda a: np.clip(a, -2, 2) * gain, base.action_space)
    assert_same(trajectory(family.make(context), seed, 700), trajectory(base, seed, 700))


@pytest.mark.parametrize(("name", "feature"), FEATURES)
def test_every_feature_acts(name: str, feature: str) -> None:
    family = hyperrl.load_family(name)
    space = family.context_space
    step = 0.01 * (space.train_range[1] - space.train_range[0])[space.index(feature)]
    value = space.as_dict(space.default)[feature]
    changed = -value if space.features[space.index(feature)].is_choice else value + step
    before, after = (trajectory(family.make({feature: v}), 0, 30) for v in (value, changed))
    moved = [not np.array_equal(a[0]["observation"], b[0]["observation"]) for a, b in zip(before, after, strict=False)]
    assert any(moved) or goal_acts(family, feature)


def goal_acts(family: hyperrl.Family, feature: str) -> bool:
    """Whether an episode that starts just under the goal goes on when the goal moves away."""
    if feature != "goal_position":
        return False
    ends = []
    for goal in (0.45, 0.5):
        env = family.make({feature: goal})
        env.reset(seed=0)
        inner: Any = env.unwrapped
        inner.env.state = np.array([0.46, 0.01], dtype=np.float32)
        ends.append(env.step(np.array([1.0], dtype=np.float32))[2])
    return ends == [True, False]


@pytest.mark.parametrize("name", FAMILIES)
def test_environments_do_not_leak(name: str) -> None:
    family = hyperrl.load_family(name)
    contexts = family.context_space.sample("extrapolation", 2, 0)
    alone = trajectory(family.make(contexts[0]), 3, 50)
    first, other = family.make(contexts[0]), family.make(contexts[1])
    other.reset(seed=3)
    first.reset(seed=3)
    other.reset(seed=3)
    for step, expected in zip(trajectory(first, 3, 50), alone, strict=True):
        assert_array_equal(step[0]["observation"], expected[0]["observation"])
    if name in BASES:
        assert_same(trajectory(family.make({}), 3, 50), trajectory(gym.make(BASES[name]), 3, 50))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_contexts_and_trajectories(name: str) -> None:
    env = hyperrl.load_family(name).make()
    first, again, other = (trajectory(env, seed, 400) for seed in (5, 5, 6))
    assert_same(again, [(step[0]["observation"], *step[1:]) for step in first])
    assert [step[0]["context"].tolist() for step in again] == [step[0]["context"].tolist() for step in first]
    assert first[0][0]["context"].tolist() != other[0][0]["context"].tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_environment_i_does_not_depend_on_how_many_there_are(name: str) -> None:
    family = hyperrl.load_family(name)
    few, many = family.vec_env(2, seed=4), family.vec_env(5, seed=4)
    actions = [few.action_space.sample() for _ in range(5)]
    for vec_env in (few, many):
        vec_env.reset()
    for _ in range(60):
        a, b = few.step(np.array(actions[:2])), many.step(np.array(actions))
        for key in ("observation", "context"):
            assert_array_equal(a[0][key], b[0][key][:2])


@pytest.mark.parametrize("name", FAMILIES)
def test_time_limit_truncates(name: str) -> None:
    family = hyperrl.load_family(name)
    limit = gym.spec(family.id).max_episode_steps
    assert limit is not None
    vec_env = family.vec_env(20, seed=1)
    vec_env.reset()
    length = np.zeros(20, dtype=int)
    for _ in range(limit + 1):
        _, _, dones, infos = vec_env.step(np.array([vec_env.action_space.sample() for _ in range(20)]))
        length += 1
        for i in np.flatnonzero(dones):
            assert infos[i]["TimeLimit.truncated"] == (length[i] == limit)
            assert infos[i]["episode"]["l"] == length[i]
            length[i] = 0
    assert length.max() <= limit


def test_terminal_observation_holds_the_old_context() -> None:
    vec_env = hyperrl.load_family("cartpole").vec_env(1)
    observation = vec_env.reset()
    for _ in range(500):
        new, _, dones, infos = vec_env.step(np.array([0]))
        if dones[0]:
            break
    assert_array_equal(infos[0]["terminal_observation"]["context"], observation["context"][0])
    assert not np.array_equal(new["context"], observation["context"])
    assert not infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["r"] > 0


def test_contexts_of_a_vec_env_follow_the_rule() -> None:
    family = hyperrl.load_family("cartpole")
    space = family.context_space
    contexts = space.sample("train", 3, 0)
    vec_env = family.vec_env(2, contexts=contexts)
    seen: list[list[Any]] = [[context] for context in vec_env.reset()["context"]]
    while min(len(row) for row in seen) < 5:
        observation, _, dones, _ = vec_env.step(np.array([0, 0]))
        for i in np.flatnonzero(dones):
            seen[i].append(observation["context"][i])
    for i, row in enumerate(seen):
        for k, context in enumerate(row):
            assert_array_equal(context, contexts[(i + 2 * k) % 3].astype(np.float32))


def test_other_splits_give_each_environment_one_context() -> None:
    family = hyperrl.load_family("pendulum")
    observed = family.vec_env(4, split="extrapolation", seed=2).reset()["context"]
    assert_array_equal(observed, family.context_space.sample("extrapolation", 4, 2).astype(np.float32))
    fixed = family.vec_env(6, contexts=2, seed=2).reset()["context"]
    assert_array_equal(fixed, np.tile(family.context_space.sample("train", 2, 2).astype(np.float32), (3, 1)))


def test_reset_options_set_the_context() -> None:
    env = hyperrl.load_family("pendulum").make()
    observation, _ = env.reset(seed=1, options={"context": {"length": 0.7}, "x_init": 0.1})
    assert_array_equal(observation["context"], np.array([10, 1, 0.7, 1], dtype=np.float32))
    assert abs(np.arctan2(observation["observation"][1], observation["observation"][0])) <= 0.1
    assert not np.array_equal(env.reset()[0]["context"], observation["context"])


@pytest.mark.parametrize("name", BASES)
def test_checkers_say_no_more_than_of_the_base_environment(name: str) -> None:
    """The checkers find fault with the spaces of Gymnasium's own environments; with ours, nothing else."""
    family = hyperrl.load_family(name)

    def complaints(env_id: str) -> set[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gymnasium_check_env(gym.make(env_id, render_mode="rgb_array", disable_env_checker=True).unwrapped)
            sb3_check_env(gym.make(env_id, disable_env_checker=True))
        return {str(warning.message).removeprefix("\x1b[33mWARN: ").removesuffix("\x1b[0m") for warning in caught}

    assert complaints(family.id) <= complaints(BASES[name])


@pytest.mark.parametrize("name", FAMILIES)
def test_registered_id_draws_training_contexts(name: str) -> None:
    family = hyperrl.load_family(name)
    env = gym.make(family.id)
    contexts = np.array([env.reset(seed=None if i else 0)[0]["context"] for i in range(5)], dtype=np.float64)
    assert family.context_space.in_bounds(contexts).all()
    assert len({tuple(context) for context in contexts}) == 5
    assert env.spec is not None
    limit = family_spec(name).definition.max_episode_steps or gym.spec(BASES[name]).max_episode_steps
    assert env.spec.max_episode_steps == limit
    vec_env = make_vec_env(family.id, n_envs=2, seed=0)
    assert vec_env.reset()["context"].shape == (2, len(family.context_space))
    fixed = gym.make(family.id, context={})
    assert_array_equal(fixed.reset()[0]["context"], family.context_space.default.astype(np.float32))


def test_bad_arguments_are_refused() -> None:
    family = hyperrl.load_family("pendulum")
    with pytest.raises(ValueError, match=r"unknown feature 'lenght'.*Did you mean 'length'\?"):
        family.make({"lenght": 1})
    with pytest.raises(ValueError, match="feature 'length' must lie in"):
        family.make({"length": 9})
    with pytest.raises(ValueError, match="unknown split 'trian'"):
        family.vec_env(2, split="trian")
    with pytest.raises(ValueError, match="at least one environment"):
        family.vec_env(0)
    with pytest.raises(ValueError, match="feature 'length' must lie in"):
        family.vec_env(1, contexts=[[10, 1, 9, 1]])


def test_an_unknown_attribute_is_named(tmp_path: Path) -> None:
    text = (folder("envs") / "pendulum.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("max_torque =", "max_torqe ="), encoding="utf-8")
    with pytest.raises(
        ValueError,
        match=r"mine\.toml: \[attributes\] 'max_torqe': Pendulum-v1 has no attribute 'max_torqe'\. Did you",
    ):
        hyperrl.load_family(path).make()


def test_import_is_light() -> None:
    """Importing registers the families; torch and SB3 wait until they are needed."""
    program = """
        import sys, hyperrl, gymnasium
        heavy = {"torch", "stable_baselines3", "matplotlib", "scipy", "tyro", "rich"} & set(sys.modules)
        assert not heavy, heavy
        gymnasium.make("hyperrl/Pendulum-v0").reset()
        assert {"HyperPolicy", "train", "evaluate", "load_family"} <= set(dir(hyperrl))
        hyperrl.HyperPolicy
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(program)], check=True)
    with pytest.raises(AttributeError, match="no attribute 'HyperPolic'"):
        _ = hyperrl.HyperPolic
