"""The simulator: tensors in, tensors out; random numbers that depend on seed and episode alone."""

import copy
import hashlib
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged import FAMILIES, IN_TORCH, PHYSICS

from hyperrl.contexts import ContextSpace, Feature
from hyperrl.simulation.draws import signed, splitmix64, training_contexts, uniform
from hyperrl.simulation.simulator import Simulator, Step

every_family = pytest.mark.parametrize("name", PHYSICS)
WORD = 2**64
words = st.integers(0, WORD - 1)


def make(name: str, n: int, steps: int | None = 3, contexts: Any = None, device: str = "cpu") -> Simulator:
    family = FAMILIES[name]
    return Simulator(family.physics(), family.context_space, n, steps, contexts, device)


def actions(simulator: Simulator, seed: int = 0) -> torch.Tensor:
    """Actions of shape (n, ...), those of a row the same whatever n."""
    space = copy.deepcopy(simulator.action_space)
    space.seed(seed)
    drawn = torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(simulator.n)]))
    return drawn.to(simulator.device)


def tensors(step: Any) -> list[torch.Tensor]:
    """All tensors of an observation or of a step."""
    if isinstance(step, torch.Tensor):
        return [step]
    return [tensor for part in (step.values() if isinstance(step, dict) else step) for tensor in tensors(part)]


def python_splitmix64(x: int) -> int:
    """The finaliser on Python's whole numbers, from the paper."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def python_uniform(key: int, episode: int, count: int) -> list[float]:
    """Numbers of one episode, on Python's whole numbers."""
    counters = [(episode << 16) + j for j in range(1, count + 1)]
    return [(python_splitmix64((key + c * 0x9E3779B97F4A7C15) % WORD) >> 11) / 2**53 for c in counters]


@given(st.lists(words, min_size=1))
def test_the_hash_is_splitmix64(numbers: list[int]) -> None:
    hashed = splitmix64(torch.tensor([signed(number) for number in numbers]))
    assert [number % WORD for number in hashed.tolist()] == [python_splitmix64(number) for number in numbers]


@given(words, st.integers(0, 2**40), st.integers(1, 20))
def test_the_numbers_of_an_episode_are_those_of_the_sequence(key: int, episode: int, count: int) -> None:
    numbers = uniform(torch.tensor([signed(key)]), torch.tensor([[episode]]), count)
    assert numbers.tolist() == [[python_uniform(key, episode, count)]]


intervals = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6, unique=True).map(
    lambda ends: tuple(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
)
choices = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4, unique=True).map(
    lambda values: tuple((value, value) for value in sorted(values))
)


@given(st.lists(intervals | choices, min_size=1, max_size=4), st.integers(0, 2**32))
def test_contexts_of_tensors_are_those_of_arrays(ranges: Any, seed: int) -> None:
    space = ContextSpace(tuple(Feature(f"f{i}", "1", r[0][0], r, r) for i, r in enumerate(ranges)))
    numbers = np.random.default_rng(seed).random((50, len(space)))
    numbers[0], numbers[1] = 0.0, 1 - 2.0**-53
    drawn = training_contexts(space, torch.from_numpy(numbers))
    np.testing.assert_array_equal(drawn.numpy(), space.from_uniform(numbers))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([*IN_TORCH, "hopper"]), st.integers(-(2**70), 2**70), st.integers(1, 5), st.integers(0, 20))
def test_a_seed_alone_gives_the_contexts_and_starts_of_a_row(name: str, seed: int, n: int, episodes: int) -> None:
    simulator, space = make(name, n, steps=1), FAMILIES[name].context_space
    simulator.seed([*range(n - 1), seed])
    simulator.reset()
    for _ in range(episodes):
        simulator.step(actions(simulator))
    numbers = python_uniform(python_splitmix64(seed % WORD), episodes, len(space) + simulator.physics.uniforms)
    context = space.from_uniform([numbers[: len(space)]])
    assert simulator.contexts[-1].tolist() == context[0].tolist()
    c = {feature: torch.tensor([value]) for feature, value in zip(space.names, context[0], strict=True)}
    start = simulator.physics.initial(torch.tensor([numbers[len(space) :]], dtype=torch.float64), c)
    assert simulator.state is not None
    assert simulator.state[-1].tolist() == start[0].tolist()
    assert simulator.episode.tolist() == [episodes] * n


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("pendulum", "a40cd72e0cea157f"),
        ("cartpole", "d6e8e051f43acf0a"),
        ("ode", "919068cf2914544f"),
        ("acrobot", "75b43ef5db7ab72d"),
    ],
)
def test_contexts_and_starts_stay_what_they_were(name: str, digest: str) -> None:
    # Published results name their seeds: another digest makes them other experiments.
    simulator = make(name, 3, steps=2)
    simulator.seed([0, 1, 2**63 + 5])
    simulator.reset()
    assert simulator.state is not None
    drawn = [simulator.contexts, simulator.state.contiguous()]
    shape, kind = (3, *(simulator.action_space.shape or ())), simulator.action_space.dtype
    for _ in range(32):
        if simulator.step(torch.from_numpy(np.zeros(shape, dtype=kind))).ended.any():
            drawn += [simulator.contexts, simulator.state.contiguous()]
    assert hashlib.sha256(b"".join(x.numpy().tobytes() for x in drawn)).hexdigest()[:16] == digest


@every_family
def test_a_row_depends_on_no_other(name: str) -> None:
    few, many = make(name, 2), make(name, 5)
    many.seed([None, None, 3, 4, 5])
    many.reset()
    many.reset()  # what rows have behind them must not matter either
    for simulator in (few, many):
        simulator.seed([8, 9, *[7] * (simulator.n - 2)])
        simulator.reset()
    for i in range(40):
        one, other = few.step(actions(few, i)), many.step(actions(many, i))
        for a, b in zip(tensors(one), tensors(other), strict=True):
            assert torch.equal(a, b[:2])
        assert torch.equal(few.episode, many.episode[:2])


