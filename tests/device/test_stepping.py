"""Steps of environments that are recorded are those that are not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from packaged import FAMILIES, IN_TORCH
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

import hyperrl
from hyperrl.device import DevicePPO, ppo, seeds
from hyperrl.device.seeds import SideBySide
from hyperrl.device.stepping import Stepping
from hyperrl.physics.pendulum import Pendulum
from hyperrl.simulation.simulator import Step

N = 5
CPU = torch.device("cpu")


def made(
    family: Any, is_recorded: bool, is_normalized: bool = True, limit: int = 3, device: str = "cpu"
) -> tuple[Any, Stepping]:
    """Environments whose episodes last as many steps as the limit at most."""
    vec_env: Any = family.vec_env(N, seed=1, device=device)
    vec_env.simulator._limit.fill_(limit)
    sources = []
    if is_normalized:
        vec_env = VecNormalize(vec_env, norm_obs_keys=["observation"], gamma=0.9, clip_obs=1.5)
        sources.append(vec_env)
    vec_env.seed(1)
    vec_env.reset()
    return vec_env, Stepping(vec_env.unwrapped, sources, torch.device(device), is_recorded)


def actions_in(vec_env: Any) -> Callable[[], Tensor]:
    space = vec_env.action_space
    space.seed(0)
    return lambda: torch.from_numpy(np.stack([space.sample() for _ in range(N)]))


def same(one: Step, other: Step) -> None:
    for name, mine, its in zip(Step._fields, one, other, strict=True):
        assert_close(mine, its, rtol=1e-6, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("name", IN_TORCH)
def test_recorded_steps_are_those_that_are_not(name: str, is_normalized: bool) -> None:
    """Long enough that each environment needs more episodes than are drawn at once, of three steps or fewer each."""
    family = FAMILIES[name]
    (vec_env, recorded), (_, usual) = (made(family, is_recorded, is_normalized) for is_recorded in (True, False))
    sampled = actions_in(vec_env)
    kept = []
    for _ in range(60):
        actions = sampled()
        one, other = recorded(actions), usual(actions)
        same(one, other)
        kept.append((one.reward, other.reward, one.observation, other.observation))
    assert recorded.is_recorded
    assert not usual.is_recorded
    for mine, its, observed, expected in kept:  # not changed by later steps
        assert_close(mine, its)
        assert_close(observed, expected)
    for stepping in (recorded, usual):
        stepping.export()
    if recorded.normalizer is not None and usual.normalizer is not None:
        one, other = recorded.normalizer.sources[0], usual.normalizer.sources[0]
        np.testing.assert_allclose(one.ret_rms.var, other.ret_rms.var)
        np.testing.assert_allclose(one.get_original_reward(), other.get_original_reward())
        assert_close(one.get_original_obs(), other.get_original_obs())


@pytest.mark.gpu
@pytest.mark.parametrize("name", IN_TORCH)
def test_steps_recorded_on_a_gpu_are_those_that_are_not(name: str) -> None:
    (vec_env, recorded), (_, usual) = (
        made(FAMILIES[name], is_recorded, device="cuda:0") for is_recorded in (True, False)
    )
    sampled = actions_in(vec_env)
    for _ in range(60):
        actions = sampled().cuda()
        same(recorded(actions), usual(actions))
    assert recorded.is_recorded


@pytest.mark.parametrize("change", ["reset", "seed", "steps elsewhere"])
def test_what_changes_between_steps_counts(change: str) -> None:
    (one, recorded), (other, usual) = (
        made(hyperrl.load_family("cartpole"), is_recorded) for is_recorded in (True, False)
    )
    sampled = actions_in(one)
    for i in range(20):
        if i == 10:
            for vec_env in (one, other):
                if change == "seed":
                    vec_env.seed(7)
                if change == "steps elsewhere":
                    vec_env.venv.step(np.ones(N, dtype=np.int64))
                else:
                    vec_env.reset()
            for stepping in (recorded, usual):
                assert stepping.normalizer is not None
                stepping.normalizer.load()
        actions = sampled()
        same(recorded(actions), usual(actions))


def test_other_settings_need_other_recordings() -> None:
    vec_env, stepping = made(hyperrl.load_family("pendulum"), True)
    assert stepping.serves(vec_env.venv, [vec_env])
    assert not stepping.serves(vec_env.venv, [])
    assert not stepping.serves(hyperrl.load_family("pendulum").vec_env(N), [vec_env])
    vec_env.training = False
    assert not stepping.serves(vec_env.venv, [vec_env])


def test_a_state_that_diverges_is_named() -> None:
    vec_env, stepping = made(hyperrl.load_family("pendulum"), True)
    actions = torch.zeros(N, 1)
    stepping(actions)
    before = vec_env.venv.simulator.state[2].tolist()
    actions[2] = torch.nan
    with pytest.raises(ValueError, match="environment 2: the state is no longer finite") as raised:
        stepping(actions)
    assert str(before) in str(raised.value)


class Foreign(Pendulum):
    """It could do more than tensors show."""


class Undecided(Pendulum):
    """Its operations depend on values."""

    def step(self, state: Tensor, action: Tensor, c: Any) -> tuple[Tensor, Tensor, Tensor]:
        if state[0, 0] > 0:
            state = state + 0
        return super().step(state, action, c)


Undecided.__module__ = "hyperrl.physics.undecided"


@pytest.mark.parametrize("physics", [Foreign, Undecided])
def test_physics_that_cannot_be_recorded_steps_as_usual(physics: Any) -> None:
    family = hyperrl.load_family("pendulum")
    (vec_env, tried), (_, usual) = (made(family, is_recorded) for is_recorded in (True, False))
    vec_env.venv.simulator.physics = physics()
    tried = Stepping(vec_env.venv, [vec_env], CPU, is_recorded=True)
    sampled = actions_in(vec_env)
    for _ in range(5):
        actions = sampled()
        same(tried(actions), usual(actions))
    assert not tried.is_recorded


@pytest.mark.parametrize("limit", [3, 1])
def test_steps_are_brought_to_the_learners_device(limit: int) -> None:
    """MuJoCo's environments stay on the CPU when the learner is elsewhere. The meta device has no values."""
    vec_env, _ = made(hyperrl.load_family("pendulum"), is_recorded=False, limit=limit)
    stepping = Stepping(vec_env.venv, [vec_env], torch.device("meta"), is_recorded=True)
    step = stepping(torch.zeros(N, 1))
    assert {tensor.device.type for tensor in tree_leaves(step)} == {"meta"}
    assert (step.last is step.observation) == (limit == 3)
    assert not stepping.is_recorded


