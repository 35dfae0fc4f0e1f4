"""DeviceSAC is Stable-Baselines3's SAC: the same gradient steps, the same files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecNormalize
from toy import perturb

import hyperrl
from hyperrl.device import DeviceSAC
from hyperrl.device import sac as device_sac
from hyperrl.hypernet import HEADS
from hyperrl.policies import ContextExtractor, HyperSACPolicy
from hyperrl.training import HyperDiagnostics

RECORDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "low_rank": (HyperSACPolicy, dict(head="low_rank")),
    "modulated": (HyperSACPolicy, dict(head="modulated", layer_norm=True)),
    "shared extractor": (HyperSACPolicy, dict(share_features_extractor=True)),
    "three critics": (HyperSACPolicy, dict(n_critics=3, encoder="cos_sin")),
    "concat": ("MultiInputPolicy", {}),
    "unaware": ("MultiInputPolicy", dict(features_extractor_class=ContextExtractor)),
}
OTHERS: dict[str, dict[str, Any]] = {
    **{head: dict(policy_kwargs=dict(head=head)) for head in HEADS if head not in ("low_rank", "modulated")},
    "gSDE": dict(use_sde=True),
    "similarity": dict(policy_kwargs=dict(similarity=0.1)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "fixed entropy": dict(ent_coef=0.2),
    "slow target": dict(target_update_interval=3, tau=0.3),
    "falling rate": dict(learning_rate=lambda remaining: 1e-2 * remaining),
    "normalised": dict(is_normalized=True),
}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def make(algorithm: Any, policy: str = "low_rank", **options: Any) -> Any:
    cls, policy_kwargs = RECORDED[policy]
    vec_env: Any = hyperrl.load_family("pendulum").vec_env(4, seed=1)
    if options.pop("is_normalized", False):
        vec_env = VecNormalize(vec_env, norm_obs_keys=["observation"])
    kwargs = dict(net_arch=[8, 8]) | policy_kwargs | options.pop("policy_kwargs", {})
    usual: dict[str, Any] = dict(
        seed=0, device="cpu", learning_starts=64, buffer_size=1000, batch_size=32, gradient_steps=2, learning_rate=1e-2
    )
    return algorithm(cls, vec_env, policy_kwargs=kwargs, **usual | options)


@pytest.mark.parametrize(
    ("policy", "options"),
    [(policy, "usual") for policy in RECORDED] + [("low_rank", options) for options in OPTIONS if options != "usual"],
)
def test_gradient_steps_are_stable_baselines3s(policy: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # SB3 and hyperrl make floats of observations
    models = []
    for cls in (DeviceSAC, SAC):
        model = make(cls, policy, **OPTIONS[options])
        models.append(model.learn(64))  # fills the buffer
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        model.policy.double()
        perturb(model.policy)
        for gradient_steps in (1, 3, 4):
            model.train(gradient_steps, batch_size=24)
    ours, theirs = models
    assert ours._is_recorded
    assert len(ours._steps) == 1
    assert ours._n_updates == theirs._n_updates
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-6)
    if ours.log_ent_coef is not None:
        assert_allclose(ours.log_ent_coef.item(), theirs.log_ent_coef.item(), atol=1e-6)
    mine, others = ours.logger.name_to_value, theirs.logger.name_to_value
    assert mine.keys() == others.keys()
    for key, value in others.items():
        assert_allclose(mine[key], value, rtol=1e-5, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("policy", ["low_rank", "concat"])
def test_a_training_is_stable_baselines3s(policy: str) -> None:
    ours, theirs = (make(cls, policy).learn(200) for cls in (DeviceSAC, SAC))
    assert ours.num_timesteps == theirs.num_timesteps
    assert ours._n_updates == theirs._n_updates > 50
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_not_recorded_is_trained_by_stable_baselines3(case: str) -> None:
    ours, theirs = (make(cls, **OTHERS[case]).learn(80) for cls in (DeviceSAC, SAC))
    assert not ours._is_recorded
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_contexts_outside_the_training_range_are_recorded_too() -> None:
    """The encoder goes on there, which is another list of operations than inside."""
    models = []
    for cls in (DeviceSAC, SAC):
        model = make(cls).learn(64)
        models.append(model)
        context = model.replay_buffer.observations["context"]
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        perturb(model.policy)
        model.train(1, batch_size=24)
        context *= 3.0
        model.train(2, batch_size=24)
    ours, theirs = models
    assert sorted(is_inside for _, is_inside, *_ in ours._steps) == [False, True]
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-4)


def test_each_loads_the_others_zips(tmp_path: Path) -> None:
    ours = make(DeviceSAC).learn(100)
    ours.save(tmp_path / "ours.zip")
    theirs = SAC.load(tmp_path / "ours.zip", env=ours.env, device="cpu")
    assert type(theirs) is SAC
    theirs.learn(80)
    theirs.save(tmp_path / "theirs.zip")
    again = DeviceSAC.load(tmp_path / "theirs.zip", env=ours.env, device="cpu")
    observation = ours.env.reset()
    expected = theirs.predict(observation, deterministic=True)[0]
    assert_array_equal(again.predict(observation, deterministic=True)[0], expected)
    again.learn(80)
    assert len(again._steps) == 1


def test_parameters_that_lie_elsewhere_are_those_that_learn() -> None:
    """What was recorded of where they were is of no use."""
    model = make(DeviceSAC).learn(80)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    for parameter in model.policy.parameters():
        parameter.data = parameter.data.clone()
    model.train(2, batch_size=32)
    assert len(model._steps) == 1
    learnt = zip(model.policy.parameters(), before, strict=True)
    assert sum(not torch.equal(parameter, other) for parameter, other in learnt) > len(before) / 2


def test_hooks_see_some_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_sac, "SHOWN", 20)
    model, seen = make(DeviceSAC), []
    model.actor.network.encoder.register_forward_hook(lambda *_: seen.append(model._n_updates))
    model.learn(64)
    del seen[:]
    for _ in range(20):
        model.train(4, batch_size=24)
    first = model._n_updates - 80
    assert {n - first for n in seen} == {n for n in range(0, 80, 4) if -(n + first) % 20 < 4}
    assert model._is_recorded


def test_diagnostics_are_logged() -> None:
    model = make(DeviceSAC, learning_rate=1e-3).learn(1200, callback=HyperDiagnostics(every=100))
    logged = model.logger.name_to_value
    assert {"hyper/weight_norm", "hyper/critic_weight_norm", "hyper/effective_rank"} <= logged.keys()
    assert model._is_recorded


def test_a_policy_whose_operations_depend_on_values_is_trained_too() -> None:
    class Branching(ContextExtractor):
        def forward(self, observations: Any) -> torch.Tensor:
            features = super().forward(observations)
            return features if bool(features.sum() > 0) else features * 1.0

    model = make(DeviceSAC, "unaware", policy_kwargs=dict(features_extractor_class=Branching))
    assert model._is_recorded
    model.learn(100)
    assert not model._is_recorded
    assert model._n_updates > 0


@pytest.mark.gpu
@pytest.mark.parametrize("policy", RECORDED)
def test_gradient_steps_are_stable_baselines3s_on_a_gpu(policy: str) -> None:
    models = []
    for cls in (DeviceSAC, SAC):
        model = make(cls, policy, device="cuda").learn(64)
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        model.train(3, batch_size=24)
        models.append(model)
    ours, theirs = models
    assert ours._is_recorded
    assert all(tape._graph is not None for step in ours._steps.values() for tape in step.tapes)
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert_allclose(mine.detach().cpu(), other.detach().cpu(), rtol=1e-3, atol=1e-4)
    assert ours.learn(64).num_timesteps == 64
