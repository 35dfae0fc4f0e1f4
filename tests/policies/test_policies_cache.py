import copy
import pickle
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.utils import polyak_update
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import hyperrl
from hyperrl.hypernet import HEADS
from hyperrl.policies import HyperPolicy

FAMILY = hyperrl.load_family("pendulum")


def trained(algorithm: Any = PPO, **policy_kwargs: Any) -> Any:
    """A model whose generated weights differ from context to context."""
    sizes = dict(batch_size=300, n_epochs=1) if algorithm is PPO else {}
    vec_env = FAMILY.vec_env(6, seed=0)
    model = algorithm(HyperPolicy, vec_env, policy_kwargs=policy_kwargs, n_steps=50, seed=0, device="cpu", **sizes)
    for network in (model.policy.actor, model.policy.critic):
        for name, parameter in network.head.named_parameters():  # pyright: ignore[reportAttributeAccessIssue]
            if "generator" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def scaled(model: Any) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.policy.parameters():
            parameter *= 1.1
    return other


def act(policy: Any, context: int = 1) -> Any:
    """Actions, values and log-probabilities without exploration."""
    contexts = torch.as_tensor(FAMILY.context_space.sample("train", 6, context)).float()
    with torch.no_grad():
        parts = policy({"observation": torch.ones(6, 3), "context": contexts}, deterministic=True)
    return torch.cat([part.reshape(6, -1) for part in parts], dim=1)


