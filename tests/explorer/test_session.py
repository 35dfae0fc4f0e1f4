"""Agents side by side in one context, without a page."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO

import hyperrl
from hyperrl.contexts import Feature
from hyperrl.explorer.session import Session, nearest_in_bounds
from hyperrl.families.definition import family_spec
from hyperrl.inference import InferringAgent
from hyperrl.inference.agent import reader_of
from hyperrl.inference.estimator import Estimator
from hyperrl.rollouts import RandomActions
from hyperrl.utils.definitions import names

IN_TORCH = [name for name in names("envs") if family_spec(name).definition.physics != "mujoco"]
PENDULUM = hyperrl.load_family("pendulum")
SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)


def random_session(name: str, agents: int = 2) -> Session:
    family = hyperrl.load_family(name)
    space = family.make().action_space
    return Session(family, {str(i): RandomActions(space, 1, seed=i) for i in range(agents)})


def state(session: Session, lane: int = 0) -> np.ndarray:
    inner: Any = session.lanes[lane].context_env.env.unwrapped
    return np.array(inner.state, dtype=np.float64)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_context_changes_the_physics_at_once_and_the_state_goes_on(name: str) -> None:
    session = random_session(name, agents=1)
    for _ in range(3):
        session.step()
    physics = session.family.physics()
    context = session.space.sample("interpolation", 3, 1)[1]
    before = state(session)
    session.set_context(context)
    assert_array_equal(state(session), before)
    assert_allclose(session.lanes[0].observation["context"], context, rtol=1e-6)
    twin = RandomActions(session.lanes[0].env.action_space, 1, seed=0)
    action = [twin.predict(None) for _ in range(4)][-1]
    session.step()
    c = {key: torch.tensor([value]) for key, value in session.space.as_dict(context).items()}
    c = {key: value.double() for key, value in c.items()}
    row = torch.as_tensor(action)
    after, reward, _ = physics.step(torch.tensor(before)[None], row.double() if row.is_floating_point() else row, c)
    assert_allclose(state(session), after[0], rtol=1e-5, atol=1e-6)
    assert_allclose(session.lanes[0].reward, reward[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", IN_TORCH)
def test_agents_start_alike_and_a_push_moves_them_alike(name: str) -> None:
    session = random_session(name)
    assert_array_equal(state(session, 0), state(session, 1))
    start = state(session)
    kick = session.family.physics().kick
    assert session.lanes[0].can_be_pushed == bool(kick)
    session.push()
    assert_allclose(state(session), start + (kick or 0), rtol=1e-6)
    assert_array_equal(state(session, 0), state(session, 1))
    session.step()
    session.restart()
    assert_array_equal(state(session), start)
    session.start_elsewhere()
    assert (state(session) != start).any()


def test_mujoco_is_changed_and_pushed_too() -> None:
    session = random_session("hopper")
    session.step()
    inner: Any = session.lanes[0].context_env.env.unwrapped
    before = inner.data.qpos.copy(), inner.data.qvel.copy()
    session.set_feature("gravity", 3.0)
    session.push()
    assert inner.model.opt.gravity[2] == -3.0
    assert_array_equal(inner.data.qpos, before[0])
    assert_allclose(inner.data.qvel - before[1], np.eye(len(before[1]))[0])


def test_an_episode_that_is_over_stands_still_while_the_others_go_on() -> None:
    class Always:
        def __init__(self, action: int) -> None:
            self.action = action

        def predict(self, observation: Any) -> np.ndarray:
            return np.array([self.action])

    class Balance:
        def predict(self, observation: Any) -> np.ndarray:
            return (observation["observation"][:, 2] + observation["observation"][:, 3] > 0).astype(int)

    session = Session(hyperrl.load_family("cartpole"), {"left": Always(0), "balance": Balance()})
    while not session.lanes[0].is_over:
        session.step()
    fallen = state(session).copy()
    session.step()
    assert_array_equal(state(session), fallen)
    left, balance = session.lanes
    assert (left.steps, balance.steps) == (left.steps, left.steps + 1)
    assert not session.is_over
    assert left.returns == list(range(left.steps + 1))


@given(value=st.floats(-10, 10))
def test_values_are_moved_to_the_nearest_in_bounds(value: float) -> None:
    feature = Feature("gain", "1", 1.0, train=((1, 2),), bounds=((-2, -0.5), (0.5, 0.5), (1, 3)))
    found = nearest_in_bounds(feature, value)
    assert any(low <= found <= high for low, high in feature.bounds)
    grid = np.concatenate([np.linspace(low, high, 101) for low, high in feature.bounds])
    assert abs(found - value) <= np.abs(grid - value).min() + 1e-12


@pytest.mark.parametrize("split", ["train", "interpolation", "extrapolation"])
def test_a_surprise_is_of_its_split(split: str) -> None:
    session = random_session("pendulum", agents=1)
    seen = []
    for _ in range(5):
        session.surprise(split)
        seen.append(session.context)
        assert session.space.in_bounds(session.context[None])[0]
        assert session.space.in_training_range(session.context[None])[0] == (split != "extrapolation")
    assert len({tuple(context) for context in seen}) == 5


def test_an_agent_that_infers_acts_on_what_it_is_told_until_that_is_hidden() -> None:
    model = PPO(hyperrl.HyperPolicy, PENDULUM.vec_env(2), **SIZES)
    policy: Any = model.policy
    with torch.no_grad():  # weights that depend on the context
        policy.actor.head.generator.weight.normal_(0, 0.3)
    inferring = InferringAgent(
        model, Estimator(reader_of(model).other_space, model.action_space, PENDULUM.context_space)
    )
    session = Session(PENDULUM, {"model": model, "inferring": inferring})
    session.set_feature("torque_gain", -2.0)
    lane = session.lanes[1]
    assert isinstance(lane.model, InferringAgent)
    assert lane.belief() is None
    session.step()
    belief = lane.belief()
    assert belief is not None
    assert (belief.low <= belief.high).all()
    assert_allclose(state(session, 0), state(session, 1))
    assert_array_equal(lane.given, session.context)
    session.hide(True)
    session.step()
    assert_allclose(lane.given, lane.belief().context)
    session.step()
    assert np.abs(state(session, 0) - state(session, 1)).max() > 1e-6
    assert inferring.told is None  # another session's is its own


def test_a_state_that_diverges_ends_the_episode_and_says_why() -> None:
    session = random_session("pendulum", agents=1)
    inner: Any = session.lanes[0].context_env.env.unwrapped

    def diverge(action: Any) -> Any:
        raise ValueError("the state is no longer finite")

    inner.step = diverge
    session.step()
    assert session.lanes[0].is_over
    assert session.lanes[0].fault == "the state is no longer finite"
