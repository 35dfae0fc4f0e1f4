import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import DummyVecEnv

import hyperrl
from hyperrl.callbacks import CachedRollouts, HyperDiagnostics
from hyperrl.hypernet import HEADS
from hyperrl.policies import ConcatPolicy, ContextPolicy, HyperPolicy, UnawarePolicy

FAMILY = hyperrl.load_family("pendulum")
NAMES = ["embedding_grad_norm", "embedding_norm", "effective_rank", "weight_norm", "weight_variance"]


def make(policy: type[ContextPolicy] = HyperPolicy, n_envs: int = 6, **kwargs: Any) -> Any:
    """A model that updates once a rollout, on all of it."""
    sizes = dict(n_steps=4, batch_size=4 * n_envs, n_epochs=1)
    return PPO(policy, FAMILY.vec_env(n_envs, seed=0), seed=0, device="cpu", **(sizes | kwargs))


def logged(model: Any) -> dict[str, float]:
    return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("hyper/")}


@pytest.mark.parametrize("share_encoder", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_values_are_those_computed_by_hand(head: str, share_encoder: bool) -> None:
    kwargs = dict(head=head, share_encoder=share_encoder)
    model = make(policy_kwargs=kwargs)
    policy = model.policy
    model.learn(72, callback=HyperDiagnostics())  # the generators have left zero
    gradients: dict[str, list[torch.Tensor]] = {"actor": [], "critic": []}

    def watch(norms: list[torch.Tensor], z: torch.Tensor) -> None:
        if z.requires_grad:
            z.register_hook(lambda g: norms.append(g.square().sum().sqrt()))

    for name, norms in gradients.items():
        encoder = getattr(policy, name).encoder
        encoder.register_forward_hook(lambda _, inputs, z, norms=norms: watch(norms, z))
    contexts = FAMILY.context_space.normalize(model._last_obs["context"])
    model.learn(24, callback=HyperDiagnostics(), reset_num_timesteps=False)
    values = logged(model)
    assert sorted(values) == sorted(f"hyper/{prefix}{name}" for prefix in ("", "critic_") for name in NAMES)
    for name, prefix in (("actor", ""), ("critic", "critic_")):
        network = getattr(policy, name)
        z = network.encoder(torch.as_tensor(contexts, dtype=torch.float32))  # (6, h)
        theta = torch.cat([w.flatten(1) for w in network.head.weights(z).values()], dim=1).detach().numpy()  # (6, P)
        singular = np.linalg.svd((theta - theta.mean(0)).astype(np.float64), compute_uv=False)[:-1]
        p = singular / singular.sum()
        expected = dict(
            embedding_norm=z.norm(dim=1).mean().item(),
            weight_norm=np.sqrt((theta**2).sum(1)).mean(),
            weight_variance=theta.var(0).mean(),
            effective_rank=np.exp(-(p * np.log(p)).sum()),
            embedding_grad_norm=gradients[name][0].item(),
        )
        assert len(gradients[name]) == 1
        for key, value in expected.items():
            assert values[f"hyper/{prefix}{key}"] == pytest.approx(value, rel=1e-2), key
            assert value > 0


@pytest.mark.parametrize("policy", [ConcatPolicy, UnawarePolicy])
def test_nothing_is_logged_without_a_hypernetwork(policy: type[ContextPolicy]) -> None:
    assert not logged(make(policy).learn(48, callback=HyperDiagnostics()))


def test_a2c_on_a_flat_observation() -> None:
    env = DummyVecEnv([lambda: FlattenObservation(gym.make("hyperrl/Pendulum-v0"))] * 3)  # its context comes last
    model = A2C(HyperPolicy, env, n_steps=4, policy_kwargs=dict(context_slice=(-4, None)), seed=0, device="cpu")
    diagnostics = HyperDiagnostics()
    model.learn(24, callback=diagnostics)
    assert len(logged(model)) == 10
    normalized = model.policy._context(torch.as_tensor(model._last_obs))  # no episode has ended
    assert sorted(diagnostics.contexts) == sorted(map(tuple, normalized.tolist()))


class Damage(BaseCallback):
    """Change the actor's generator after each update from a number of steps on."""

    def __init__(self, value: float, at: int) -> None:
        super().__init__()
        self.value, self.at = value, at

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.at:
            torch.nn.init.constant_(self.model.policy.actor.head.generator.weight, self.value)

    def _on_training_end(self) -> None:
        self._on_rollout_start()


@pytest.mark.parametrize(
    ("value", "at", "message"),
    [
        (0.0, 48, "the weights' variance over contexts fell from .* to .*"),
        (float("nan"), 120, "weight_norm is nan"),  # not before: the distribution refuses to act
        (float("inf"), 120, "weight_norm is (inf|nan)"),
    ],
)
def test_a_collapse_is_announced_once(value: float, at: int, message: str) -> None:
    with pytest.warns(
        UserWarning, match=f"the actor's hypernetwork has collapsed after {at} steps: {message}"
    ) as caught:
        make().learn(120, callback=[Damage(value, at), HyperDiagnostics()])
    assert len(caught) == 1


def test_a_training_that_does_not_collapse_is_not_announced() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hyperrl.train(FAMILY, "hyper-ppo", 8192 * 3, device="cpu")
        make(n_envs=1, n_steps=50, batch_size=50).learn(250, callback=HyperDiagnostics())  # one context, later two


def test_training_is_as_it_is_without() -> None:
    with_it, without = (make().learn(72, callback=callback) for callback in (HyperDiagnostics(), None))
    assert np.array_equal(with_it.policy.parameters_to_vector(), without.policy.parameters_to_vector())
    assert not any(module._forward_hooks for module in with_it.policy.modules())


def test_the_first_contexts_met_are_measured() -> None:
    seen = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            seen.append(list(diagnostics.contexts))
            copy.deepcopy(self.model.policy.actor)  # in mid-update, hooks on

    diagnostics = HyperDiagnostics(contexts=8)
    make(n_envs=3, n_steps=100).learn(300 * 8, callback=[diagnostics, Look()])
    assert len(seen[0]) == 3
    assert len(seen[-1]) == 8
    assert all(later[: len(earlier)] == earlier for earlier, later in zip(seen, seen[1:], strict=False))


def trained(**kwargs: Any) -> Any:
    """A model whose generated weights differ from context to context."""
    model = make(**kwargs)
    for network in (model.policy.actor, model.policy.critic):
        for name, parameter in network.head.named_parameters():
            if "generator" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def act(model: Any, context: Any = None) -> Any:
    """Actions, values and log-probabilities of the present observations, without exploration."""
    obs = {key: torch.as_tensor(value) for key, value in model.env.reset().items()}
    obs = {"observation": torch.ones_like(obs["observation"]), "context": obs["context"]}
    obs["context"] = torch.as_tensor(FAMILY.context_space.sample("train", 6, 1 if context is None else context)).float()
    with torch.no_grad():
        return torch.cat([x.reshape(6, -1) for x in model.policy(obs, deterministic=True)], dim=1)


@pytest.mark.parametrize("share_encoder", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_cached_rollouts_change_nothing_and_generate_less(head: str, share_encoder: bool) -> None:
    kwargs: Any = dict(policy_kwargs=dict(head=head, share_encoder=share_encoder), n_steps=50, batch_size=300)
    generations, parameters = [], []
    for callback in (CachedRollouts(), None):
        model = trained(**kwargs)
        calls: list[bool] = []
        model.policy.actor.encoder.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        model.learn(300 * 6, callback=callback)
        generations.append(calls.count(False))
        parameters.append(model.policy.parameters_to_vector())
        assert model.policy._kept is None
    assert np.array_equal(*parameters)
    # A rollout generates once; at the end of the fourth, episodes end and contexts change.
    assert generations[0] < 30
    assert generations[1] >= 300


CHANGES: dict[str, Any] = {
    "optimizer": lambda model, other: model.learn(24),
    "load_state_dict": lambda model, other: model.policy.load_state_dict(other.policy.state_dict()),
    "set_parameters": lambda model, other: model.set_parameters(other.get_parameters()),
    "load_from_vector": lambda model, other: model.policy.load_from_vector(other.policy.parameters_to_vector()),
    "data": lambda model, other: [
        setattr(p, "data", q.data.clone())
        for p, q in zip(model.policy.parameters(), other.policy.parameters(), strict=True)
    ],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("head", HEADS)
def test_cached_weights_are_never_stale(head: str, change: str) -> None:
    """Even where parameters change in the middle of the stretch."""
    kwargs: Any = dict(policy_kwargs=dict(head=head))
    model, other = trained(**kwargs), trained(**kwargs)
    with torch.no_grad():
        for parameter in other.policy.parameters():
            parameter *= 1.1
    with model.policy.cached_weights():
        before = act(model)
        assert torch.equal(act(model), before)
        assert not torch.allclose(act(model, context=2), before)
        assert torch.equal(act(model), before)
        CHANGES[change](model, other)
        after = act(model)
        copied = copy.deepcopy(model)
    assert not torch.allclose(after, before)
    assert torch.equal(after, act(model))
    assert copied.policy._kept is None
    assert pickle.loads(pickle.dumps(model.policy))._kept is None


def test_a_change_between_two_stretches_that_torch_does_not_count() -> None:
    model, other = trained(), trained()
    with torch.no_grad():
        for parameter in other.policy.parameters():
            parameter *= 1.1
    with model.policy.cached_weights():
        before = act(model)
    polyak_update(other.policy.parameters(), model.policy.parameters(), tau=0.5)
    with model.policy.cached_weights():
        after = act(model)
    assert torch.equal(after, act(model))
    assert not torch.allclose(after, before)


def test_cached_weights_serve_no_gradients() -> None:
    model = trained()
    obs = {key: torch.as_tensor(value) for key, value in model.env.reset().items()}
    with model.policy.cached_weights():
        model.policy(obs)[1].sum().backward()
        with torch.no_grad():
            model.policy(obs)
        model.policy.zero_grad()
        model.policy(obs)[1].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.policy.critic.encoder.parameters())
