import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from toy import perturb

import hyperrl
from hyperrl.hypernet import HEADS, HyperNetwork
from hyperrl.policies import POLICY_OF as ALGORITHMS
from hyperrl.policies import ConcatPolicy, ContextPolicy, HyperPolicy, UnawarePolicy
from hyperrl.training.diagnostics import HyperDiagnostics
from tests.policies.test_policies import make as make_of

FAMILY = hyperrl.load_family("pendulum")
NAMES = ["embedding_grad_norm", "embedding_norm", "effective_rank", "weight_norm", "weight_variance"]

NETWORKS = {
    **{name: ["actor", "critic"] for name in ("PPO", "A2C", "TRPO", "DDPG")},
    "DQN": ["q_net"],
    "QRDQN": ["quantile_net"],
}


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
    model.learn(72, callback=HyperDiagnostics(every=1))  # the generators have left zero
    gradients: dict[str, list[torch.Tensor]] = {"actor": [], "critic": []}

    def watch(norms: list[torch.Tensor], z: torch.Tensor) -> None:
        if z.requires_grad:
            z.register_hook(lambda g: norms.append(g.square().sum().sqrt()))

    for name, norms in gradients.items():
        encoder = getattr(policy, name).encoder
        encoder.register_forward_hook(lambda _, inputs, z, norms=norms: watch(norms, z))
    contexts = FAMILY.context_space.normalize(model._last_obs["context"])
    model.learn(24, callback=HyperDiagnostics(every=1), reset_num_timesteps=False)
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


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm(name: str) -> None:
    model = make_of(name)
    perturb(model.policy)
    networks = model.policy.generated_networks()
    assert all(parameter.requires_grad for network in networks.values() for parameter in network.parameters())
    assert list(networks) == NETWORKS.get(name, ["actor", "critic", "critic_2"])
    norms: dict[str, list[float]] = {key: [] for key in networks}

    def watch(key: str, z: torch.Tensor) -> None:
        if z.requires_grad:
            z.register_hook(lambda g: norms[key].append(g.square().sum().sqrt().item()))

    for key, network in networks.items():
        network.encoder.register_forward_hook(lambda _, inputs, z, key=key: watch(key, z))
    diagnostics = HyperDiagnostics()
    model.learn(64, callback=diagnostics)
    contexts = torch.tensor(diagnostics.contexts)
    assert len(contexts) >= 4
    values = logged(model)
    assert len(values) == 5 * len(networks)
    for i, (key, network) in enumerate(networks.items()):
        z = network.encoder(contexts)
        parts = [network] if isinstance(network, HyperNetwork) else network.networks
        theta = torch.cat([w.flatten(1) for part in parts for w in part.head.weights(z).values()], dim=1)  # (K, P)
        prefix = f"hyper/{key}_" if i else "hyper/"
        assert values[f"{prefix}weight_variance"] == pytest.approx(theta.var(0, correction=0).mean().item(), rel=1e-3)
        assert values[f"{prefix}embedding_norm"] == pytest.approx(z.norm(dim=1).mean().item(), rel=1e-3)
        assert values[f"{prefix}embedding_grad_norm"] == pytest.approx(np.mean(norms[key]), rel=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_collapse_is_announced_with_every_algorithm(name: str) -> None:
    model = make_of(name)
    perturb(model.policy)
    first, network = next(iter(model.policy.generated_networks().items()))

    class Flatten(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps >= 64:
                for parameter_name, parameter in network.named_parameters():
                    if "generator" in parameter_name:
                        torch.nn.init.zeros_(parameter)

        def _on_training_end(self) -> None:
            self._on_rollout_start()

    message = f"the {first}'s hypernetwork has collapsed after .* steps: the weights' variance over contexts fell"
    with pytest.warns(UserWarning, match=message) as caught:
        model.learn(128, callback=[Flatten(), HyperDiagnostics(every=32)])
    assert len([warning for warning in caught if first in str(warning.message)]) == 1


def test_measurements_are_some_way_apart() -> None:
    taken = []

    class Look(HyperDiagnostics):
        def _measure(self) -> None:
            taken.append(self.num_timesteps)
            super()._measure()

    make().learn(24 * 5, callback=Look(every=40))  # a rollout is 24 steps
    assert taken == [48, 96, 120]


@pytest.mark.parametrize("policy", [ConcatPolicy, UnawarePolicy])
def test_nothing_is_logged_without_a_hypernetwork(policy: type[ContextPolicy]) -> None:
    assert not logged(make(policy).learn(48, callback=HyperDiagnostics(every=1)))


def test_a2c_on_a_flat_observation() -> None:
    env = DummyVecEnv([lambda: FlattenObservation(gym.make("hyperrl/Pendulum-v0"))] * 3)  # its context comes last
    model = A2C(HyperPolicy, env, n_steps=4, policy_kwargs=dict(context_slice=(-4, None)), seed=0, device="cpu")
    diagnostics = HyperDiagnostics(every=1)
    model.learn(24, callback=diagnostics)
    assert len(logged(model)) == 10
    normalized = model.policy._context(torch.as_tensor(model._last_obs))  # no episode has ended  # pyright: ignore[reportCallIssue]
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
            torch.nn.init.constant_(self.model.policy.actor.head.generator.weight, self.value)  # pyright: ignore[reportAttributeAccessIssue]

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
        make().learn(120, callback=[Damage(value, at), HyperDiagnostics(every=1)])
    assert len(caught) == 1


def test_a_training_that_does_not_collapse_is_not_announced() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hyperrl.train(FAMILY, "hyper-ppo", 8192 * 3, device="cpu")
        make(n_envs=1, n_steps=50, batch_size=50).learn(
            250, callback=HyperDiagnostics(every=1)
        )  # one context, later two


def test_training_is_as_it_is_without() -> None:
    with_it, without = (make().learn(72, callback=callback) for callback in (HyperDiagnostics(every=1), None))
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

    diagnostics = HyperDiagnostics(contexts=8, every=1)
    make(n_envs=3, n_steps=100).learn(300 * 8, callback=[diagnostics, Look()])
    assert len(seen[0]) == 3
    assert len(seen[-1]) == 8
    assert all(later[: len(earlier)] == earlier for earlier, later in zip(seen, seen[1:], strict=False))
