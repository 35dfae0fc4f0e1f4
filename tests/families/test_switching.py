"""Contexts that change within episodes: when, to what, and what goes on as it was; on both backends."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from packaged import FAMILIES, IN_TORCH, PHYSICS

from hyperrl.simulation.simulator import Simulator
from hyperrl.training import agent_spec
from hyperrl.training.models import build
from tests.physics.test_mujoco import BASES as MUJOCO
from tests.physics.test_mujoco import parts, single

every_family = pytest.mark.parametrize("name", FAMILIES)
every_physics = pytest.mark.parametrize("name", PHYSICS)


def make(name: str, n: int, steps: int | None, switch: Any, contexts: Any = None, device: str = "cpu") -> Simulator:
    family = FAMILIES[name]
    simulator = Simulator(family.physics(), family.context_space, n, steps, contexts, device, switch)
    simulator.seed(range(n))
    simulator.reset()
    return simulator


def vec_envs(name: str, n: int, **kwargs: Any) -> Any:
    return FAMILIES[name].vec_env(n, **kwargs)


def actions(simulator: Simulator, i: int) -> torch.Tensor:
    """Actions of step i, those of a row the same whatever n."""
    drawn = []
    for row in range(simulator.n):
        simulator.action_space.seed(1000 * i + row)
        drawn.append(np.asarray(simulator.action_space.sample()))
    return torch.from_numpy(np.stack(drawn)).to(simulator.device)


@every_physics
def test_the_context_in_force_acts_and_the_state_goes_on(name: str) -> None:
    simulator = make(name, 4, 20, (3, 3))
    physics, space = FAMILIES[name].physics(), FAMILIES[name].context_space
    for i in range(45):
        before, state, action = simulator.contexts, simulator.state, actions(simulator, i)
        assert state is not None
        c = dict(zip(space.names, before.T, strict=True))
        after, reward, _ = physics.step(state.clone(), action if not action.is_floating_point() else action.double(), c)
        step = simulator.step(action)
        assert torch.equal(step.reward, reward.double())
        assert torch.equal(step.switched, ~step.ended & (step.lengths % 3 == 0))
        assert simulator.state is not None
        assert torch.equal(simulator.state[~step.ended], after[~step.ended])
        assert torch.equal((simulator.contexts != before).any(1), step.switched | step.ended)
        assert torch.equal(step.last["context"], before.float())
        assert torch.equal(step.observation["context"], simulator.contexts.float())
        assert space.in_training_range(simulator.contexts.numpy()).all()
        assert torch.equal(step.observation["observation"][step.switched], step.last["observation"][step.switched])


@every_physics
def test_switches_depend_on_the_seed_alone(name: str) -> None:
    few, many = make(name, 2, 16, (2, 5)), make(name, 5, 16, (2, 5))
    between, since = set(), torch.zeros(5, dtype=torch.int64)
    for i in range(60):
        one, other = few.step(actions(few, i)), many.step(actions(many, i))
        assert torch.equal(one.switched, other.switched[:2])
        assert torch.equal(few.contexts, many.contexts[:2])
        since += 1
        between |= set(since[other.switched].tolist())
        since[other.switched | other.ended] = 0
    assert between == {2, 3, 4, 5}


@every_physics
def test_episodes_begin_as_they_do_without_switches(name: str) -> None:
    switching, plain = make(name, 3, 3, (1, 2)), make(name, 3, 3, None)
    for i in range(12):
        one, other = switching.step(actions(plain, i)), plain.step(actions(plain, i))
        assert not other.switched.any()
        if other.ended.all():
            assert one.ended.all()
            assert torch.equal(switching.contexts, plain.contexts)
            assert torch.equal(one.observation["observation"], other.observation["observation"])


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
def test_given_contexts_are_switched_between_and_irrelevant_features_change_nothing(backend: str) -> None:
    family = FAMILIES["pendulum"]
    contexts = family.context_space.sample("extrapolation", 3)
    vec_env = vec_envs("pendulum", 3, contexts=contexts, switch=4, backend=backend, seed=1)
    seen = [vec_env.reset()["context"]] + [vec_env.step(np.zeros((3, 1)))[0]["context"] for _ in range(100)]
    among = (np.array(seen)[:, :, None] == contexts.astype(np.float32)).all(-1)  # (steps, n, 3)
    assert among.any(-1).all()
    assert among.any(0).all()  # each environment was in each
    wider: Any = family.with_irrelevant(2).vec_env(3, switch=4, backend="batched", seed=1)
    same = vec_envs("pendulum", 3, switch=4, backend="batched", seed=1)
    one, other = wider.reset(), same.reset()
    for _ in range(20):
        assert_array_equal(one["context"][:, :4], other["context"])
        one, other = wider.step(np.zeros((3, 1)))[0], same.step(np.zeros((3, 1)))[0]


@every_family
def test_gymnasiums_environments_switch_as_the_batched_ones_do(name: str) -> None:
    family = FAMILIES[name]._with(max_episode_steps=40)
    pair: Any = [family.vec_env(n, switch=(2, 5), backend="gymnasium", seed=3) for n in (2, 3)]
    few, many = pair
    observations = [vec_env.reset() for vec_env in (few, many)]
    space, steps = few.action_space, [0, 0]
    for i in range(60):
        space.seed(i)
        action = space.sample()
        before = observations[0]["context"]
        (one, _, dones, infos), (other, *_) = (env.step(np.array([action] * env.num_envs)) for env in (few, many))
        observations = [one, other]
        for key in one:
            assert_array_equal(one[key], other[key][:2])
        for row, info in enumerate(infos):
            steps[row] += 1
            assert ("context_switched" in info) == (not dones[row] and (one["context"][row] != before[row]).any())
            if dones[row]:
                assert_array_equal(info["terminal_observation"]["context"], before[row])
            if dones[row] or "context_switched" in info:
                assert 2 <= steps[row] <= 5 or (dones[row] and steps[row] == 1)
                steps[row] = 0


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_switched_environment_steps_as_one_that_began_there(name: str) -> None:
    family = FAMILIES[name]
    one, two = family.context_space.sample("extrapolation", 2)
    switched, begun = family.make(one), family.make(two)
    switched.reset(seed=0)
    begun.reset(seed=0)
    state = "state" if family.has_base else "_state"
    for i in range(5):
        switched.action_space.seed(i)
        action = switched.action_space.sample()
        if i == 3:
            switched.unwrapped.set_context(two)  # pyright: ignore[reportAttributeAccessIssue]
            inner: Any = begun.unwrapped.env.unwrapped  # pyright: ignore[reportAttributeAccessIssue]
            setattr(inner, state, getattr(switched.unwrapped.env.unwrapped, state))  # pyright: ignore[reportAttributeAccessIssue]
        reached = switched.step(action)
        if i >= 3:
            expected = begun.step(action)
            assert_array_equal(reached[0]["observation"], expected[0]["observation"])
            assert_array_equal(reached[0]["context"], expected[0]["context"])
            assert reached[1:3] == expected[1:3]


@pytest.mark.parametrize("name", MUJOCO)
def test_mujocos_rows_switch_as_the_environment_does_to_the_bit(name: str) -> None:
    family = FAMILIES[name]
    vec_env: Any = family.vec_env(2, switch=(2, 6), seed=1)
    observation = vec_env.reset()
    qpos, qvel = parts(vec_env.simulator.physics, vec_env.simulator.state)
    envs = [single(family, vec_env.get_attr("context")[i], qpos[i], qvel[i]) for i in range(2)]
    playing = [True, True]
    for i in range(40):
        action = actions(vec_env.simulator, i).numpy()
        observation, _, dones, infos = vec_env.step(action)
        for row, env in enumerate(envs):
            expected = env.step(action[row])[0]
            playing[row] &= not dones[row]
            if playing[row]:
                assert_array_equal(observation["observation"][row], expected["observation"])
            if "context_switched" in infos[row]:
                env.unwrapped.set_context(vec_env.get_attr("context")[row])


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
def test_a_pickled_copy_goes_on_alike(backend: str) -> None:
    vec_env = vec_envs("cartpole", 3, switch=(2, 5), backend=backend)
    vec_env.reset()
    vec_env.step(np.zeros(3, dtype=np.int64))
    copied = pickle.loads(pickle.dumps(vec_env))
    for i in range(60):
        (one, *_), (other, *_) = (env.step(np.array([i % 2] * 3)) for env in (vec_env, copied))
        assert_array_equal(one["context"], other["context"])
        assert_array_equal(one["observation"], other["observation"])


def test_nothing_waits_for_the_device() -> None:
    # A tensor of the device "meta" has no values: whatever looks at one raises.
    for contexts in (None, FAMILIES["cartpole"].context_space.sample("train", 3)):
        simulator = make("cartpole", 4, 3, (2, 5), contexts, device="meta")
        for _ in range(20):
            step = simulator.step(torch.zeros(4, dtype=torch.int64, device="meta"), checked=False)
            assert (step.switched.device.type, step.switched.dtype) == ("meta", torch.bool)


def test_gymnasiums_vector_environments_say_where_the_context_switched() -> None:
    from hyperrl.simulation.vector_env import BatchedVectorEnv

    env = BatchedVectorEnv(make("pendulum", 2, 10, (4, 4)))
    env.reset(seed=0)
    said = [env.step(np.zeros((2, 1)))[-1].get("context_switched") for _ in range(10)]
    assert [step for step, info in enumerate(said, 1) if info is not None and info.all()] == [4, 8]


def test_one_environment_switches_and_a_recipe_may_say_so() -> None:
    env: gym.Env[Any, Any] = FAMILIES["pendulum"].make(switch=4)
    contexts = [env.reset(seed=0)[0]["context"]] + [env.step(np.zeros(1))[0]["context"] for _ in range(8)]
    assert len(np.unique(contexts, axis=0)) == 3
    assert_array_equal(contexts[0], FAMILIES["pendulum"].make().reset(seed=0)[0]["context"])
    model = build(FAMILIES["pendulum"], agent_spec("hyper-ppo", {"switch": [30, 80]}), device="cpu")
    assert model.get_env().unwrapped.simulator.switching.steps == (30, 80)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("switch", [0, -3, 2.5, True, "50", (), (5,), (1, 2, 3), (8, 3), (0, 5), (1.0, 2.0)])
def test_other_numbers_of_steps_are_refused(switch: Any) -> None:
    for backend in ("batched", "gymnasium"):
        with pytest.raises(ValueError, match=r"expected a number of steps ≥ 1 .*switch=\(30, 80\)"):
            FAMILIES["pendulum"].vec_env(2, switch=switch, backend=backend)
    with pytest.raises(ValueError, match="expected a number of steps"):
        FAMILIES["pendulum"].make(switch=switch)


def test_a_single_context_leaves_nothing_to_switch_to() -> None:
    family = FAMILIES["pendulum"]
    with pytest.raises(ValueError, match="needs two contexts or more"):
        family.vec_env(2, contexts=1, switch=5)
    with pytest.raises(ValueError, match="needs two contexts or more"):
        family.make({"length": 0.7}, switch=5)
