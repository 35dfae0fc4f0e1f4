"""What an agent sees, keeps and is given, for models of all kinds."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_array_equal
from sb3_contrib import RecurrentPPO
from toy import ACTIONS

import hyperrl
from hyperrl.rollouts import Agent, RandomActions, rollout

PENDULUM = hyperrl.load_family("pendulum")
SPACE: Any = PENDULUM.make().observation_space
N = 3
EVERY = np.ones(N, dtype=bool)
SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)


class Echo:
    """Returns what it is given, as an action and as its memory."""

    def __init__(self, space: spaces.Space[Any] | None = None) -> None:
        if space is not None:
            self.observation_space = space

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: Any = None) -> Any:
        self.given = dict(
            observation=observation, state=state, episode_start=episode_start, deterministic=deterministic
        )
        return np.zeros((N, 1)), 0 if state is None else state + 1


class OnlyObservation:
    def predict(self, observation: Any) -> list[list[float]]:
        return [[0.5]] * len(observation["observation"])


class AnyKeywords:
    def predict(self, observation: Any, **kwargs: Any) -> tuple[np.ndarray, None]:
        self.given = kwargs
        return np.zeros((N, 1)), None


def observed() -> dict[str, np.ndarray]:
    return PENDULUM.vec_env(N).reset()  # pyright: ignore[reportReturnType]


def box(*names: str) -> spaces.Box:
    low, high = (np.concatenate([getattr(SPACE[name], end) for name in names]) for end in ("low", "high"))
    return spaces.Box(low, high)


VIEWS: dict[str, tuple[spaces.Space[Any] | None, Any]] = {
    "no space": (None, lambda o: o),
    "all": (SPACE, lambda o: o),
    "no context": (spaces.Dict(observation=SPACE["observation"]), lambda o: {"observation": o["observation"]}),
    "sole entry": (SPACE["observation"], lambda o: o["observation"]),
    "flat": (box("observation", "context"), lambda o: np.concatenate([o["observation"], o["context"]], axis=1)),
    "flat, sorted": (box("context", "observation"), lambda o: np.concatenate([o["context"], o["observation"]], axis=1)),
}


@pytest.mark.parametrize("context", [None, [1, 2, 3, 4], np.arange(4 * N).reshape(N, 4)], ids=["true", "one", "rows"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_model_sees_what_its_space_says_with_the_context_that_is_given(name: str, context: Any) -> None:
    wanted, view = VIEWS[name]
    observation, model = observed(), Echo(wanted)
    agent = Agent(model, SPACE, context)
    agent.act(observation, EVERY)
    if context is not None:
        observation = observation | {"context": np.broadcast_to(np.float32(context), (N, 4))}
    assert_observations_equal(model.given["observation"], view(observation))
    rows = np.array([2, 0])  # as where two of the episodes have ended
    some = {key: entry[rows] for key, entry in observation.items()}
    assert_observations_equal(agent.observe(some, rows), view(some))


def assert_observations_equal(x: Any, y: Any) -> None:
    if isinstance(y, dict):
        assert x.keys() == y.keys()
        for key in y:
            assert_observations_equal(x[key], y[key])
    else:
        assert x.dtype == y.dtype == np.float32
        assert_array_equal(x, y)


@pytest.mark.parametrize("wanted", [SPACE, None], ids=["a Dict", "no space"])
def test_a_context_is_given_where_none_is_observed(wanted: Any) -> None:
    model = Echo(wanted)
    Agent(model, SPACE["observation"], [1, 2, 3, 4]).act(observed()["observation"], EVERY)
    assert_array_equal(model.given["observation"]["context"], np.tile(np.float32([1, 2, 3, 4]), (N, 1)))


def test_entries_beside_the_context_stay_side_by_side() -> None:
    """As environments with goals have them."""
    entries = {name: spaces.Box(-1, 1, (2,)) for name in ("observation", "desired_goal", "context")}
    observation = {name: np.full((N, 2), i, dtype=np.float32) for i, name in enumerate(entries)}
    without = spaces.Dict({name: entry for name, entry in entries.items() if name != "context"})
    model = Echo(without)
    Agent(model, spaces.Dict(entries)).act(observation, EVERY)
    assert model.given["observation"].keys() == without.spaces.keys()
    blind = Echo(spaces.Dict(entries))
    Agent(blind, without, [5, 6]).act({name: observation[name] for name in without}, EVERY)
    assert_array_equal(blind.given["observation"]["context"][1], [5, 6])


def test_memory_is_what_predict_returned_and_reset_forgets_it() -> None:
    model = Echo()
    agent = Agent(model, SPACE, deterministic=False)
    for expected in (None, 0, 1):
        agent.act(observed(), ~EVERY)
        assert model.given["state"] == expected
        assert_array_equal(model.given["episode_start"], ~EVERY)
        assert model.given["deterministic"] is False
    agent.reset()
    agent.act(observed(), EVERY)
    assert model.given["state"] is None


def test_predict_is_given_the_arguments_that_it_names() -> None:
    assert_array_equal(Agent(OnlyObservation(), SPACE).act(observed(), EVERY), np.full((N, 1), 0.5))
    model = AnyKeywords()
    Agent(model, SPACE).act(observed(), EVERY)
    assert model.given.keys() == {"state", "episode_start", "deterministic"}


class KeepsRewards:
    """Names ``reward``, and keeps what it is given."""

    def __init__(self) -> None:
        self.rewards: list[Any] = []

    def predict(self, observation: Any, reward: Any) -> np.ndarray:
        self.rewards.append(reward)
        return np.full((N, 1), 0.5)


def test_a_model_that_names_reward_is_given_the_rewards_of_the_last_step() -> None:
    model, vec_env = KeepsRewards(), PENDULUM.vec_env(N)
    steps = list(islice(rollout(Agent(model, vec_env.observation_space), vec_env), 3))
    assert model.rewards[0] is None
    for step, given in zip(steps, model.rewards[1:], strict=False):
        assert_array_equal(given, step.rewards)


def test_the_memory_of_a_recurrent_model_begins_anew_with_an_episode() -> None:
    vec_env = PENDULUM.vec_env(N)
    agent = Agent(RecurrentPPO("MultiInputLstmPolicy", vec_env, **SIZES), vec_env.observation_space)
    first, middle = observed(), ~EVERY
    fresh = agent.act(first, EVERY)
    remembering = agent.act(first, middle)
    assert (remembering != fresh).all()
    one_begins = agent.act(first, np.array([False, True, False]))
    assert one_begins[1] == pytest.approx(fresh[1])
    assert (one_begins != fresh)[[0, 2]].all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            object(),
            r"expected a Stable-Baselines3 model, or an object with a method predict\(observation\), got object",
        ),
        (Echo(spaces.Box(-1, 1, (9,))), "the model acts on observations of Box"),
    ],
)
def test_what_cannot_act_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Agent(model, SPACE)


SPACES = ACTIONS | {"shifted": spaces.Discrete(3, start=5), "matrix": spaces.Box(-1, 2, (2, 3))}


@pytest.mark.parametrize("name", ["box", "lopsided box", "discrete", "shifted", "matrix"])
def test_random_actions_are_those_of_sampling_one_by_one(name: str) -> None:
    space = SPACES[name]
    random = RandomActions(space, N, seed=7)
    actions = [random.predict(None) for _ in range(5)]
    space.seed(7)
    for step in actions:
        assert_array_equal(step, np.stack([space.sample() for _ in range(N)]))


@pytest.mark.parametrize("name", SPACES)
def test_random_actions_of_all_kinds_are_valid_and_seeded(name: str) -> None:
    random, again = (RandomActions(SPACES[name], N, seed=7) for _ in range(2))
    for _ in range(5):
        actions = random.predict(None)
        assert all(SPACES[name].contains(action) for action in actions)
        assert_array_equal(actions, again.predict(None))


def test_an_agent_acts_in_any_family_without_an_observation_space() -> None:
    step = next(rollout(Agent(OnlyObservation(), SPACE), PENDULUM.vec_env(N)))
    assert_array_equal(step.actions, np.full((N, 1), 0.5))
