import re
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO, SAC, HerReplayBuffer
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import hyperrl
from hyperrl.contexts import ContextSpace, Feature
from hyperrl.families.contract import check_family
from hyperrl.families.definition import family_spec
from hyperrl.physics.registry import load
from hyperrl.policies import HyperSACPolicy
from hyperrl.utils.definitions import folder, names

FAMILIES = names("envs")
BASES = {name: base for name in FAMILIES if (base := family_spec(name).definition.base) is not None}
FEATURES = [(name, feature) for name in FAMILIES for feature in hyperrl.load_family(name).context_space.names]


def original(name: str) -> gym.Env[Any, Any]:
    """The environment that a family varies, made by Gymnasium."""
    return gym.make(BASES[name], **family_spec(name).definition.base_kwargs)


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
    assert_same(trajectory(family.make(context={}), seed=7, steps=250), trajectory(original(name), seed=7, steps=250))


@pytest.mark.parametrize(
    "name",
    [name for name in BASES if (said := family_spec(name).definition).attributes and said.physics != "mujoco"],
)
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
    assert_same(trajectory(family.make(context), seed, 250), trajectory(base, seed, 250))


@pytest.mark.parametrize(("name", "feature"), FEATURES)
def test_every_feature_acts(name: str, feature: str) -> None:
    family = hyperrl.load_family(name)
    space = family.context_space
    step = 0.01 * (space.train_range[1] - space.train_range[0])[space.index(feature)]
    value = space.as_dict(space.default)[feature]
    of = space.features[space.index(feature)]
    changed = next(low for low, _ in of.train if low != value) if of.is_choice else value + step
    before, after = (trajectory(family.make({feature: v}), 0, 30) for v in (value, changed))
    moved = [
        not np.array_equal(a[0]["observation"], b[0]["observation"]) or a[1:2] != b[1:2]  # or another reward
        for a, b in zip(before, after, strict=False)
    ]
    assert any(moved) or goal_acts(family, feature)


def goal_acts(family: hyperrl.Family, feature: str) -> bool:
    """Whether a goal acts that random actions do not reach."""
    if feature == "target_speed":
        slow, slower = (trajectory(family.make({feature: speed}), 0, 30)[1:] for speed in (0.1, 0.07))
        return [step[1] for step in slow] != [step[1] for step in slower]
    # An episode that starts just under the goal goes on when the goal moves away.
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
        assert_same(trajectory(family.make({}), 3, 50), trajectory(original(name), 3, 50))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_contexts_and_trajectories(name: str) -> None:
    env = hyperrl.load_family(name).make()
    first, again, other = (trajectory(env, seed, steps) for seed, steps in ((5, 250), (5, 250), (6, 0)))
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
        a: Any = few.step(np.array(actions[:2]))[0]
        b: Any = many.step(np.array(actions))[0]
        for key in ("observation", "context"):
            assert_array_equal(a[key], b[key][:2])


def test_terminal_observation_holds_the_old_context() -> None:
    vec_env = hyperrl.load_family("cartpole").vec_env(1)
    observation: Any = vec_env.reset()
    new, dones, infos = observation, [False], [{}]
    while not dones[0]:
        new, _, dones, infos = vec_env.step(np.array([0]))
    assert_array_equal(infos[0]["terminal_observation"]["context"], observation["context"][0])
    assert not np.array_equal(new["context"], observation["context"])  # pyright: ignore[reportCallIssue]
    assert not infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["r"] > 0


def test_contexts_of_a_vec_env_follow_the_rule() -> None:
    family = hyperrl.load_family("cartpole")
    space = family.context_space
    contexts = space.sample("train", 3, 0)
    vec_env = family.vec_env(2, contexts=contexts)
    seen: list[list[Any]] = [[context] for context in vec_env.reset()["context"]]  # pyright: ignore[reportCallIssue]
    while min(len(row) for row in seen) < 5:
        observation, _, dones, _ = vec_env.step(np.array([0, 0]))
        for i in np.flatnonzero(dones):
            seen[i].append(observation["context"][i])  # pyright: ignore[reportCallIssue]
    for i, row in enumerate(seen):
        for k, context in enumerate(row):
            assert_array_equal(context, contexts[(i + 2 * k) % 3].astype(np.float32))


