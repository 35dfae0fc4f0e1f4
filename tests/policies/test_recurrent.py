"""Policies with a memory: what it reads, what it generates, when it forgets; alike in acting and in learning."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from torch.func import functional_call
from toy import IMAGE, toy

import hyperrl
from hyperrl.policies import HyperRecurrentPolicy, RecurrentPolicy
from hyperrl.policies.recurrent import MemoryExtractor
from hyperrl.rollouts.agent import Agent
from hyperrl.simulation import VecLastStep
from hyperrl.training import agent_spec
from hyperrl.training.models import build
from hyperrl.utils.provenance import n_parameters

POLICIES = {"hyper": HyperRecurrentPolicy, "plain": RecurrentPolicy}
every_policy = pytest.mark.parametrize("kind", POLICIES)
every_action = pytest.mark.parametrize("action", ["box", "discrete"])
SIZES: dict[str, Any] = dict(n_steps=24, batch_size=40, n_epochs=2, seed=0, device="cpu")
H = 12


def make(kind: str, action: str = "box", venv: Any = None, **sizes: Any) -> Any:
    venv = VecLastStep(toy(action)) if venv is None else venv
    kwargs: dict[str, Any] = dict(lstm_hidden_size=H, net_arch=[8, 8])
    return RecurrentPPO(POLICIES[kind], venv, policy_kwargs=kwargs, **(SIZES | sizes))


def states(n: int, seed: int = 0) -> RNNStates:
    h, c = torch.randn(2, 1, n, H, generator=torch.Generator().manual_seed(seed))
    return RNNStates((h, c), (h, c))


def observed(model: Any, n: int) -> dict[str, torch.Tensor]:
    model.observation_space.seed(1)
    rows = [model.observation_space.sample() for _ in range(n)]
    return {name: torch.as_tensor(np.array([row[name] for row in rows])) for name in rows[0]}


@every_policy
@every_action
def test_acting_and_learning_compute_the_same(kind: str, action: str) -> None:
    model = make(kind, action).learn(300)
    policy, obs, memory = model.policy, observed(model, 6), states(6)
    starts = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    with torch.no_grad():
        actions, values, log_prob, after = policy(obs, memory, starts)
        expected = policy.evaluate_actions(obs, actions, memory, starts)  # six sequences of one step
        distribution, after_pi = policy.get_distribution(obs, memory.pi, starts)
        torch.testing.assert_close(values, expected[0])
        torch.testing.assert_close(log_prob, expected[1])
        torch.testing.assert_close(distribution.log_prob(actions), log_prob)
        torch.testing.assert_close(policy.predict_values(obs, memory.vf, starts), values)
        for one, other in zip(after_pi, after.pi, strict=True):
            torch.testing.assert_close(one, other)
        likely = policy(obs, memory, starts, deterministic=True)[0]
    given = tuple(state.numpy() for state in memory.pi)
    named = {name: entry.numpy() for name, entry in obs.items()}
    predicted, _ = policy.predict(named, given, starts.numpy().astype(bool), deterministic=True)
    clipped = likely.numpy() if action == "discrete" else likely.numpy().clip(-2, 2)
    assert_allclose(predicted, clipped, rtol=1e-5, atol=1e-6)


class Ratios(BaseCallback):
    """Compares what was computed in acting with what learning computes of it, from padded sequences."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        self.seen = 0
        for batch in model.rollout_buffer.get(model.batch_size):
            mask = batch.mask > 1e-8
            actions = (
                batch.actions.long().flatten() if isinstance(model.action_space, spaces.Discrete) else batch.actions
            )
            with torch.no_grad():
                found = model.policy.evaluate_actions(
                    batch.observations, actions, batch.lstm_states, batch.episode_starts
                )
            torch.testing.assert_close(found[0].flatten()[mask], batch.old_values[mask], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[1][mask], batch.old_log_prob[mask], rtol=1e-4, atol=1e-5)
            self.seen += int(mask.sum())


