"""Histories, and observations and actions as rows of numbers."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_array_equal

from hyperrl.alignment.history import History, Rower
from tests.toy import ACTIONS, IMAGE, VECTOR


def test_a_history_holds_the_last_transitions_of_the_running_episode() -> None:
    rng = np.random.default_rng(0)
    history, expected = History.empty(3, 4, 2), [[] for _ in range(3)]
    for _ in range(40):
        rows = rng.normal(size=(3, 2)).astype(np.float32)
        history = history.with_transitions(rows)
        for mine, row in zip(expected, rows, strict=True):
            mine.append(row)
        ended = rng.random(3) < 0.15
        history = history.without(ended)
        expected = [[] if end else mine for mine, end in zip(expected, ended, strict=True)]
        for i, mine in enumerate(expected):
            held = history.transitions[i][history.present[i] == 1]
            last = np.array(mine[-4:]).reshape(-1, 2)
            assert_array_equal(np.sort(held, axis=0), np.sort(last, axis=0))


def test_histories_stay_as_they_are_when_they_go_on() -> None:
    before = History.empty(2, 3, 1).with_transitions(np.ones((2, 1), dtype=np.float32))
    kept = before.transitions.copy(), before.counts.copy()
    before.with_transitions(np.zeros((2, 1), dtype=np.float32)).without(np.array([True, False]))
    assert_array_equal(before.transitions, kept[0])
    assert_array_equal(before.counts, kept[1])


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_become_the_rows_that_gymnasium_flattens_them_to(action: str) -> None:
    space = ACTIONS[action]
    space.seed(0)
    actions = np.array([space.sample() for _ in range(20)])
    rows = Rower(spaces.Dict(VECTOR), space, "context").action(actions)
    assert_array_equal(rows, np.array([spaces.flatten(space, a) for a in actions], dtype=np.float32))


def test_discrete_actions_may_start_anywhere() -> None:
    rower = Rower(spaces.Dict(VECTOR), spaces.Discrete(3, start=-1), "context")
    assert_array_equal(rower.action(np.array([-1, 1])), [[1, 0, 0], [0, 0, 1]])


def test_the_context_is_no_part_of_an_observation() -> None:
    rower = Rower(spaces.Dict(VECTOR), spaces.Discrete(2), "context")
    observation: dict[str, Any] = {"observation": np.ones((3, 5)), "context": np.full((3, 4), np.nan)}
    assert_array_equal(rower.observation(observation), np.ones((3, 5)))
    del observation["context"]
    assert_array_equal(rower.observation(observation), np.ones((3, 5)))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict(IMAGE), "expected 'camera' to be a one-dimensional Box"),
        (spaces.Discrete(4), "expected 'observation' to be a one-dimensional Box, got Discrete"),
        (spaces.Dict({"context": VECTOR["context"]}), "no entry besides the context"),
    ],
)
def test_observations_that_are_no_rows_of_numbers_are_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rower(space, spaces.Discrete(2), "context")
