"""What an agent that infers its context does, for every algorithm, whatever its estimator has learnt."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from toy import ACTIONS, CONTEXT, VECTOR, toy

import hyperrl
from hyperrl.inference import Estimator, InferringAgent
from hyperrl.inference.agent import reader_of
from hyperrl.inference.estimator import eliminate
from hyperrl.policies import POLICY_OF, ConcatPolicy, ContextExtractor, FilmPolicy, UnawarePolicy
from hyperrl.rollouts import Agent, rollout
from hyperrl.utils.rows import encode, width
from tests.policies import test_policies

N, STEPS = 5, 6
RNG = np.random.default_rng(0)
KINDS = {
    **{name: lambda name=name: test_policies.trained(name) for name in POLICY_OF},
    "concat": lambda: PPO(ConcatPolicy, toy(), device="cpu", seed=0),
    "film": lambda: PPO(FilmPolicy, toy(), device="cpu", seed=0),
    "full": lambda: PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0, policy_kwargs=dict(head="full")),
    "adapter": lambda: PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0, policy_kwargs=dict(head="adapter")),
    "recurrent": lambda: RecurrentPPO(
        "MultiInputLstmPolicy",
        toy(),
        device="cpu",
        seed=0,
        policy_kwargs=dict(features_extractor_class=ContextExtractor, lstm_hidden_size=8),
    ),
    "normalised": lambda: PPO(
        hyperrl.HyperPolicy, VecNormalize(toy(), norm_obs_keys=["observation"]), device="cpu", seed=0
    ),
}


def inferring(model: Any) -> InferringAgent:
    """An agent whose estimator has learnt nothing, but believes something else at every step."""
    reader = reader_of(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        estimator = Estimator(reader.other_space, model.action_space, CONTEXT)
        last: Any = estimator.head[-1]
        torch.nn.init.normal_(last.weight)
    return InferringAgent(model, estimator.requires_grad_(False))


OBSERVATIONS = RNG.normal(size=(STEPS, N, 5)).astype(np.float32)
REWARDS = RNG.normal(size=(STEPS, N))
STARTS = RNG.random((STEPS, N)) < 0.2


def episode(agent: InferringAgent, rows: Any = slice(None), starts: Any = STARTS, first: int = 0) -> np.ndarray:
    """The actions and beliefs of some rows of the same observations, side by side."""
    memory, seen = None, []
    for t in range(first, STEPS):
        observed = OBSERVATIONS[t, rows]
        actions, memory = agent.predict(observed, memory, starts[t, rows], deterministic=True, reward=REWARDS[t, rows])
        seen.append(np.column_stack([encode(agent.action_space, actions), agent.belief(memory).mean]))
    return np.stack(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_independent_and_starts_clear_the_memory(kind: str) -> None:
    agent = inferring(KINDS[kind]())
    whole = episode(agent)
    assert len(np.unique(whole[:, :, -1])) == STEPS * N  # it believes something else in every row
    order = np.array([3, 0, 4, 1, 2])
    assert_allclose(episode(agent, order), whole[:, order], rtol=1e-4, atol=1e-5)  # permuted
    for row in range(N):
        assert_allclose(episode(agent, [row]), whole[:, [row]], rtol=1e-4, atol=1e-5)  # one by one
    begins = np.zeros_like(STARTS)
    begins[3] = True
    assert_allclose(episode(agent, starts=begins)[3:], episode(agent, starts=begins, first=3), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_context_that_is_observed_is_never_read_and_the_model_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    agent = inferring(model)
    expected = episode(agent)
    path = tmp_path / "estimator.safetensors"
    agent.save(path)
    loaded = InferringAgent.load(path, model)
    assert_array_equal(episode(loaded), expected)
    memory = None
    for t in range(STEPS):
        nothing = np.full((N, len(CONTEXT)), np.nan, dtype=np.float32)
        if isinstance(model.observation_space, spaces.Dict):
            observed: Any = {"observation": OBSERVATIONS[t], "context": nothing}
        else:
            slice_ = reader_of(model).slice
            assert slice_ is not None
            start = slice_.indices(5 + len(CONTEXT))[0]
            observed = np.concatenate([OBSERVATIONS[t, :, :start], nothing, OBSERVATIONS[t, :, start:]], axis=1)
        actions, memory = agent.predict(observed, memory, STARTS[t], deterministic=True, reward=REWARDS[t])
        assert_array_equal(encode(model.action_space, actions), expected[t, :, : width(model.action_space)])
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.policy.parameters()) or kind in POLICY_OF


@pytest.mark.parametrize("kind", ["PPO", "SAC", "full"])
def test_it_acts_as_the_model_that_is_told_what_it_believes(kind: str) -> None:
    model = KINDS[kind]()
    agent = inferring(model)
    memory = None
    for t in range(STEPS):
        actions, memory = agent.predict(OBSERVATIONS[t], memory, STARTS[t], deterministic=True)
        told = {"observation": OBSERVATIONS[t], "context": agent.belief(memory).context.numpy()}
        assert_array_equal(actions, model.predict(told, deterministic=True)[0])


@pytest.mark.parametrize("action", ACTIONS)
def test_every_kind_of_action(action: str) -> None:
    agent = inferring(PPO(hyperrl.HyperPolicy, toy(action), device="cpu", seed=0))
    assert len(np.unique(episode(agent)[:, :, -1])) == STEPS * N


def test_one_observation_alone_gives_one_action() -> None:
    agent = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0))
    several, memory = agent.predict(OBSERVATIONS[0, :1], deterministic=True)
    alone, same = agent.predict({"observation": OBSERVATIONS[0, 0]}, deterministic=True)
    assert_array_equal(alone, several[0])
    assert_array_equal(same.state, memory.state)


def test_what_is_not_known_of_rewards_makes_no_difference_to_other_rows() -> None:
    agent = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0))
    _, memory = agent.predict(OBSERVATIONS[0])
    known, unknown = REWARDS[1], np.where(np.arange(N) < 2, np.nan, REWARDS[1])
    means = [agent.belief(agent.predict(OBSERVATIONS[1], memory, reward=r)[1]).mean for r in (known, unknown, None)]
    assert torch.equal(means[0][2:], means[1][2:])
    assert torch.equal(means[1][:2], means[2][:2])
    assert (means[0] != means[2]).all()


def test_sequences_are_what_steps_are() -> None:
    agent = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0))
    estimator = agent.estimator
    state = torch.zeros(N, estimator.size)
    kept, outputs = [], []
    for t in range(STEPS):
        state = torch.where(torch.as_tensor(STARTS[t])[:, None], 0.0, state)
        observed, reward = torch.as_tensor(OBSERVATIONS[t]), torch.as_tensor(REWARDS[t, :, None]).float()
        memory, sums, out = estimator.step(observed, reward, state)
        kept.append(estimator.inputs(observed, reward, *state.split(estimator.parts, dim=1)[2:]))
        outputs.append(out)
        acted, begun = torch.randn(N, estimator.acted), torch.ones(N, 1)
        state = torch.cat([memory, sums, observed, acted, begun], dim=1)
    read, added = (torch.stack(part) for part in zip(*kept, strict=True))
    starts = torch.as_tensor(STARTS.copy())
    starts[0] = True  # clears what went before
    before = torch.randn(N, estimator.hidden), torch.rand(N, estimator.sums)
    assert_allclose(estimator.sequence(read, added, starts, *before), torch.stack(outputs), atol=1e-4)


def test_the_memory_is_a_gated_recurrent_unit() -> None:
    estimator = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0)).estimator
    into, memory = torch.randn(N, estimator.hidden), torch.randn(N, estimator.hidden)
    gates = torch.nn.functional.linear(into, estimator.memory.weight_ih, estimator.memory.bias_ih)
    assert_allclose(estimator.update(gates, memory), estimator.memory(into, memory), atol=1e-6)


def test_the_regression_finds_the_coefficients_of_a_linear_system() -> None:
    """Changes that are linear in the regression's inputs, in rows that are independent."""
    estimator = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu", seed=0)).estimator
    rng = np.random.default_rng(0)
    k = estimator.regressed
    true = rng.normal(size=(N, k, 5))
    sums = torch.zeros(N, estimator.sums)
    for _ in range(300):
        x = rng.normal(size=(N, k, 1))
        y = x.swapaxes(1, 2) @ true  # (N, 1, o)
        sums += torch.as_tensor(x * np.concatenate([x.swapaxes(1, 2), y], axis=2)).flatten(1).float()
    found, uncertain = estimator.coefficients(sums).split([k * 5, k], dim=1)
    assert_allclose(found.reshape(true.shape), true, atol=0.05)
    assert (uncertain < 0.01).all()
    nothing, prior = estimator.coefficients(torch.zeros(1, estimator.sums)).split([k * 5, k], dim=1)
    assert (nothing == 0).all()
    assert (prior == 1).all()