def generations(policy: Any) -> list[bool]:
    calls: list[bool] = []
    policy.actor.encoder.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    return calls


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("share_encoder", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_rollout_generates_once_and_is_the_same(
    head: str, share_encoder: bool, algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(algorithm, head=head, share_encoder=share_encoder)
    calls = generations(model.policy)
    model.learn(300 * 4)
    # Once a rollout, and after each for its last value; in the fourth, episodes end: contexts change, twice at most.
    assert calls.count(False) < 20
    kept = model.policy.parameters_to_vector()

    monkeypatch.setattr(HyperPolicy, "_kept_condition", HyperPolicy._condition)
    model = trained(algorithm, head=head, share_encoder=share_encoder)
    calls = generations(model.policy)
    model.learn(300 * 4)
    assert calls.count(False) >= 200
    assert np.array_equal(model.policy.parameters_to_vector(), kept)


def by_hand(policy: Any, other: Any) -> None:
    for parameter, new in zip(policy.parameters(), other.parameters(), strict=True):
        parameter.data = new.data.clone()


def in_place(policy: Any, other: Any) -> None:
    for parameter, new in zip(policy.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(new.data)


def through_numpy(policy: Any, other: Any) -> None:
    for parameter, new in zip(policy.parameters(), other.parameters(), strict=True):
        parameter.detach().numpy()[...] = new.detach().numpy()


def optimised(optimizer_class: Any, **kwargs: Any) -> Any:
    def change(policy: Any, other: Any) -> None:
        for parameter in policy.parameters():
            parameter.grad = parameter.sign()
        optimizer_class(policy.parameters(), lr=0.01, **kwargs).step()

    return change


def in_another_thread(policy: Any, other: Any) -> None:
    thread = threading.Thread(target=in_place, args=(policy, other))
    thread.start()
    thread.join()


def exchanged(policy: Any, other: Any) -> None:
    for module, new in zip(policy.modules(), other.modules(), strict=True):
        module._parameters.update(new._parameters)


CHANGES: dict[str, Any] = {
    "load_state_dict": lambda policy, other: policy.load_state_dict(other.state_dict()),
    "load_state_dict, assigned": lambda policy, other: policy.load_state_dict(other.state_dict(), assign=True),
    "load_from_vector": lambda policy, other: policy.load_from_vector(other.parameters_to_vector()),
    "vector_to_parameters": lambda policy, other: vector_to_parameters(
        parameters_to_vector(other.parameters()), policy.parameters()
    ),
    "data": by_hand,
    "in place": in_place,
    "numpy": through_numpy,
    "polyak": lambda policy, other: polyak_update(other.parameters(), policy.parameters(), tau=0.5),
    "Adam": optimised(torch.optim.Adam),
    "fused Adam": optimised(torch.optim.Adam, fused=True),
    "foreach SGD": optimised(torch.optim.SGD, foreach=True),
    "thread": in_another_thread,
    "other parameters": exchanged,
    "another generator": lambda policy, other: setattr(policy, "actor", other.actor),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("head", HEADS)
def test_kept_weights_are_never_stale(head: str, change: str) -> None:
    model = trained(head=head)
    policy, other = model.policy, scaled(model).policy
    policy.set_training_mode(False)
    calls = generations(policy)
    before = act(policy)
    assert torch.equal(act(policy), before)
    assert len(calls) == 1
    assert not torch.allclose(act(policy, context=2), before)
    assert torch.equal(act(policy), before)
    CHANGES[change](policy, other)
    after = act(policy)
    assert not torch.allclose(after, before)
    policy.set_training_mode(True)
    assert torch.equal(act(policy), after)


def test_a_loop_of_ones_own_acts_on_what_it_has_learnt() -> None:
    """Its optimiser is fused: a parameter's version does not tell its steps."""
    policy = trained().policy
    policy.set_training_mode(False)
    before = act(policy)
    policy({"observation": torch.ones(6, 3), "context": torch.ones(6, 4)})[1].sum().backward()
    policy.optimizer.step()
    after = act(policy)
    assert not torch.allclose(after, before)
    policy._kept = None
    assert torch.equal(act(policy), after)


@pytest.mark.parametrize("head", ["low_rank", "full"])
def test_threads_get_the_actions_of_their_own_contexts(head: str) -> None:
    policy = trained(head=head).policy
    policy.set_training_mode(False)
    expected = {context: act(copy.deepcopy(policy), context) for context in range(4)}
    wrong: list[int] = []

    def run(context: int) -> None:
        wrong.extend(context for _ in range(50) if not torch.equal(act(policy, context), expected[context]))

    threads = [threading.Thread(target=run, args=(context,)) for context in expected]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_a_distribution_stays_as_it_was_returned() -> None:
    """SB3's policies have one, which each call overwrites: that of another thread, too."""
    policy = trained().policy
    contexts = torch.as_tensor(FAMILY.context_space.sample("train", 6, 1)).float()
    obs = {"observation": torch.ones(6, 3), "context": contexts}
    first = policy.get_distribution(obs)
    mean = first.distribution.mean
    policy.get_distribution(obs | {"observation": torch.zeros(6, 3)})
    assert torch.equal(first.distribution.mean, mean)


@pytest.mark.parametrize("head", HEADS)
def test_autocast_keeps_nothing(head: str) -> None:
    """Outputs, and their dtypes, are those of a policy that has kept nothing before."""
    policy = trained(head=head).policy
    policy.set_training_mode(False)

    def parts() -> tuple[torch.Tensor, ...]:
        contexts = torch.as_tensor(FAMILY.context_space.sample("train", 6, 1)).float()
        with torch.no_grad():
            return policy({"observation": torch.ones(6, 3), "context": contexts}, deterministic=True)

    def under_autocast() -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return parts()

    alone = under_autocast()
    assert policy._kept is None
    plain = parts()
    for calls, expected in ((under_autocast, alone), (parts, plain), (under_autocast, alone)):
        for got, wanted in zip(calls(), expected, strict=True):
            assert got.dtype == wanted.dtype
            assert torch.equal(got, wanted)


def test_what_inference_mode_kept_serves_outside_it() -> None:
    policy = trained().policy
    policy.set_training_mode(False)
    with torch.inference_mode():
        expected = act(policy)
    assert torch.equal(act(policy), expected)


def test_another_dtype_forgets() -> None:
    policy = trained().policy
    policy.set_training_mode(False)
    act(policy)
    assert policy.double()._kept is None


def test_kept_weights_serve_no_gradients_and_are_not_copied() -> None:
    policy = trained().policy
    policy.set_training_mode(False)
    act(policy)
    obs = {
        "observation": torch.ones(6, 3),
        "context": torch.as_tensor(FAMILY.context_space.sample("train", 6, 1)).float(),
    }
    policy(obs)[1].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.critic.encoder.parameters())
    act(policy)
    assert policy._kept is not None
    assert copy.deepcopy(policy)._kept is None
    assert pickle.loads(pickle.dumps(policy))._kept is None
