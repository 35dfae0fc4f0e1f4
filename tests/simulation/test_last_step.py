"""The last action and reward as observations."""

import copy
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from toy import ACTIONS, VECTOR, toy

import hyperrl
from hyperrl.simulation.last_step import VecLastStep, last_entries


def flat(action: Any, space: spaces.Space[Any]) -> np.ndarray:
    return np.asarray(spaces.flatten(space, action), dtype=np.float32)


@pytest.mark.parametrize("action", ["box", "lopsided box", "discrete"])
@pytest.mark.parametrize("is_flat", [False, True])
def test_entries_are_those_of_the_step_before(action: str, is_flat: bool) -> None:
    plain, inner = (toy(action, copy.deepcopy(VECTOR), flat=is_flat) for _ in range(2))
    wrapped: Any = VecLastStep(inner)
    for vec_env in (plain, wrapped):
        vec_env.seed(1)
    expected: Any
    seen: Any
    expected, seen = plain.reset(), wrapped.reset()
    space: Any = wrapped.action_space
    zeros = {"last_action": np.zeros((4, spaces.flatdim(space))), "last_reward": np.zeros((4, 1))}
    last: dict[str, Any] = zeros
    ended = 0
    for step in range(20):
        named = {"observation": expected} if is_flat else expected
        assert list(seen) == [*named, *last]
        for name, entry in (named | last).items():
            assert_allclose(seen[name], entry, rtol=1e-5)
        for i in range(4):
            assert wrapped.observation_space.contains({name: entry[i] for name, entry in seen.items()})
        space.seed(step)
        actions = np.array([space.sample() for _ in range(4)])
        (expected, rewards, dones, infos), (seen, *_, others) = plain.step(actions), wrapped.step(actions)
        reached = {
            "last_action": np.array([flat(a, space) for a in actions]),
            "last_reward": (np.sign(rewards) * np.log(1 + np.abs(rewards)))[:, None],
        }
        last = {name: np.where(dones[:, None], 0, entry) for name, entry in reached.items()}
        for i in np.flatnonzero(dones):
            ended += 1
            end = others[i]["terminal_observation"]
            own = infos[i]["terminal_observation"]
            for name, entry in ({"observation": own} if is_flat else own).items():
                assert_array_equal(end[name], entry)
            for name, entry in reached.items():
                assert_allclose(end[name], entry[i], rtol=1e-5)
    assert ended == 8


def test_a_discrete_space_may_begin_anywhere() -> None:
    entry = last_entries(spaces.Discrete(3, start=5), np.array([[5], [7]]), np.zeros(2))["last_action"]
    assert entry.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_what_cannot_be_observed_is_refused() -> None:
    for action in ACTIONS.keys() - {"box", "lopsided box", "discrete"}:
        with pytest.raises(
            ValueError, match="expected actions in a Box or Discrete to observe the last one, got Multi"
        ):
            VecLastStep(toy(action))
    with pytest.raises(ValueError, match=r"has an entry 'last_action' already"):
        VecLastStep(VecLastStep(hyperrl.load_family("pendulum").vec_env(2)))