def test_elimination_solves_systems_as_linear_algebra_does() -> None:
    x = torch.randn(7, 9, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, right = torch.eye(9) + x @ x.mT, x[..., :4]
    assert_allclose(eliminate(matrix, right), torch.linalg.solve(matrix, right), atol=1e-10)


def test_rollouts_evaluate_and_stock_environments_take_it() -> None:
    pendulum = hyperrl.load_family("pendulum")
    model = PPO(hyperrl.HyperPolicy, pendulum.vec_env(2), device="cpu", seed=0)
    agent = inferring(model)
    report = hyperrl.evaluate(agent, pendulum, splits=("train",), contexts=2, episodes=1)
    assert report.splits["train"].returns.shape == (2, 1)
    for backend in ("batched", "gymnasium"):
        vec_env = pendulum.vec_env(3, backend=backend)
        played = Agent(agent, vec_env.observation_space)
        steps = list(islice(rollout(played, vec_env), 3))
        assert len(steps) == 3
        assert played.memory.state[:, -1].tolist() == [1, 1, 1]


def test_models_that_read_no_context_or_another_are_refused(tmp_path: Path) -> None:
    unaware = PPO(UnawarePolicy, toy(), device="cpu")
    estimator = Estimator(VECTOR["observation"], unaware.action_space, CONTEXT)
    plain = PPO("MlpPolicy", hyperrl.load_family("pendulum").base(), device="cpu")
    for blind in (plain, unaware):
        with pytest.raises(ValueError, match="expected a model that reads its context"):
            InferringAgent(blind, estimator)
    ode = hyperrl.load_family("ode")
    other = PPO(hyperrl.HyperPolicy, ode.vec_env(2), device="cpu")
    with pytest.raises(ValueError, match=r"gravity.*torque_gain.*c0.*c1"):
        InferringAgent(other, estimator)
    path = tmp_path / "estimator.safetensors"
    inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu")).save(path)
    with pytest.raises(ValueError, match=r"estimator.safetensors.*gravity.*torque_gain.*c0.*c1"):
        InferringAgent.load(path, other)
    pendulum = PPO(hyperrl.HyperPolicy, hyperrl.load_family("pendulum").vec_env(2), device="cpu")
    with pytest.raises(ValueError, match="no estimator for this model"):  # of other observations
        InferringAgent.load(path, pendulum)
    with pytest.raises(ValueError, match="exists already"):
        inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu")).save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="no safetensors file"):
        InferringAgent.load(path, pendulum)
    with pytest.raises(ValueError, match="cannot be read"):
        InferringAgent.load(tmp_path / "none", pendulum)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))])
def test_observations_that_are_no_numbers_are_refused(space: Any) -> None:
    with pytest.raises(ValueError, match="numbers or choices"):
        width(space)
