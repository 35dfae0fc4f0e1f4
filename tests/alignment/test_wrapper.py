"""The wrapper around environments, and the agent that acts by its encoder elsewhere."""

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from hyperrl import HyperPolicy, load_family
from hyperrl.alignment import AlignedContext, AlignedModel, AlignmentCallback, find_aligned
from hyperrl.policies import HyperSACPolicy
from hyperrl.rollouts import Agent, rollout
from hyperrl.utils.provenance import sha256_of
from tests.toy import VECTOR, toy

N = 4
SMALL: dict[str, Any] = dict(history=5, embedding=4, group=2, width=8, batch_size=16, every=8, device="cpu")
PENDULUM = load_family("pendulum")
MAKE: dict[str, Callable[[], VecEnv]] = {
    "batched": lambda: load_family("cartpole").vec_env(N),
    "gymnasium": lambda: PENDULUM.vec_env(N, backend="gymnasium"),
    "mujoco": lambda: load_family("inverted_pendulum").vec_env(N),
    "dict": lambda: toy("multidiscrete", copy.deepcopy(VECTOR), n=N),
    "flat": lambda: DummyVecEnv([lambda: gym.make("CartPole-v1")] * N),
    "irrelevant": lambda: load_family("ode").with_irrelevant(2).vec_env(N),
}


def actions_of(vec_env: VecEnv, steps: int = 60) -> np.ndarray:
    vec_env.action_space.seed(0)
    return np.array([[vec_env.action_space.sample() for _ in range(N)] for _ in range(steps)])


class NoContext(VecEnvWrapper):
    """Environments whose context is NaN, while what it does stays as it is."""

    def reset(self) -> Any:
        return self.hidden(self.venv.reset())

    def step_wait(self) -> Any:
        observation, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self.hidden(info["terminal_observation"])
        return self.hidden(observation), rewards, dones, infos

    @staticmethod
    def hidden(observation: Any) -> Any:
        return observation | {"context": np.full_like(observation["context"], np.nan)}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_is_observed_is_the_embedding_of_the_episode_so_far(make: Callable[[], VecEnv]) -> None:
    aligned, plain = AlignedContext(make(), seed=0, **SMALL), make()
    for vec_env in (aligned, plain):
        vec_env.seed(7)
    seen: Any = aligned.reset()
    own, ends = plain.reset(), 0
    rower, episodes = aligned.rower, [[] for _ in range(N)]
    row = rower.observation(own)
    for actions in actions_of(plain):
        for i in range(N):
            assert aligned.observation_space.contains({key: entry[i] for key, entry in seen.items()})
        aligned_step, (own, rewards, dones, infos) = aligned.step(actions), plain.step(actions)
        seen = aligned_step[0]
        assert_array_equal(aligned_step[1], rewards)
        following = rower.observation(own)
        assert_array_equal(rower.observation(seen), following)
        for i in range(N):
            last = rower.named(infos[i]["terminal_observation"]) if dones[i] else None
            reached = following[i] if last is None else np.concatenate([np.ravel(part) for part in last.values()])
            change = np.float32(reached) - row[i]
            episodes[i].append(np.concatenate([row[i], rower.action(actions[i : i + 1])[0], change]))
            if last is not None:
                end = aligned_step[3][i]["terminal_observation"]
                assert_allclose(end["context"], embedding(aligned, episodes[i]), atol=1e-5)
                episodes[i], ends = [], ends + 1
            assert_allclose(seen["context"][i], embedding(aligned, episodes[i]), atol=1e-5)
        row = following
    assert ends or make in (MAKE["gymnasium"], MAKE["irrelevant"])  # whose episodes are longer


def embedding(aligned: AlignedContext, transitions: list[np.ndarray]) -> np.ndarray:
    """The embedding of one episode, from the definition."""
    rows = transitions[-SMALL["history"] :]
    held = torch.zeros(1, SMALL["history"], len(aligned.dynamics.mean))
    if rows:
        held[0, : len(rows)] = torch.as_tensor(np.array(rows))
    present = (torch.arange(SMALL["history"]) < len(rows)).float().unsqueeze(0)
    with torch.no_grad():
        return aligned.dynamics.embed(held, present).numpy()[0]


def trained(seed: int = 0, vec_env: VecEnv | None = None) -> Any:
    aligned = AlignedContext(PENDULUM.vec_env(N, seed=seed) if vec_env is None else vec_env, seed=seed, **SMALL)
    model = PPO(HyperPolicy, aligned, n_steps=32, batch_size=64, n_epochs=2, seed=seed, device="cpu")
    return model.learn(384, callback=AlignmentCallback())


