"""The term of the loss that keeps means inside the action space: its gradient, and what it does."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from torch import Tensor
from toy import CONTEXT, observations, perturb, toy

from hyperrl.contexts import ContextBox
from hyperrl.device.networks import Networks
from hyperrl.hypernet import static
from hyperrl.policies import ConcatPolicy, FilmPolicy, HyperPolicy, UnawarePolicy

POLICIES = (HyperPolicy, ConcatPolicy, FilmPolicy, UnawarePolicy)
every_policy = pytest.mark.parametrize("policy", POLICIES)


def made(policy: Any, actions: spaces.Space[Any], **options: Any) -> Any:
    space = spaces.Dict(observation=spaces.Box(-1, 1, (5,)), context=ContextBox(CONTEXT))
    torch.manual_seed(0)
    return policy(space, actions, lambda _: 1e-3, **options)


def rows(n: int, scale: float) -> Any:
    context = torch.as_tensor(CONTEXT.sample("train", n, 0)).float()
    return {"observation": scale * torch.randn(n, 5), "context": context}


def enlarge(policy: Any) -> None:
    """Let means be far from 0."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith("bias") and parameter.shape == (3,) and "log_std" not in name:
                parameter += torch.tensor([4.0, -4.0, 4.0])


@every_policy
def test_the_gradient_is_that_of_the_loss_with_the_term_written_out(policy: Any) -> None:
    low, high = np.array([-1.0, 0.0, -np.inf], dtype=np.float32), np.array([1.0, 0.5, 3.0], dtype=np.float32)
    box = spaces.Box(low, high)
    with_term, without = (made(policy, box, bounds_loss=weight) for weight in (0.3, 0.0))
    perturb(with_term)
    enlarge(with_term)
    without.load_state_dict(with_term.state_dict())
    obs = rows(12, scale=3)

    def loss(policy: Any) -> Tensor:
        values, log_prob, entropy = policy.evaluate_actions(obs, torch.zeros(12, 3))
        return (values.square().flatten() + log_prob + 0.1 * entropy).mean()

    loss(with_term).backward()
    mean = without.get_distribution(obs).distribution.mean
    first = (mean[:, 0].abs() - 1).clamp(min=0)
    second = ((mean[:, 1] - 0.25).abs() / 0.25 - 1).clamp(min=0)
    assert first.max() > 0
    assert second.max() > 0
    (loss(without) + 0.3 * (first**2 + second**2).mean()).backward()
    for one, other in zip(with_term.parameters(), without.parameters(), strict=True):
        if one.grad is None or other.grad is None:
            assert one.grad is other.grad
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@every_policy
def test_agents_in_one_batch_have_the_gradients_of_each(policy: Any) -> None:
    box = spaces.Box(-1, 1, (3,))
    agents = [made(policy, box, bounds_loss=0.3) for _ in range(2)]
    for i, agent in enumerate(agents):
        torch.manual_seed(i)
        perturb(agent)
        enlarge(agent)
    obs = rows(24, scale=3)
    each = []
    for i, agent in enumerate(agents):
        mine = {key: entry[12 * i : 12 * i + 12] for key, entry in obs.items()}
        assert (agent.outside(agent.get_distribution(mine)) > 0).any()
        is_hyper = policy is HyperPolicy
        given = dict(condition=agent.condition(mine["context"], torch.arange(12))) if is_hyper else {}
        values, log_prob, _ = agent.evaluate_actions(mine, torch.zeros(12, 3), **given)
        found = torch.autograd.grad(values.sum() + log_prob.sum(), [*agent.parameters()], allow_unused=True)
        each.append([torch.zeros_like(p) if g is None else g for p, g in zip(agent.parameters(), found, strict=True)])
    networks = Networks(agents)
    table, index = None, None
    if policy is HyperPolicy:
        table, index = obs["context"].unflatten(0, (2, 12)), torch.arange(12).repeat(2)
    with static():
        values, log_prob, _ = networks.evaluate(obs, torch.zeros(24, 3), table, index)
    loss = values.sum() + log_prob.sum()
    found = torch.autograd.grad(loss, networks.learnt(), materialize_grads=True, allow_unused=True)
    for together, one, other in zip(found, *each, strict=True):
        torch.testing.assert_close(together, torch.stack([one, other]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_means_stay_inside(algorithm: Any) -> None:
    def farthest(weight: float) -> float:
        kwargs = dict(bounds_loss=weight, net_arch=[8])
        model = algorithm(HyperPolicy, toy(), 1e-2, n_steps=16, policy_kwargs=kwargs, seed=0, device="cpu")
        enlarge(model.policy)
        model.learn(3000)
        return model.policy.outside(model.policy.get_distribution(observations(model))).max().item()

    assert farthest(1.0) < 0.5 * farthest(0.0)


@every_policy
def test_it_does_nothing_where_there_is_nothing_to_leave(policy: Any) -> None:
    unbounded = spaces.Box(-np.inf, np.inf, (3,))
    obs = rows(12, scale=9)
    for space, actions in ((spaces.Discrete(3), torch.zeros(12)), (unbounded, torch.zeros(12, 3))):
        gradients = []
        for weight in (0.0, 1.0):
            agent = made(policy, space, bounds_loss=weight)
            values, _, _ = agent.evaluate_actions(obs, actions)
            values.sum().backward()
            gradients.append([p.grad for p in agent.parameters() if p.grad is not None and p.grad.any()])
        for one, other in zip(*gradients, strict=True):
            assert torch.equal(one, other)


@every_policy
def test_what_makes_no_sense_is_refused(policy: Any) -> None:
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"expected bounds_loss ≥ 0, got bounds_loss={weight}"):
            made(policy, spaces.Box(-1, 1, (3,)), bounds_loss=weight)