def test_other_splits_give_each_environment_one_context() -> None:
    family = hyperrl.load_family("pendulum")
    observed = family.vec_env(4, split="extrapolation", seed=2).reset()["context"]  # pyright: ignore[reportCallIssue]
    assert_array_equal(observed, family.context_space.sample("extrapolation", 4, 2).astype(np.float32))
    fixed = family.vec_env(6, contexts=2, seed=2).reset()["context"]  # pyright: ignore[reportCallIssue]
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
    with_opengl = family_spec(name).definition.physics == "mujoco"  # which is not everywhere

    def complaints(env_id: str) -> set[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            checked = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True).unwrapped
            gymnasium_check_env(checked, skip_render_check=with_opengl)
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
    assert vec_env.reset()["context"].shape == (2, len(family.context_space))  # pyright: ignore[reportCallIssue]
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


LENGTH = ContextSpace((Feature("length", "m", 1.0, train=((0.8, 1.2),), bounds=((0.5, 1.5),)),))


class Goals(gym.Env[Any, Any]):
    """Move to a goal; how far a step leads is the context."""

    observation_space = spaces.Dict(
        {key: spaces.Box(-5, 5, (2,)) for key in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = spaces.Box(-1, 1, (2,))
    length = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = np.zeros(2, dtype=np.float32)
        self.goal = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.position = np.clip(self.position + np.float32(0.1 * self.length) * action, -5, 5).astype(np.float32)
        observed = self.observe()
        return observed, self.compute_reward(self.position, self.goal, {}), False, False, {}

    def observe(self) -> dict[str, Any]:
        return {"observation": self.position, "achieved_goal": self.position, "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -np.linalg.norm(np.asarray(achieved) - desired, axis=-1).astype(np.float64)


def set_length(env: Any, context: Any) -> None:
    env.length = context["length"]


GOALS = hyperrl.Family(Goals, LENGTH, set_length, name="goals", max_episode_steps=20)


def test_dict_observations_are_merged_with_the_context(tmp_path: Path) -> None:
    assert {finding.fault for finding in check_family(GOALS)} == {None}
    vec_env = VecNormalize(GOALS.vec_env(2), norm_obs_keys=["observation", "achieved_goal"])
    assert list(vec_env.observation_space.spaces)[-1] == "context"  # pyright: ignore[reportAttributeAccessIssue]
    model = PPO(hyperrl.HyperPolicy, vec_env, n_steps=16, batch_size=16, n_epochs=1, device="cpu").learn(32)
    assert model.policy.context_space.names == ("length",)  # pyright: ignore[reportAttributeAccessIssue]
    report = hyperrl.evaluate(model, GOALS, contexts=2, episodes=2)
    assert report.splits["extrapolation"].returns.shape == (2, 2)
    unaware = PPO("MultiInputPolicy", GOALS.base(), n_steps=16, batch_size=16, device="cpu")
    assert np.isfinite(hyperrl.evaluate(unaware, GOALS, contexts=2, episodes=2).splits["train"].returns).all()
    model.save(tmp_path / "agent.zip")
    loaded = PPO.load(tmp_path / "agent.zip", env=GOALS.vec_env(2))
    assert loaded.observation_space == vec_env.observation_space


def test_hindsight_replay_in_a_family_with_goals() -> None:
    model = SAC(
        HyperSACPolicy,
        GOALS.vec_env(2),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=50,
        batch_size=16,
        buffer_size=500,
        device="cpu",
    )
    model.learn(80)
    assert GOALS.make().get_wrapper_attr("compute_reward")(np.ones(2), np.ones(2), {}) == 0


def test_an_observation_with_a_context_of_its_own_is_refused() -> None:
    class Clash(Goals):
        observation_space = spaces.Dict(observation=spaces.Box(-5, 5, (2,)), context=spaces.Box(-5, 5, (2,)))

    with pytest.raises(ValueError, match=r"\['observation', 'context'\] have an entry 'context' already"):
        hyperrl.Family(Clash, LENGTH, set_length, name="clash").make()


def test_features_of_another_order_are_refused(tmp_path: Path) -> None:
    """With equal bounds the spaces would be equal to Gymnasium, and one feature taken for the other."""

    def double(first: str, second: str) -> hyperrl.Family:
        space = ContextSpace(tuple(Feature(n, "m", 1.0, ((0.8, 1.2),), ((0.5, 1.5),)) for n in (first, second)))
        return hyperrl.Family(Goals, space, set_length, name="goals", max_episode_steps=20)

    trained, other = double("length", "width"), double("width", "length")
    model = PPO(hyperrl.HyperPolicy, trained.vec_env(2), n_steps=16, batch_size=16, device="cpu")
    model.save(tmp_path / "agent.zip")
    both = r"length \[m\].*width \[m\].*width \[m\].*length \[m\]"
    with pytest.raises(ValueError, match=both):
        hyperrl.evaluate(model, other, contexts=2, episodes=1)
    with pytest.raises(ValueError, match=both):
        PPO.load(tmp_path / "agent.zip", env=other.vec_env(2))
    with pytest.raises(ValueError, match=both):
        model.set_env(other.vec_env(2))


@pytest.mark.parametrize("option", ["contxt", "Context", "contexts", "context "])
def test_a_misspelt_option_is_refused(option: str) -> None:
    env = hyperrl.load_family("pendulum").make()
    with pytest.raises(ValueError, match=f"unknown option '{option}'. Did you mean 'context'"):
        env.reset(options={option: {"length": 0.7}})
    env.reset(options={"x_init": 0.1, "context": {"length": 0.7}})


def test_an_observed_context_can_be_given_back() -> None:
    """At a bound, float32 is a little outside."""
    family = hyperrl.load_family("mountain_car_continuous")
    env = family.make({"power": 0.0007, "goal_position": 0.3})
    observed = env.reset(seed=0)[0]["context"]
    again = family.make(observed).reset(seed=0)[0]["context"]
    assert_array_equal(again, observed)
    env.reset(options={"context": observed})


def test_nested_attributes_items_arguments_and_wrappers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "Nested-v0", EnvSpec("Nested-v0", entry_point=Nested, max_episode_steps=20))
    path = tmp_path / "nested.toml"
    path.write_text(NESTED)
    env = hyperrl.load_family(path).make({"length": 0.7})
    observation, _ = env.reset(seed=0)
    assert observation["observation"].shape == (2, 6)  # flattened, then stacked
    inner: Any = env.unwrapped.env.unwrapped  # pyright: ignore[reportAttributeAccessIssue]
    assert inner.scale == 3
    assert inner.model.opt.gravity.dtype == np.float32
    assert_array_equal(inner.model.opt.gravity, np.array([0, 0, -0.7], dtype=np.float32))
    assert inner.model.bodies[1].mass == 1.4
    assert_array_equal(inner.model.table, np.array([[0, 0.7], [0, 0]]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"model.opt.gravity"', '"model.opt.gravty"', "'model.opt' has no attribute 'gravty'. Did you mean 'gravity'?"),
        ('"model.opt.gravity"', '"modl.opt.gravity"', "Nested-v0 has no attribute 'modl'. Did you mean 'model'?"),
        ("bodies[1].mass", "bodies[2].mass", "'model.bodies' has no item [2]"),
        ("bodies[1].mass", "opt[1].mass", "'model.opt' has no item [1]"),
        ("scale = 3", "scal = 3", "unexpected keyword argument 'scal'"),
        ("gymnasium.wrappers:Flat", "gymnasium.wrappers:Flt", "Did you mean 'FlattenObservation'?"),
        ("stack_size", "stacksize", "unexpected keyword argument 'stacksize'"),
    ],
)
def test_what_a_base_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.setitem(gym.registry, "Nested-v0", EnvSpec("Nested-v0", entry_point=Nested, max_episode_steps=20))
    path = tmp_path / "nested.toml"
    path.write_text(NESTED.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        hyperrl.load_family(path).make()
    assert str(error.value).startswith(str(path))


class Nested(Goals):
    def __init__(self, scale: int = 1) -> None:
        self.scale = scale
        self.model = SimpleNamespace(
            opt=SimpleNamespace(gravity=np.array([0, 0, -9.8], dtype=np.float32)),
            bodies=[SimpleNamespace(mass=1.0), SimpleNamespace(mass=1.0)],
            table=np.zeros((2, 2)),
        )


NESTED = """
id = "my/Nested-v0"
base = "Nested-v0"
base_kwargs = { scale = 3 }
wrappers = [
    "gymnasium.wrappers:FlattenObservation",
    { wrapper = "gymnasium.wrappers:FrameStackObservation", stack_size = 2 },
]
[features.length]
unit = "m"
default = 1.0
train = [0.8, 1.2]
bounds = [0.5, 1.5]
[attributes]
"model.opt.gravity" = ["0", "0", "-length"]
"model.bodies[1].mass" = "2 * length"
"model.table[0][1]" = "length"
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(apply=None), "give both 'make_env' and 'apply', or neither and 'physics'"),
        (dict(make_env=None, apply=None), "give 'make_env' and 'apply', or 'physics' and 'max_episode_steps'"),
        (dict(make_env=None, apply=None, physics="ode"), "or 'physics' and 'max_episode_steps'"),
        (dict(max_episode_steps=0), "'max_episode_steps' must be at least 1, got 0"),
        (dict(name="a name"), "expected a name of letters, digits and - _ . for a family, got 'a name'"),
        (dict(plane=("length", "lenght")), "unknown feature 'lenght'"),
        (dict(action_scale="scale"), "unknown feature 'scale'"),
    ],
)
def test_faulty_families_made_in_python_are_refused(arguments: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = dict(make_env=Goals, context_space=LENGTH, apply=set_length, name="goals")
    with pytest.raises(ValueError, match=re.escape(message)):
        hyperrl.Family(**valid | arguments)


def test_what_a_family_made_in_python_is_known_by() -> None:
    again = hyperrl.Family(Goals, LENGTH, set_length, name="other", max_episode_steps=20)
    assert again.digest == GOALS.digest == GOALS.with_irrelevant(2).digest
    other = ContextSpace((replace(LENGTH.features[0], bounds=((0.5, 1.6),)),))
    for changed in (
        hyperrl.Family(Nested, LENGTH, set_length, name="goals", max_episode_steps=20),
        hyperrl.Family(Goals, LENGTH, print, name="goals", max_episode_steps=20),
        hyperrl.Family(Goals, other, set_length, name="goals", max_episode_steps=20),
        hyperrl.Family(Goals, LENGTH, set_length, name="goals", max_episode_steps=21),
        hyperrl.Family(partial(Goals), LENGTH, set_length, name="goals", max_episode_steps=20, physics="ode"),
    ):
        assert changed.digest != GOALS.digest


def test_a_new_version_of_a_family_is_another_family(tmp_path: Path) -> None:
    text = (folder("envs") / "pendulum.toml").read_text(encoding="utf-8")
    digests = []
    for i, identifier in enumerate(("hyperrl/Pendulum-v0", "hyperrl/Other-v0", "hyperrl/Pendulum-v1")):
        path = tmp_path / f"pendulum{i}.toml"
        path.write_text(text.replace("hyperrl/Pendulum-v0", identifier), encoding="utf-8")
        digests.append(hyperrl.load_family(path).digest)
    assert digests[0] == digests[1] == hyperrl.load_family("pendulum").digest != digests[2]


def test_physics_alone_make_a_family_in_python() -> None:
    ode = hyperrl.load_family("ode")
    mine = hyperrl.Family(None, ode.context_space, None, name="mine", physics=load("ode"), max_episode_steps=200)
    assert not mine.has_base
    with pytest.raises(ValueError, match="the family varies no environment"):
        mine.base()
    assert_array_equal(mine.vec_env(3, seed=1).reset()["observation"], ode.vec_env(3, seed=1).reset()["observation"])  # pyright: ignore[reportCallIssue]
    assert_array_equal(mine.make({}).reset(seed=1)[0]["observation"], ode.make({}).reset(seed=1)[0]["observation"])