@pytest.mark.parametrize("name", IN_TORCH)
@pytest.mark.parametrize("steps", [3, None])
def test_everything_is_a_tensor_on_its_device_and_nothing_waits_for_it(name: str, steps: int | None) -> None:
    # A tensor of the device "meta" has no values: whatever looks at one raises.
    simulator = make(name, 4, steps, contexts=FAMILIES[name].context_space.sample("train", 3), device="meta")
    simulator.seed([1, 2, None, 3])
    found = [simulator.reset(), simulator.contexts, simulator.episode, simulator.state]
    for _ in range(40):
        found.append(simulator.step(torch.zeros_like(actions(simulator)), checked=False))
        found += [simulator.contexts, simulator.episode, simulator.state]
    step = found[-4]
    assert isinstance(step, Step)
    assert {tensor.device.type for tensor in tensors(found)} == {"meta"}
    d, o = len(simulator.context_space), simulator.physics.observation_space.shape
    for observation in (step.observation, step.last):
        assert {key: (value.dtype, value.shape) for key, value in observation.items()} == {
            "observation": (torch.float32, (4, *o)),
            "context": (torch.float32, (4, d)),
        }
    assert [tensor.dtype for tensor in (step.terminated, step.truncated, step.ended)] == [torch.bool] * 3
    assert [tensor.dtype for tensor in (step.reward, step.returns, step.lengths)] == [
        torch.float64,
        torch.float64,
        torch.int64,
    ]
    assert simulator.episode.dtype == torch.int64
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        simulator.step(torch.zeros_like(actions(simulator)))


@every_family
def test_unchecked_steps_are_the_same(name: str) -> None:
    one, other = make(name, 4), make(name, 4)
    for simulator in (one, other):
        simulator.seed([1, 2, 3, 4])
        simulator.reset()
    for i in range(50):
        action = actions(one, i)
        for a, b in zip(tensors(one.step(action)), tensors(other.step(action, checked=False)), strict=True):
            assert torch.equal(a, b)


def test_rows_count_their_episodes() -> None:
    simulator = make("cartpole", 8, steps=20)
    assert simulator.episode.tolist() == [-1] * 8
    simulator.reset()
    ends = torch.zeros(8, dtype=torch.int64)
    lengths = torch.zeros(8, dtype=torch.int64)
    returns = torch.zeros(8, dtype=torch.float64)
    for i in range(200):
        before, contexts = simulator.episode, simulator.contexts
        step = simulator.step(actions(simulator, i))
        ends, lengths, returns = ends + step.ended, lengths + 1, returns + step.reward
        assert torch.equal(step.lengths, lengths)
        assert torch.equal(step.returns, returns)
        lengths, returns = lengths.masked_fill(step.ended, 0), returns.masked_fill(step.ended, 0)
        assert torch.equal(simulator.episode, ends)
        assert torch.equal(before, ends - step.ended.long())  # what was handed out does not change
        assert torch.equal(step.last["context"], contexts.float())
        assert torch.equal((simulator.contexts != contexts).any(1), step.ended)
    assert (ends > 9).all()
    simulator.seed([None, 3, *[None] * 6])
    assert simulator.episode.tolist() == [*ends[:1].tolist(), -1, *ends[2:].tolist()]
    simulator.reset()
    assert simulator.episode.tolist() == [ends[0] + 1, 0, *(ends[2:] + 1).tolist()]


@every_family
def test_resets_go_on_where_steps_left_off(name: str) -> None:
    # However episodes begin, by a reset or after an end, the episode of a number starts alike.
    ended, reset = make(name, 3, steps=1), make(name, 3, steps=None)
    for simulator in (ended, reset):
        simulator.seed([5, 6, 7])
        simulator.reset()
    for i in range(40):
        ended.reset() if i % 7 == 3 else ended.step(actions(ended))
        reset.reset()
        assert torch.equal(ended.contexts, reset.contexts)
        assert ended.state is not None and reset.state is not None  # noqa: PT018
        assert torch.equal(ended.state, reset.state)


@every_family
def test_a_copy_goes_on_alike_and_holds_no_more_than_it_must(name: str) -> None:
    n = 200 if name in IN_TORCH else 20
    simulator = make(name, n)
    simulator.reset()
    action = actions(simulator)
    for _ in range(10):
        simulator.step(action)
    pickled = pickle.dumps(simulator)
    assert simulator.state is not None
    numbers = n * (3 * len(simulator.context_space) + 20 + simulator.state.shape[1])
    assert len(pickled) < 8 * numbers + 20_000
    copies = [pickle.loads(pickled), copy.deepcopy(simulator)]
    for _ in range(20):
        expected, *others = (tensors(one.step(action)) for one in (simulator, *copies))
        for other in others:
            assert all(map(torch.equal, expected, other))


def test_wrong_actions_are_refused_in_words() -> None:
    simulator = make("cartpole", 3)
    simulator.reset()
    for action, message in (
        (torch.tensor([0, 1, 2]), r"environment 2: expected an action in Discrete\(2\), got 2"),
        (torch.tensor([0, -1, 0]), "environment 1: .*got -1"),
        (torch.zeros(3), "expected whole numbers .*float32"),
        (torch.zeros(3, dtype=torch.bool), "expected whole numbers .*bool"),
        (torch.zeros(2, dtype=torch.int64), r"expected actions of shape \(3,\), got shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            simulator.step(action)
    assert simulator.step(torch.tensor([0, 1, 0], dtype=torch.uint8)).lengths.tolist() == [1, 1, 1]
