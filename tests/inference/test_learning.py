"""Learning an estimator: on every family, the same from the same seed, and what it ends up believing."""

import inspect
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC

import hyperrl
from hyperrl.cli.infer import infer
from hyperrl.inference import InferringAgent, learning
from hyperrl.policies import UnawarePolicy
from hyperrl.rollouts import Agent, rollout
from hyperrl.utils.definitions import names


def agent_of(name: str, **kwargs: Any) -> InferringAgent:
    family = hyperrl.load_family(name)
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), device="cpu", seed=0)
    return hyperrl.infer_context(model, family, **({"steps": 150} | kwargs))


def numbers(agent: InferringAgent) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in agent.estimator.state_dict().values()])


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("name", names("envs"))
def test_every_family(name: str) -> None:
    family = hyperrl.load_family(name)
    agent = agent_of(name, contexts="bounds")
    vec_env = family.vec_env(3, "interpolation")
    played = Agent(agent, vec_env.observation_space)
    for _ in islice(rollout(played, vec_env), 5):
        belief = agent.belief(played.memory)
        assert family.context_space.in_bounds(belief.context.numpy()).all()
        assert (belief.low <= belief.high).all()
        assert (belief.std >= 0).all()
    assert (numbers(agent) != 0).any()


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(
    ("algorithm", "policy", "family"),
    [(SAC, hyperrl.policies.HyperSACPolicy, "pendulum"), (DQN, hyperrl.policies.HyperDQNPolicy, "cartpole")],
)
def test_algorithms_that_learn_off_policy(algorithm: Any, policy: Any, family: str) -> None:
    loaded = hyperrl.load_family(family)
    model = algorithm(policy, loaded.vec_env(2), device="cpu", seed=0, buffer_size=10)
    agent = hyperrl.infer_context(model, loaded, steps=50)
    assert agent.predict(loaded.vec_env(3).reset())[0].shape[0] == 3


@pytest.mark.usefixtures("little")
def test_the_same_seed_gives_the_same_estimator_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    first = agent_of("pendulum", seed=1)
    after = torch.rand(())
    torch.manual_seed(3)
    second, other = agent_of("pendulum", seed=1), agent_of("pendulum", seed=2)
    assert torch.equal(numbers(first), numbers(second))
    assert not torch.equal(numbers(first), numbers(other))
    torch.manual_seed(3)
    agent_of("pendulum", seed=5)
    assert torch.rand(()) == after


@pytest.mark.usefixtures("little")
def test_the_model_learns_nothing() -> None:
    family = hyperrl.load_family("pendulum")
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), device="cpu", seed=0)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    hyperrl.infer_context(model, family, steps=50)
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.policy.parameters())


def test_motion_tells_one_feature_and_not_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mass and the sign of a force show in the motion, an irrelevant feature in nothing."""
    for name, value in dict(ENVS=128, LONGEST=15, UPDATES=20, SHORT_UPDATES=0).items():
        monkeypatch.setattr(learning, name, value)
    family = hyperrl.load_family("double_integrator").with_irrelevant(1)
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), device="cpu", seed=0)
    agent = hyperrl.infer_context(model, family, steps=20 * 128 * 15)
    contexts = family.context_space.sample("train", 200, seed=7)
    vec_env = family.vec_env(200, contexts=contexts)
    played = Agent(agent, vec_env.observation_space)
    for _ in islice(rollout(played, vec_env), 12):
        pass
    belief = agent.belief(played.memory)
    mass, factor, irrelevant = (belief.high - belief.low).numpy().T
    assert np.median(mass) < 0.4  # of 1.0 in the training range
    assert (belief.context[:, 1].numpy() == contexts[:, 1]).mean() > 0.95
    assert np.median(factor) == 0
    assert np.median(irrelevant) > 1.6  # of 2.0
    inside = (belief.low.numpy() <= contexts) & (contexts <= belief.high.numpy())
    assert (inside.mean(0) > 0.85).all()


@pytest.mark.usefixtures("little")
def test_wrong_arguments_are_refused() -> None:
    family = hyperrl.load_family("pendulum")
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), device="cpu")
    with pytest.raises(ValueError, match="Did you mean 'bounds'"):
        hyperrl.infer_context(model, family, contexts="bound")
    with pytest.raises(ValueError, match="steps=0"):
        hyperrl.infer_context(model, family, steps=0)
    with pytest.raises(ValueError, match="seed=-1"):
        hyperrl.infer_context(model, family, seed=-1)
    with pytest.raises(ValueError, match=r"c0.*c1.*gravity.*torque_gain"):
        hyperrl.infer_context(model, hyperrl.load_family("ode"))
    blind = PPO("MlpPolicy", family.base(), device="cpu")
    with pytest.raises(ValueError, match="reads its context"):
        hyperrl.infer_context(blind, family)
    unaware = PPO(UnawarePolicy, family.vec_env(2), device="cpu")
    with pytest.raises(ValueError, match="reads its context"):
        hyperrl.infer_context(unaware, family)


@pytest.mark.usefixtures("little")
def test_any_part_of_a_sequence_is_read_as_it_was_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "SHORT", 3)
    family = hyperrl.load_family("pendulum")
    agent = agent_of("pendulum", steps=1)
    torch.manual_seed(0)
    next(agent.estimator.head[-1].parameters()).normal_()
    player = learning._Player(agent)
    outputs = []
    for _ in islice(rollout(player, family.vec_env(4, switch=(2, 5), seed=0)), 8):
        assert player.memory is not None
        outputs.append(torch.from_numpy(player.memory.outputs))
    played = torch.stack(outputs)
    sequences = player.sequences()
    rows = torch.tensor([2, 0, 3])
    for part, steps in ((0, 8), (0, 3), (1, 3), (2, 2)):
        batch = sequences.of(rows, steps, part)
        read, added = agent.estimator.inputs(batch.observation, batch.reward, batch.last, batch.action, batch.begun)
        seen = agent.estimator.sequence(read, added, batch.starts, batch.memory[0], batch.sums[0])
        assert seen.abs().mean() > 0.1
        torch.testing.assert_close(seen, played[3 * part : 3 * part + steps, rows], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("little")
def test_the_age_of_a_step_begins_with_its_context() -> None:
    family = hyperrl.load_family("pendulum")
    player = learning._Player(agent_of("pendulum", steps=1))
    for _ in islice(rollout(player, family.vec_env(4, switch=3, seed=0)), 8):
        pass
    assert player.sequences().age.T.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]] * 4


def test_the_command_lets_contexts_change_as_often_as_the_function() -> None:
    assert inspect.signature(infer).parameters["switch"].default == learning.SWITCH
