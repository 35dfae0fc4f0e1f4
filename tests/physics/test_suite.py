"""The DeepMind Control Suite's tasks: dm_control's own, one by one and all at once, also in other contexts."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hyperrl
import hyperrl.utils.extras
from hyperrl.families.registration import SUITE
from hyperrl.physics.libmujoco import library, quiet, state_bits
from hyperrl.physics.suite import SuiteEnv, with_cos_sin, without_cos_sin
from hyperrl.physics.suite_tasks import SUITE_TASKS

suite: Any = pytest.importorskip("dm_control.suite")
FAMILIES = {name.replace("-", "_"): name for name in SUITE_TASKS} | {
    "reacher_hard_permuted": "reacher-hard",
    "reacher_easy_cos_sin": "reacher-easy",
    "reacher_hard_cos_sin": "reacher-hard",
    "reacher_hard_permuted_cos_sin": "reacher-hard",
}
every_task = pytest.mark.parametrize("name", FAMILIES)


def test_the_tasks_are_those_that_are_registered() -> None:
    assert [f"{domain}-{task}" for domain, tasks in SUITE.items() for task in tasks] == list(SUITE_TASKS)


def flat(observation: Any) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in observation.values()])


def seen(env: SuiteEnv, own: np.ndarray) -> np.ndarray:
    """What is observed where ``dm_control`` observes this, written once more: number by number."""
    return np.array([f(x) for i, x in enumerate(own) for f in ((np.cos, np.sin) if i in env.angles else (float,))])


@every_task
def test_rows_begin_as_each_would_alone(name: str) -> None:
    family = hyperrl.load_family(name)
    physics, space = family.physics(), family.context_space
    contexts, numbers = torch.tensor(space.sample("train", 3, 0)), torch.rand(3, physics.uniforms, dtype=torch.float64)
    columns = dict(zip(space.names, contexts.T, strict=True))
    together = physics.initial(numbers, columns)
    for i, row in enumerate(together):
        alone = physics.initial(numbers[i : i + 1], {feature: values[i : i + 1] for feature, values in columns.items()})
        assert_array_equal(row, alone[0])


@every_task
def test_a_row_equals_dm_control_step_for_step(name: str) -> None:
    family, n = hyperrl.load_family(name), 3
    contexts = family.context_space.sample("extrapolation", n, 0)
    contexts[0] = family.context_space.default
    vec_env: Any = family.vec_env(n, contexts=contexts, seed=1, threads=1)
    observed, size = vec_env.reset()["observation"], vec_env.simulator.physics.size
    envs: list[SuiteEnv] = []
    for row, context, state in zip(observed, contexts, vec_env.simulator.state.numpy(), strict=True):
        env: Any = family.make(context)
        env.reset(seed=0)
        inner = env.unwrapped.env.unwrapped
        if "reacher" in name:
            inner.model.geom("target").pos[:2] = state[size : size + 2]
        for derive in (library().mj_forward, None):  # it may change what the solver starts with
            library().mj_setState(inner.model, inner.data, state[:size].copy(), state_bits())
            if derive is not None:
                derive(inner.model, inner.data)
        assert_array_equal(seen(inner, flat(inner.suite_env.task.get_observation(inner.physics))), row)
        envs.append(inner)
    rng = np.random.default_rng(0)
    for _ in range(150):
        actions = rng.uniform(-1, 1, (n, *vec_env.action_space.shape)).astype(np.float32)
        observation, rewards, dones, _ = vec_env.step(actions)
        assert not dones.any()
        for i, env in enumerate(envs):
            taken = env.suite_env.step(actions[i])
            assert_array_equal(observation["observation"][i], seen(env, taken.observation["observations"]))
            assert rewards[i] == np.float32(taken.reward)


@every_task
def test_at_the_default_context_it_is_dm_controls_own(name: str) -> None:
    domain, task = FAMILIES[name].split("-")
    with quiet():
        own = suite.load(domain, task)
    env: Any = hyperrl.load_family(name).make({})
    assert own._step_limit == env.spec.max_episode_steps == 1000
    env.reset(seed=3)
    own.task._random = np.random.RandomState(np.random.default_rng(5).bit_generator)
    inner = env.unwrapped.env.unwrapped
    inner.np_random = np.random.default_rng(5)
    first, _ = env.reset()
    assert_array_equal(first["observation"], seen(inner, flat(own.reset().observation)))
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        taken = own.step(action)
        assert_array_equal(observation["observation"], seen(inner, flat(taken.observation)))
        assert (reward, terminated, truncated) == (taken.reward, False, False)


@pytest.mark.parametrize(
    ("name", "context", "old", "new"),
    [
        ("cartpole_balance", {"length": 0.85}, ['fromto="0 0 0 0 0 1"'], ['fromto="0 0 0 0 0 1.7"']),
        (
            "reacher_hard",
            {"length": 1.5},
            ['"0 0 0 0.12 0 0"', '"hand" pos=".12 0 0"', '"0 0 0 0.1 0 0"', '"finger" pos=".12 0 0"'],
            ['"0 0 0 0.18 0 0"', '"hand" pos=".18 0 0"', '"0 0 0 0.15 0 0"', '"finger" pos=".18 0 0"'],
        ),
        (
            "ball_in_cup_catch",
            {"distance": 0.5, "gravity": 19.62},
            ['range="0 0.3"', '"ball" pos="0 0 .2"', "<default>"],
            ['range="0 0.5"', '"ball" pos="0 0 0"', '<option gravity="0 0 -19.62"/><default>'],
        ),
    ],
)
def test_a_context_is_that_of_a_changed_definition(name: str, context: Any, old: list[str], new: list[str]) -> None:
    """The changes that Benad et al. (2026) make in the text of the model."""
    domain = FAMILIES[name].split("-")[0]
    common: Any = import_module("dm_control.suite.common")
    text = common.read_model(f"{domain}.xml")
    text = text.decode() if isinstance(text, bytes) else text
    for before, after in zip(old, new, strict=True):
        assert before in text
        text = text.replace(before, after, 1)
    changed: Any = library().MjModel.from_xml_string(text, common.ASSETS)
    env: Any = hyperrl.load_family(name).make(context)
    env.reset(seed=0)
    edited = env.unwrapped.env.unwrapped.model
    for field in ("body_mass", "body_inertia", "body_pos", "geom_pos", "geom_size", "tendon_range", "dof_invweight0"):
        expected = getattr(changed, field)
        if name == "reacher_hard" and field in ("geom_pos", "geom_size"):  # of the target, which the task sets
            target = edited.geom("target").id
            expected = expected.copy()
            expected[target] = getattr(edited, field)[target]
        assert_allclose(getattr(edited, field), expected, rtol=1e-9, atol=1e-12, err_msg=field)
    assert_allclose(edited.opt.gravity, changed.opt.gravity, rtol=1e-12)


def test_a_longer_leg_is_longer() -> None:
    models = []
    for length in (1.6, 1.0):
        env: Any = hyperrl.load_family("cheetah_run").make({"length": length})
        env.reset(seed=0)
        models.append(env.unwrapped.env.unwrapped.model)
    one, other = models
    for leg in ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"):
        assert_allclose(one.geom(leg).size[1], 1.6 * other.geom(leg).size[1])
    assert_allclose(one.geom("torso").size, other.geom("torso").size)


def test_a_target_is_drawn_for_each_episode() -> None:
    vec_env: Any = hyperrl.load_family("reacher_easy").vec_env(50, seed=0)
    vec_env.reset()
    target = vec_env.simulator.state.numpy()[:, -4:-2]
    radius = np.hypot(*target.T)
    assert ((radius >= 0.05) & (radius <= 0.2)).all()
    assert len(np.unique(radius)) == 50
    vec_env.step(np.ones((50, 2), dtype=np.float32))
    assert_array_equal(vec_env.simulator.state.numpy()[:, -4:-2], target)


def test_what_is_not_installed_or_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown task 'walker-wolk'.* Did you mean 'walker-walk'"):
        SuiteEnv("walker", "wolk")
    monkeypatch.setattr(hyperrl.utils.extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"walker-walk needs dm_control: pip install dm_control, .*\[dmc\]"):
        hyperrl.load_family("walker_walk").make()


def test_places_of_angles_that_are_not_there_are_refused() -> None:
    for angles in ([6], [-1], [1, 0], [0, 0], [0.5]):
        with pytest.raises(ValueError, match=r"'angles' must be places in an observation of 6, ascending, got \["):
            SuiteEnv("reacher", "hard", angles=angles)


@given(st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=5), st.sets(st.integers(0, 2)))
def test_angles_come_back_from_their_cosines_and_sines(row: list[float], places: set[int]) -> None:
    own, angles = np.tile(row, (2, 1)), sorted(places)
    whole = with_cos_sin(own, angles)
    assert whole.shape == (2, len(row) + len(angles))
    assert_allclose(without_cos_sin(whole, angles), own, atol=1e-12)
    turned = own.copy()
    turned[:, angles] += 4 * np.pi
    assert_allclose(with_cos_sin(turned, angles), whole, atol=1e-12)