def test_the_agents_loss_does_not_reach_the_encoder() -> None:
    choices: Any = ((PPO, HyperPolicy), (SAC, HyperSACPolicy))
    for model, policy in choices:
        aligned = AlignedContext(PENDULUM.vec_env(N), seed=0, **SMALL)
        before = copy.deepcopy(aligned.dynamics.state_dict())
        kwargs = dict(n_steps=16, batch_size=32) if model is PPO else dict(learning_starts=8, buffer_size=200)
        agent = model(policy, aligned, device="cpu", **kwargs).learn(64)  # without the callback
        assert agent.num_timesteps >= 64
        for name, tensor in aligned.dynamics.state_dict().items():
            assert torch.equal(tensor, before[name])
        assert all(parameter.grad is None for parameter in aligned.dynamics.parameters())


def test_the_agents_initial_weights_do_not_depend_on_the_encoder() -> None:
    first, second = (
        PPO(HyperPolicy, AlignedContext(PENDULUM.vec_env(N), seed=seed, **SMALL), seed=3, device="cpu")
        for seed in (0, 1)
    )
    assert_array_equal(first.policy.parameters_to_vector(), second.policy.parameters_to_vector())
    encoders = [find_aligned(model) for model in (first, second)]
    assert len({sha256_of(encoder.dynamics) for encoder in encoders if encoder is not None}) == 2


def test_the_same_seed_gives_the_same_agent_and_the_true_context_is_not_seen() -> None:
    model, again = trained(), trained()
    hidden = trained(vec_env=NoContext(PENDULUM.vec_env(N, seed=0)))
    for other in (again, hidden):
        assert_array_equal(other.policy.parameters_to_vector(), model.policy.parameters_to_vector())
        mine, theirs = find_aligned(model), find_aligned(other)
        assert mine is not None
        assert theirs is not None
        for name, tensor in mine.dynamics.state_dict().items():
            assert torch.equal(theirs.dynamics.state_dict()[name], tensor)
    assert trained(seed=1).policy.parameters_to_vector().tolist() != model.policy.parameters_to_vector().tolist()


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_elsewhere_it_acts_as_in_its_own_environments(make: Callable[[], VecEnv]) -> None:
    aligned = AlignedContext(make(), seed=0, **SMALL)
    model = PPO(HyperPolicy, aligned, n_steps=16, batch_size=32, device="cpu").learn(64, callback=AlignmentCallback())
    aligned.seed(3)
    observation = aligned.reset()
    plain = make()
    plain.seed(3)
    agent = Agent(model, plain.observation_space)
    for i, step in enumerate(rollout(agent, plain)):
        actions = model.predict(observation, deterministic=True)[0]
        assert_allclose(step.actions, actions, atol=1e-4)
        observation = aligned.step(step.actions)[0]
        if i == 40:
            break


def test_the_true_context_may_be_anything_or_missing_when_it_acts() -> None:
    model, seen = trained(), PENDULUM.vec_env(N, seed=5)
    agents = [Agent(model, seen.observation_space)]
    vector_space = model.observation_space["observation"]
    agents += [Agent(model, spaces.Dict({"observation": vector_space})), Agent(model, vector_space)]
    for i, step in enumerate(rollout(Agent(model, seen.observation_space), seen)):
        starts = np.full(N, i == 0)
        vector = step.observation["observation"]
        nan = {"observation": vector, "context": np.full((N, 4), np.nan, dtype=np.float32)}
        for agent, given in zip(agents, (nan, {"observation": vector}, vector), strict=True):
            assert_array_equal(agent.act(given, starts), step.actions)
        if i == 20:
            break


def test_environments_act_one_by_one_as_together_and_permuted_as_permuted() -> None:
    model = trained()
    aligned = find_aligned(model)
    assert aligned is not None
    rng, order = np.random.default_rng(0), np.array([2, 0, 3, 1])
    observations = rng.normal(size=(12, N, 3)).astype(np.float32)
    starts = rng.random((12, N)) < 0.2

    def play(rows: np.ndarray) -> np.ndarray:
        agent, state, actions = AlignedModel(model, aligned), None, []
        for observation, start in zip(observations[:, rows], starts[:, rows], strict=True):
            action, state = agent.predict({"observation": observation}, state, start, deterministic=True)
            actions.append(action)
        return np.array(actions)

    together = play(np.arange(N))
    assert_allclose(play(order), together[:, order], atol=1e-5)
    for i in range(N):
        assert_allclose(play(np.array([i])), together[:, [i]], atol=1e-5)