@every_policy
@every_action
def test_the_ratio_is_one_before_an_update(kind: str, action: str) -> None:
    callback = Ratios()
    make(kind, action, learning_rate=3e-3).learn(300, callback=callback)  # four rollouts, with updates between
    assert callback.seen == 24 * 4


@every_policy
@pytest.mark.parametrize("begun", [(0,), (), (0, 3), (4,)])
def test_one_call_of_the_lstm_equals_step_by_step(kind: str, begun: tuple[int, ...]) -> None:
    policy = make(kind).policy
    features, (h, c) = torch.randn(3 * 6, policy.features_dim), states(3).pi
    starts = torch.zeros(3, 6)
    starts[[0, 2][: 1 + len(begun)], :] += torch.tensor([float(t in begun) for t in range(6)])
    latent, after = policy._read(features, (h, c), starts.flatten())
    ours = latent[:, :H], after
    theirs = RecurrentActorCriticPolicy._process_sequence(features, (h, c), starts.flatten(), policy.lstm_actor)
    torch.testing.assert_close(ours, theirs)


@every_policy
def test_an_episode_begins_with_an_empty_memory(kind: str) -> None:
    model = make(kind).learn(300)
    obs, zeros = observed(model, 5), states(5)
    zeros = RNNStates(*((0 * h, 0 * c) for h, c in zeros))
    with torch.no_grad():
        begun = model.policy(obs, states(5), torch.ones(5), deterministic=True)
        fresh = model.policy(obs, zeros, torch.zeros(5), deterministic=True)
        remembering = model.policy(obs, states(5), torch.zeros(5), deterministic=True)
    assert torch.equal(begun[0], fresh[0])
    assert torch.equal(begun[1], fresh[1])
    assert (remembering[0] != fresh[0]).all()
    assert (remembering[1] != fresh[1]).all()


def test_each_row_has_the_network_of_its_memory() -> None:
    policy = make("hyper").learn(300).policy
    memory, state = torch.randn(7, H), torch.randn(7, 5)
    for network, forward in (
        (policy.actor_network, policy.mlp_extractor.forward_actor),
        (policy.mlp_extractor.critic, policy.mlp_extractor.forward_critic),
    ):
        with torch.no_grad():
            together = forward(torch.cat([memory, state], dim=1))
            alone = [
                functional_call(network.head.base, network.weights(m), x[None])[0]
                for m, x in zip(memory, state, strict=True)
            ]
        torch.testing.assert_close(together, torch.stack(alone))
        assert together.std() > 0


def test_it_begins_as_an_ordinary_network_of_the_observation_and_learns_all_of_it() -> None:
    model = make("hyper")
    policy, obs = model.policy, observed(model, 5)
    with torch.no_grad():
        one, other = (policy(obs, states(5, seed), torch.zeros(5), deterministic=True) for seed in (0, 1))
    assert torch.equal(one[0], other[0])  # the memory says nothing yet
    assert torch.equal(one[1], other[1])
    for network, gain in ((policy.actor_network, 0.01), (policy.mlp_extractor.critic, 1.0)):
        first, last = network.head.base[0].weight, network.head.base[-1].weight
        torch.testing.assert_close(first.T @ first, 2 * torch.eye(5))  # orthogonal, as SB3 makes it
        torch.testing.assert_close(last @ last.T, gain**2 * torch.eye(len(last)))
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in policy.parameters()}
    before = {name: p.clone() for name, p in policy.named_parameters()}
    model.learn(300)
    assert [name for name, p in policy.named_parameters() if torch.equal(p, before[name])] == []


@every_policy
def test_the_context_is_not_observed(kind: str) -> None:
    model = make(kind).learn(300)
    obs = {name: entry.numpy() for name, entry in observed(model, 5).items()}
    hidden = obs | {"context": np.full_like(obs["context"], np.nan)}
    assert_array_equal(*(model.predict(o, deterministic=True)[0] for o in (obs, hidden)))
    assert isinstance(model.policy.features_extractor, MemoryExtractor)
    assert model.policy.lstm_actor.input_size == 5 + 3 + 1