def test_contexts_that_switch_are_not_recorded() -> None:
    vec_env: Any = hyperrl.load_family("pendulum").vec_env(N, seed=1, switch=2)
    vec_env.reset()
    stepping = Stepping(vec_env, [], CPU, is_recorded=True)
    assert stepping(torch.zeros(N, 1)).reward.shape == (N,)
    assert not stepping.is_recorded


def recording(env: Any, sources: Any, device: Any) -> Stepping:
    return Stepping(env, sources, device, is_recorded=True)


def test_trainings_with_recorded_steps_are_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(seed: int, n_envs: int = 4) -> DevicePPO:
        vec_env: Any = VecNormalize(hyperrl.load_family("cartpole").vec_env(n_envs, seed=seed), norm_obs=False)
        sizes: Any = dict(n_steps=16, batch_size=32, n_epochs=1)
        return DevicePPO(hyperrl.HyperPolicy, vec_env, seed=seed, device="cpu", **sizes)

    usual = make(0).learn(256)
    for module in (ppo, seeds):
        monkeypatch.setattr(module, "Stepping", recording)
    recorded = make(0).learn(256)
    assert recorded._stepping is not None
    assert recorded._stepping.is_recorded
    together = SideBySide(make, [0, 1], hyperrl.load_family("cartpole").vec_env(8))
    together.learn(256)
    assert together._stepping.is_recorded
    for model in (recorded, together.models[0]):
        for mine, expected in zip(model.policy.parameters(), usual.policy.parameters(), strict=True):
            assert_close(mine, expected, rtol=1e-4, atol=1e-5)
