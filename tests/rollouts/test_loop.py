"""The loop against a plain one, and what is told of its steps."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecExtractDictObs, VecNormalize

import hyperrl
from hyperrl.rollouts import Agent, RandomActions, Step, Tally, first_episodes, rollout

CARTPOLE = hyperrl.load_family("cartpole")
N = 5


def agent_of(vec_env: Any, seed: int = 0) -> Agent:
    return Agent(RandomActions(vec_env.action_space, vec_env.num_envs, seed), vec_env.observation_space)


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
def test_returns_and_lengths_are_those_that_the_environments_tell(backend: str) -> None:
    vec_env = CARTPOLE.vec_env(N, seed=3, backend=backend)
    tally = first_episodes(agent_of(vec_env), vec_env, episodes=4)
    told: list[list[dict[str, float]]] = [[] for _ in range(N)]
    again = CARTPOLE.vec_env(N, seed=3, backend=backend)
    for step in islice(rollout(agent_of(again), again), int(tally.lengths.sum(axis=1).max())):
        for i in step.dones.nonzero()[0]:
            told[i].append(step.infos[i]["episode"])
    assert_array_equal(tally.returns, [[episode["r"] for episode in row[:4]] for row in told])
    assert_array_equal(tally.lengths, [[episode["l"] for episode in row[:4]] for row in told])
    assert len(np.unique(tally.lengths)) > 4
    assert not tally.playing.any()


def test_only_the_first_rows_count() -> None:
    some, every = (
        first_episodes(agent_of(vec_env), vec_env, rows=rows).returns
        for rows, vec_env in ((2, CARTPOLE.vec_env(N)), (None, CARTPOLE.vec_env(N)))
    )
    assert_array_equal(some, every[:2])


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_step_knows_what_its_actions_led_to(backend: str, flat: bool) -> None:
    vec_env: Any = CARTPOLE.vec_env(N, backend=backend)
    if flat:
        vec_env = VecExtractDictObs(vec_env, "observation")
    before: Step | None = None
    ends = 0
    for step in islice(rollout(agent_of(vec_env), vec_env), 60):
        reached = step.reached if flat else step.reached["observation"]
        following = step.following if flat else step.following["observation"]
        assert_array_equal(reached[~step.dones], following[~step.dones])
        for i in step.dones.nonzero()[0]:
            last = step.infos[i]["terminal_observation"]
            assert_array_equal(reached[i], np.float32(last if flat else last["observation"]))
            assert not np.array_equal(reached[i], following[i])
            ends += 1
        if before is not None:
            old, new = (x if flat else x["observation"] for x in (before.following, step.observation))
            assert_array_equal(old, new)
        before = step
    assert ends > N


def test_a_rollout_goes_on_from_where_episodes_began() -> None:
    vec_env, other = (CARTPOLE.vec_env(N, seed=1) for _ in range(2))
    first = vec_env.reset()
    a = next(rollout(agent_of(vec_env), vec_env, first))
    b = next(rollout(agent_of(other), other))
    for key in a.following:
        assert_array_equal(a.following[key], b.following[key])


def test_memory_and_statistics_are_those_of_a_plain_loop() -> None:
    """Bitwise: the same batches, in the same order."""
    normalizer = VecNormalize(CARTPOLE.vec_env(N, seed=2), norm_obs_keys=["observation"])
    model = RecurrentPPO("MultiInputLstmPolicy", normalizer, n_steps=64, batch_size=32, device="cpu", seed=0).learn(640)
    tally = Tally(N)
    vec_env = CARTPOLE.vec_env(N, seed=9)
    for step in rollout(Agent(model, vec_env.observation_space), vec_env):
        tally.add(step)
        if not tally.playing.any():
            break
    mean = normalizer.obs_rms["observation"].mean.copy()
    vec_env = CARTPOLE.vec_env(N, seed=9)
    observation, starts, state, returns = vec_env.reset(), np.ones(N, dtype=bool), None, np.zeros(N)
    playing = np.ones(N, dtype=bool)
    while playing.any():
        actions, state = model.predict(normalizer.normalize_obs(observation), state, starts, deterministic=True)
        observation, rewards, starts, _ = vec_env.step(actions)
        returns += rewards * playing
        playing &= ~starts
    assert_array_equal(tally.returns[:, 0], returns)
    assert_array_equal(normalizer.obs_rms["observation"].mean, mean)