@every_policy
@pytest.mark.parametrize("venv", [lambda: VecLastStep(toy("discrete", IMAGE, n=2)), lambda: toy(flat=True, n=2)])
def test_saved_and_loaded_it_acts_the_same(kind: str, venv: Any) -> None:
    model = make(kind, venv=venv(), n_steps=8, batch_size=8).learn(16)
    file = io.BytesIO()
    model.save(file)
    loaded = RecurrentPPO.load(file, device="cpu")
    model.observation_space.seed(3)
    obs = model.observation_space.sample()
    state = None
    for _ in range(3):
        expected, after = model.predict(obs, state, deterministic=True)
        assert_array_equal(expected, loaded.predict(obs, state, deterministic=True)[0])
        state = after
    policy = POLICIES[kind](**model.policy._get_constructor_parameters())
    policy.load_state_dict(model.policy.state_dict())
    assert_array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("agent", ["recurrent-ppo", "hyper-recurrent-ppo"])
@pytest.mark.parametrize("family", ["pendulum", "cartpole", "ode", "half_cheetah"])
def test_recipes_have_as_many_parameters_as_the_told_agent(family: str, agent: str) -> None:
    loaded = hyperrl.load_family(family)
    wanted, found = (build(loaded, agent_spec(name), device="cpu") for name in ("hyper-ppo", agent))
    assert n_parameters(found.policy) == pytest.approx(n_parameters(wanted.policy), rel=0.05)


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
@pytest.mark.parametrize("family", ["pendulum", "cartpole"])
def test_an_agent_recalls_as_the_wrapped_environments_do(family: str, backend: str) -> None:
    loaded = hyperrl.load_family(family)
    wrapped, bare = VecLastStep(loaded.vec_env(3, backend=backend)), loaded.vec_env(3, backend=backend)
    model = make("hyper", venv=VecLastStep(loaded.vec_env(4)), n_steps=64).learn(512)
    one, other = Agent(model, wrapped.observation_space), Agent(model, bare.observation_space)
    seen, plain, starts, rewards = wrapped.reset(), bare.reset(), np.ones(3, dtype=bool), None
    for _ in range(220):
        actions = one.act(seen, starts, rewards)
        assert_array_equal(actions, other.act(plain, starts, rewards))
        seen, rewards, starts, _ = wrapped.step(actions)
        plain, *_ = bare.step(actions)


@every_policy
def test_no_plain_policy_and_no_file_stands_for_it(kind: str, tmp_path: Path) -> None:
    model = make(kind, venv=VecLastStep(hyperrl.load_family("pendulum").vec_env(2)))
    for attempt in (
        lambda: hyperrl.specialize(model, {"length": 0.7}),
        lambda: hyperrl.export.save(model, tmp_path / "a.onnx", {"length": 0.7}),
        lambda: hyperrl.export.save(model, tmp_path / "b.onnx"),
    ):
        with pytest.raises(ValueError, match=f"{POLICIES[kind].__name__} acts on what it remembers of an episode"):
            attempt()


@every_policy
def test_what_it_cannot_do_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="does not explore by gSDE"):
        make(kind, use_sde=True)
    with pytest.raises(ValueError, match=r"there is nothing to act on among the entries \['context'\]"):
        MemoryExtractor(spaces.Dict(context=spaces.Box(-1, 1, (2,))))
    with pytest.raises(ValueError, match=r"knows no 'lstm_size'.* Did you mean 'lstm_hidden_size'"):
        RecurrentPPO(POLICIES[kind], toy(), policy_kwargs=dict(lstm_size=3), device="cpu")
    for embedding in ((), (4, 0)):
        with pytest.raises(ValueError, match=r"expected widths ≥ 1, got embedding="):
            RecurrentPPO(HyperRecurrentPolicy, toy(), policy_kwargs=dict(embedding=embedding), device="cpu")