def test_an_episodes_start_forgets_the_episode_before() -> None:
    model = trained()
    aligned = find_aligned(model)
    assert aligned is not None
    agent, rng = AlignedModel(model, aligned), np.random.default_rng(0)
    state = None
    for _ in range(8):
        _, state = agent.predict({"observation": rng.normal(size=(1, 3))}, state, np.array([False]))
    now = {"observation": rng.normal(size=(1, 3))}
    fresh, _ = agent.predict(now, None, deterministic=True)
    begun, _ = agent.predict(now, state, np.array([True]), deterministic=True)
    on, _ = agent.predict(now, state, np.array([False]), deterministic=True)
    assert_array_equal(begun, fresh)
    assert np.abs(on - fresh).max() > 1e-6


def test_a_recurrent_policy_keeps_its_own_memory_too() -> None:
    aligned = AlignedContext(PENDULUM.vec_env(N), seed=0, **SMALL)
    model = RecurrentPPO("MultiInputLstmPolicy", aligned, device="cpu")
    observation, seen = PENDULUM.vec_env(N, seed=1).reset(), PENDULUM.vec_env(N).observation_space
    agent = Agent(model, seen)
    first = agent.act(observation, np.ones(N, dtype=bool))
    second = agent.act(observation, np.zeros(N, dtype=bool))
    assert np.abs(first - second).max() > 0


def test_rewards_and_other_entries_are_normalised_outside() -> None:
    vec_env = VecNormalize(AlignedContext(PENDULUM.vec_env(N), seed=0, **SMALL), norm_obs_keys=["observation"])
    model = PPO(HyperPolicy, vec_env, n_steps=32, batch_size=64, device="cpu").learn(256, callback=AlignmentCallback())
    observation = vec_env.reset()
    agent = Agent(model, PENDULUM.vec_env(1).observation_space)
    raw = vec_env.get_original_obs()
    expected = model.predict(observation, deterministic=True)[0]
    assert_allclose(agent.act(raw, np.ones(N, dtype=bool)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="put VecNormalize around AlignedContext"):
        AlignedContext(VecNormalize(PENDULUM.vec_env(N)))


def test_a_saved_encoder_comes_back(tmp_path: Path) -> None:
    aligned = find_aligned(trained())
    assert aligned is not None
    aligned.save(tmp_path / "encoder.safetensors")
    other = AlignedContext(PENDULUM.vec_env(2), seed=9, **SMALL)
    other.load(tmp_path / "encoder.safetensors")
    history = aligned.no_history(3).with_transitions(np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32))
    assert_array_equal(other.embed(history), aligned.embed(history))
    wider = AlignedContext(PENDULUM.vec_env(2), **(SMALL | dict(width=16)))
    with pytest.raises(ValueError, match=r"holds another encoder: expected .*'width': 16.* got .*'width': 8"):
        wider.load(tmp_path / "encoder.safetensors")
    whole = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "damaged").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "damaged"))):
        other.load(tmp_path / "damaged")


def test_pickled_in_mid_episode_it_goes_on_as_it_would_have() -> None:
    model = trained()
    aligned = find_aligned(model)
    assert aligned is not None
    copied: AlignedContext = pickle.loads(pickle.dumps(aligned))
    copied.set_venv(pickle.loads(pickle.dumps(aligned.venv)))
    for actions in actions_of(aligned, 20):
        steps: Any = aligned.step(actions), copied.step(actions)
        (mine, *_), (theirs, *_) = steps
        assert_array_equal(theirs["context"], mine["context"])
    assert copied.learn(0.5) == aligned.learn(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(history=0), "expected history ≥ 1, got history=0"),
        (dict(embedding=6), "expected a group ≥ 2 that divides the embedding, got embedding=6, group=4"),
        (dict(group=1), "expected a group ≥ 2"),
        (dict(masking=1.0), "expected 0 ≤ masking < 1, got masking=1.0"),
        (dict(learning_rate=0.0), "expected learning_rate > 0"),
        (dict(seed=-1), "expected a seed ≥ 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        AlignedContext(PENDULUM.vec_env(2), **options)


def test_the_callback_needs_the_wrapper() -> None:
    with pytest.raises(ValueError, match="expected environments in an AlignedContext"):
        PPO(HyperPolicy, PENDULUM.vec_env(2), n_steps=8, batch_size=8).learn(8, callback=AlignmentCallback())
