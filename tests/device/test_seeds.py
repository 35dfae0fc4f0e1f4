"""Agents side by side are those that training one after another gives."""

from typing import Any

import pytest
import torch
from numpy.testing import assert_allclose
from stable_baselines3.common.vec_env import VecNormalize
from toy import perturb

import hyperrl
from hyperrl.device import DevicePPO
from hyperrl.device.seeds import SideBySide
from hyperrl.policies import FilmPolicy

SMALL: dict[str, Any] = dict(n_steps=20, batch_size=40, n_epochs=4, device="cpu", learning_rate=3e-3)
POLICIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "low_rank": (hyperrl.HyperPolicy, dict(net_arch=[8, 8])),
    "full": (hyperrl.HyperPolicy, dict(head="full", net_arch=[8, 8], share_encoder=True)),
    "film": (FilmPolicy, {}),
    "unaware": (hyperrl.UnawarePolicy, {}),
}


@pytest.mark.parametrize(
    ("name", "policy", "options"),
    [
        ("pendulum", "low_rank", dict(target_kl=2e-3)),  # after which agents stop in different minibatches
        ("cartpole", "low_rank", dict(ent_coef=0.01)),
        ("cartpole", "full", {}),
        ("pendulum", "film", dict(clip_range_vf=0.1)),
        ("cartpole", "unaware", dict(target_kl=2e-3)),
    ],
)
def test_each_learns_what_it_learns_alone(name: str, policy: str, options: dict[str, Any]) -> None:
    family = hyperrl.load_family(name)
    cls, policy_kwargs = POLICIES[policy]

    def make(seed: int) -> DevicePPO:
        vec_env = VecNormalize(family.vec_env(4, seed=seed), norm_obs_keys=["observation"], gamma=0.9)
        model = DevicePPO(cls, vec_env, policy_kwargs=policy_kwargs, seed=seed, **SMALL | options)
        perturb(model.policy)
        return model

    agents = SideBySide(make, [0, 1, 2], family.vec_env(12))
    agents.learn(160)
    mine: Any
    for seed, mine in enumerate(agents.models):
        alone: Any = make(seed).learn(160)
        assert mine._n_updates == alone._n_updates
        assert mine.num_timesteps == alone.num_timesteps == 160
        for one, other in zip(mine.policy.parameters(), alone.policy.parameters(), strict=True):
            assert_allclose(one.detach(), other.detach(), rtol=0, atol=1e-4)
            assert one.untyped_storage().nbytes() == one.numel() * 4  # a file of it holds no other agent's
        assert_allclose(mine.env.ret_rms.var, alone.env.ret_rms.var, rtol=1e-3)
        assert [e["l"] for e in mine.ep_info_buffer or ()] == [e["l"] for e in alone.ep_info_buffer]
    parameters = [torch.cat([p.detach().flatten() for p in model.policy.parameters()]) for model in agents.models]
    assert not torch.allclose(parameters[0], parameters[1], atol=1e-2)


@pytest.mark.parametrize(
    ("options", "contexts", "message"),
    [
        (dict(use_sde=True), None, "without gSDE"),
        (dict(policy_kwargs=dict(similarity=0.1)), None, "squared_norm and similarity"),
        ({}, 4, "expected environments that draw contexts"),
    ],
)
def test_what_cannot_stand_side_by_side_is_named(options: dict[str, Any], contexts: Any, message: str) -> None:
    family = hyperrl.load_family("pendulum")

    def make(seed: int) -> DevicePPO:
        return DevicePPO(hyperrl.HyperPolicy, family.vec_env(2, contexts=contexts), seed=seed, **SMALL | options)

    with pytest.raises(ValueError, match=message):
        SideBySide(make, [0, 1], family.vec_env(4))
