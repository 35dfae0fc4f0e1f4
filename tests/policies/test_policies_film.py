import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO
from toy import toy

import hyperrl
from hyperrl.policies import FilmPolicy

FAMILY = hyperrl.load_family("pendulum")


def make(env: Any = None, **policy_kwargs: Any) -> PPO:
    policy_kwargs = dict(net_arch=[12, 10], embedding=(6,)) | policy_kwargs
    env = FAMILY.vec_env(8, seed=0) if env is None else env
    return PPO(FilmPolicy, env, n_steps=8, batch_size=16, seed=0, device="cpu", policy_kwargs=policy_kwargs)


def outputs(policy: Any, obs: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = {key: torch.as_tensor(entry) for key, entry in obs.items()}
    return policy.get_distribution(tensors).distribution.mean, policy.predict_values(tensors)


def test_all_contexts_start_from_the_same_network() -> None:
    model = make()
    obs: Any = FAMILY.vec_env(8, seed=3).reset()
    same = obs | {"context": np.tile(obs["context"][:1], (8, 1))}
    for x, y in zip(outputs(model.policy, obs), outputs(model.policy, same), strict=True):
        assert_array_equal(x.detach(), y.detach())


def test_hidden_layers_are_scaled_and_shifted() -> None:
    """The formula of the class, written out row by row."""
    model = make()
    torch.manual_seed(0)
    for parameter in model.policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    obs: Any = FAMILY.vec_env(8, seed=3).reset()
    contexts = FAMILY.context_space.normalize(obs["context"])
    means, values = outputs(model.policy, obs)
    for network, output, found in (("actor", "action_net", means), ("critic", "value_net", values)):
        film, last = getattr(model.policy.mlp_extractor, network), getattr(model.policy, output)
        weights = {name: p.detach().double().numpy() for name, p in film.named_parameters()}
        for row in range(8):
            z = np.tanh(weights["encoder.0.weight"] @ contexts[row] + weights["encoder.0.bias"])
            modulation = weights["modulation.weight"] @ z + weights["modulation.bias"]
            gamma, beta = modulation[:22], modulation[22:]
            x = obs["observation"][row].astype(float)
            for i, part in ((0, slice(0, 12)), (1, slice(12, 22))):
                linear = weights[f"layers.{i}.weight"] @ x + weights[f"layers.{i}.bias"]
                x = np.tanh((1 + gamma[part]) * linear + beta[part])
            expected = last.weight.detach().double().numpy() @ x + last.bias.detach().double().numpy()
            assert_allclose(found[row].detach(), expected, rtol=1e-4, atol=1e-5)


def test_training_reaches_the_modulation_of_both_networks() -> None:
    model = make().learn(128)
    for network in (model.policy.mlp_extractor.actor, model.policy.mlp_extractor.critic):
        assert network.modulation.weight.abs().max() > 0  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    obs: Any = FAMILY.vec_env(8, seed=3).reset()
    other = obs | {"context": obs["context"][::-1].copy()}
    for x, y in zip(outputs(model.policy, obs), outputs(model.policy, other), strict=True):
        assert not torch.allclose(x, y)


@pytest.mark.parametrize("options", [dict(), dict(share_features_extractor=False), dict(net_arch=dict(pi=[5], vf=[7]))])
def test_a_saved_model_acts_alike(options: dict[str, Any]) -> None:
    model = make(**options).learn(64)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = PPO.load(file, device="cpu")
    obs: Any = FAMILY.vec_env(8, seed=3).reset()
    for x, y in zip(outputs(model.policy, obs), outputs(loaded.policy, obs), strict=True):
        assert_array_equal(x.detach(), y.detach())
    assert loaded.policy._get_constructor_parameters().keys() == model.policy._get_constructor_parameters().keys()
    assert loaded.policy.embedding == (6,)


def test_it_serves_discrete_actions_and_flat_observations() -> None:
    make(toy("discrete")).learn(16)
    make(toy("box", flat=True), context_slice=(0, 4)).learn(16)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FilmPolicy knows no 'embeding'.*Did you mean 'embedding'"):
        make(embeding=(3,))
    with pytest.raises(ValueError, match="net_arch has none"):
        make(net_arch=[])
    with pytest.raises(ValueError, match=r"widths ≥ 1, got embedding=\[0\]"):
        make(embedding=(0,))
