"""DevicePPO is Stable-Baselines3's PPO: the same rollouts, the same updates, the same files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves
from toy import perturb

import hyperrl
from hyperrl.device import DevicePPO
from hyperrl.device.acting import Acting
from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.networks import Networks
from hyperrl.device.statistics import Normalizer
from hyperrl.device.stepping import _Tapes
from hyperrl.device.updating import _Minibatch, _OptimizerStep, _settings
from hyperrl.hypernet import HEADS
from hyperrl.hypernet.heads import FactoredHead
from hyperrl.policies import ContextExtractor, FilmPolicy
from hyperrl.policies.tracing import unvalidated
from hyperrl.simulation import BatchedVecEnv, VecLastStep, find_tensor_env
from hyperrl.simulation.simulator import Step

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")  # the last one is smaller

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=24, n_epochs=2, seed=0, device="cpu", learning_rate=1e-2)
POLICIES: dict[str, tuple[Any, dict[str, Any]]] = {
    **{head: (hyperrl.HyperPolicy, dict(head=head, net_arch=[8, 8])) for head in HEADS},
    "shared encoder": (hyperrl.HyperPolicy, dict(share_encoder=True, layer_norm=True, net_arch=[8, 8])),
    "concat": (hyperrl.ConcatPolicy, {}),
    "film": (FilmPolicy, {}),
    "unaware": (hyperrl.UnawarePolicy, {}),
    "bounded": (hyperrl.HyperPolicy, dict(bounds_loss=0.5, net_arch=[8, 8])),
    "bounded concat": (hyperrl.ConcatPolicy, dict(bounds_loss=0.5, net_arch=[8, 8])),
    "SB3's": ("MultiInputPolicy", dict(features_extractor_class=ContextExtractor)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "values clipped": dict(clip_range_vf=0.05),
    "small divergence": dict(target_kl=1e-4, n_epochs=5),
    "plain advantages": dict(normalize_advantage=False, vf_coef=1.0, max_grad_norm=1e9),
    "gSDE": dict(use_sde=True),
    "entropy": dict(ent_coef=0.1, clip_range=0.01),
}


def make(algorithm: Any, family: str, policy: str, n: int = 8, normalized: Any = None, **options: Any) -> Any:
    cls, policy_kwargs = POLICIES[policy]
    vec_env: Any = hyperrl.load_family(family).vec_env(n, seed=1)
    if normalized is not None:
        vec_env = VecNormalize(vec_env, gamma=0.9, **normalized)
    return algorithm(cls, vec_env, policy_kwargs=policy_kwargs, **SMALL | options)


def rolled_out(model: Any) -> Any:
    """The model with a full buffer."""
    _, callback = model._setup_learn(1, None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def in_float64(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # SB3 and hyperrl make floats of observations
    model.policy.double()
    perturb(model.policy)  # generated weights then differ, and the ratio of the first minibatch is not one
    buffer = model.rollout_buffer
    for tensors in (buffer.tensors, buffer.observed):
        tensors |= {name: entry.double() for name, entry in tensors.items() if entry.dtype == torch.float32}
    buffer._tables = {}
    return model


@pytest.mark.parametrize(
    ("family", "policy", "options"),
    [("pendulum", policy, "usual") for policy in POLICIES]
    + [("pendulum", "low_rank", options) for options in OPTIONS if options != "usual"]
    + [("cartpole", "full", "entropy"), ("cartpole", "unaware", "values clipped"), ("cartpole", "concat", "entropy")],
)
def test_an_update_is_stable_baselines3s(
    family: str, policy: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (rolled_out(make(DevicePPO, family, policy, **OPTIONS[options])) for _ in range(2))
    for model in (ours, theirs):
        torch.manual_seed(0)
        in_float64(model, monkeypatch)
        if policy.startswith("bounded"):
            with torch.no_grad():
                (getattr(model.policy, "action_net", None) or model.policy.actor.head.base[-1]).bias += 3
            mean = model.policy.get_distribution(model.policy.obs_to_tensor(model._last_obs)[0])
            assert (model.policy.outside(mean) > 0).any()
        np.random.seed(0)  # noqa: NPY002
        (DevicePPO if model is ours else PPO).train(model)
    assert ours._is_recorded
    assert {rows for rows, *_ in ours._updates._minibatches} <= {24, 128 % 24}
    assert ours._n_updates == theirs._n_updates
    for mine, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-6)
    assert ours.logger.name_to_value.keys() == theirs.logger.name_to_value.keys()
    for key, value in theirs.logger.name_to_value.items():
        assert_allclose(ours.logger.name_to_value[key], value, rtol=1e-6, atol=1e-9, err_msg=key)


NORMALIZED: dict[str, Any] = dict(norm_obs_keys=["observation"], clip_obs=1.5, clip_reward=0.3)


@pytest.mark.parametrize("normalized", [None, NORMALIZED, dict(norm_obs=False)])
@pytest.mark.parametrize(("family", "n_steps"), [("pendulum", 210), ("cartpole", 40)])
def test_a_rollout_is_stable_baselines3s(family: str, n_steps: int, normalized: Any) -> None:
    """Episodes end by their limit in one family, by termination in the other. A pendulum makes much of rounding."""
    models = [make(cls, family, "low_rank", 4, normalized, n_steps=n_steps) for cls in (DevicePPO, PPO)]
    for model in models:
        torch.manual_seed(0)
        perturb(model.policy)
        rolled_out(model)
    ours, theirs = models
    mine, others = ours.rollout_buffer, theirs.rollout_buffer
    for name in ("actions", "values", "log_probs", "rewards", "advantages", "returns", "episode_starts"):
        expected = getattr(others, name)
        found = getattr(mine, name).reshape(expected.shape)
        assert_allclose(found, expected, rtol=5e-3, atol=2e-3, err_msg=name)
        assert_allclose(found[:10], expected[:10], rtol=1e-3, atol=1e-4, err_msg=name)
    for key, entry in others.observations.items():
        assert_allclose(mine.observations[key], entry, rtol=5e-3, atol=5e-3)
    assert mine.episode_starts[1:].any()
    if normalized is not None:
        one, other = ours.env.ret_rms, theirs.env.ret_rms
        assert_allclose([one.mean, one.var, one.count], [other.mean, other.var, other.count], rtol=1e-4)
        assert_allclose(ours.env.returns, theirs.env.returns, rtol=1e-3)
        if normalized is NORMALIZED:
            for name in ("mean", "var"):
                one, other = (getattr(model.env.obs_rms["observation"], name) for model in models)
                assert_allclose(one, other, rtol=1e-4)
    assert [e["r"] for e in ours.ep_info_buffer] == pytest.approx([e["r"] for e in theirs.ep_info_buffer], rel=1e-4)
    assert_allclose(ours._last_obs["observation"], theirs._last_obs["observation"], rtol=1e-4, atol=1e-4)


def test_statistics_are_vec_normalizes() -> None:
    """Of the same steps, which rollouts are not to the last digit: a pendulum makes much of a rounding error."""
    one: Any
    other: Any
    one, other = (
        VecNormalize(hyperrl.load_family("cartpole").vec_env(8, seed=1), gamma=0.9, **NORMALIZED) for _ in range(2)
    )
    for vec_env in (one, other):
        vec_env.seed(1)
        vec_env.reset()
    normalizer = Normalizer([one], torch.device("cpu"))
    generator = np.random.default_rng(0)
    for _ in range(50):
        actions = generator.integers(2, size=8)
        step = normalizer(one.venv.step_tensors(torch.from_numpy(actions)))
        observation, rewards, dones, infos = other.step(actions)
        assert_allclose(step.reward, rewards, rtol=1e-6)
        assert_allclose(step.observation["observation"], observation["observation"], rtol=1e-5, atol=1e-6)
        for i in np.flatnonzero(dones):
            for key, entry in infos[i]["terminal_observation"].items():
                assert_allclose(step.last[key][i], entry, rtol=1e-5, atol=1e-6)
    normalizer.export()
    for mine, expected in ((one.ret_rms, other.ret_rms), (one.obs_rms["observation"], other.obs_rms["observation"])):
        for name, value in vars(expected).items():
            assert_allclose(getattr(mine, name), value, rtol=1e-6, atol=1e-8)
    assert_allclose(one.returns, other.returns, rtol=1e-6)
    assert_allclose(one.get_original_reward(), other.get_original_reward())
    assert_allclose(one.get_original_obs()["observation"], other.get_original_obs()["observation"])


def test_ratios_are_one_in_the_first_minibatch() -> None:
    model = make(DevicePPO, "pendulum", "full", n_epochs=1, batch_size=128).learn(1)
    assert abs(model.logger.name_to_value["train/approx_kl"]) < 1e-6
    assert model.logger.name_to_value["train/clip_fraction"] == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_minibatch_is_one_graph(policy: str) -> None:
    """Traced without values, in which numbers and sizes that depend on them would be symbols."""
    model = rolled_out(make(DevicePPO, "cartpole", policy))
    model.policy.set_training_mode(True)
    buffer, (_, switches) = model.rollout_buffer, _settings(model)
    table = buffer.tabulate() if isinstance(model.policy, hyperrl.HyperPolicy) else None
    minibatch = _Minibatch(Networks([model.policy]), buffer, 48, table, switches)
    with unvalidated():
        graph = make_fx(lambda: minibatch.compute(), tracing_mode="fake", _allow_non_fake_inputs=True)().graph
    values = tree_leaves([node.meta["val"] for node in graph.nodes if node.meta.get("val") is not None])
    assert len(values) > 100
    assert all(isinstance(value, Tensor) and all(type(size) is int for size in value.shape) for value in values)


@pytest.mark.parametrize(
    ("family", "policy"),
    [("pendulum", policy) for policy in POLICIES]
    + [(name, "low_rank") for name in ("cartpole", "ode", "quadrotor", "tanks", "mountain_car")],
)
def test_no_operation_mixes_devices(family: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device tensors have shapes and no values: a tensor elsewhere, or a look at a value, is an error."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # it does not know this device
    n, meta = 8, torch.device("meta")
    model = make(DevicePPO, family, policy, n, NORMALIZED)
    model.policy.to(meta)
    model.device = meta
    vec_env: Any = hyperrl.load_family(family).vec_env(n, device="meta")
    simulator = vec_env.simulator
    buffer = TensorRolloutBuffer(4, model.observation_space, model.action_space, meta, n_envs=n)
    normalizer = Normalizer([model.env], meta)
    observation = simulator.reset()
    with torch.no_grad(), unvalidated():
        act = Acting(model.policy, observation, is_recorded=True)
        # Other heads generate for distinct contexts, whose number depends on values.
        generates = policy in HEADS and not isinstance(model.policy.actor.head, FactoredHead)
        assert (act._tape is None) == generates
        tapes: Any = None
        for _ in range(0 if generates else 4):
            sampled, applied, values, log_probs = act(observation, has_new_contexts=True)
            tapes = tapes or _Tapes(simulator, normalizer, applied)
            moved, _ = tapes._first.replay()
            simulator.draw_ahead()
            _, step = tapes._follow(moved, any_ended=True)
            buffer.add(observation, sampled, values, log_probs, step)
            observation = step.observation
        buffer.finish(torch.zeros(n, dtype=torch.bool, device=meta), torch.zeros(n, 1, device=meta))
    settings, switches = _settings(model)
    is_hyper = isinstance(model.policy, hyperrl.HyperPolicy)
    table = torch.zeros(1, 16, len(simulator.context_space), device=meta) if is_hyper else None
    minibatch = _Minibatch(Networks([model.policy]), buffer, 24, table, switches)
    step_of = _OptimizerStep(model.policy.optimizer)
    minibatch.set(settings)
    with unvalidated():
        for _ in range(3):  # as usual, recorded, replayed
            assert minibatch(torch.zeros(1, 24, dtype=torch.int64, device=meta), is_shown=False).device == meta
            minibatch.give_gradients(0)
            step_of(minibatch.gradient[0])


@pytest.mark.gpu
@pytest.mark.parametrize("policy", POLICIES)
def test_a_training_on_the_device_is_that_on_the_processor(policy: str) -> None:
    """From the same buffer, in the same order: parameters after an update; and it trains on."""
    cls, policy_kwargs = POLICIES[policy]
    cpu = rolled_out(make(DevicePPO, "pendulum", policy))
    vec_env = hyperrl.load_family("pendulum").vec_env(8, seed=1, device="cuda")
    cuda: Any = rolled_out(DevicePPO(cls, vec_env, policy_kwargs=policy_kwargs, **SMALL | dict(device="cuda")))
    cuda.policy.load_state_dict(cpu.policy.state_dict())
    mine, other = cuda.rollout_buffer, cpu.rollout_buffer
    for its, given in ((mine.tensors, other.tensors), (mine.flags, other.flags), (mine.observed, other.observed)):
        for name, entry in its.items():
            entry.copy_(given[name])
    for model in (cpu, cuda):
        np.random.seed(0)  # noqa: NPY002
        model.train()
    assert cuda._is_recorded
    assert all(each.tape._graph is not None for each in cuda._updates._minibatches.values())
    for a, b in zip(cuda.policy.parameters(), cpu.policy.parameters(), strict=True):
        assert_allclose(a.detach().cpu(), b.detach(), rtol=1e-3, atol=1e-4)
    assert cuda.learn(512).num_timesteps == 512
    assert cuda._stepping.is_recorded


def test_contexts_outside_the_training_range_are_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    family = hyperrl.load_family("pendulum")
    outside = family.context_space.sample("extrapolation", 4, 0)
    models: list[Any] = []
    for _ in range(2):
        vec_env = family.vec_env(
            8, seed=1, contexts=np.concatenate([outside, family.context_space.sample("train", 4, 0)])
        )
        models.append(rolled_out(DevicePPO(hyperrl.HyperPolicy, vec_env, **SMALL)))
    for model, cls in zip(models, (DevicePPO, PPO), strict=True):
        torch.manual_seed(0)
        in_float64(model, monkeypatch)
        np.random.seed(0)  # noqa: NPY002
        cls.train(model)
    assert not any(key[2].is_inside for key in models[0]._updates._minibatches)
    for mine, other in zip(*(model.policy.parameters() for model in models), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-6)


def test_the_table_holds_each_context_of_the_rollout() -> None:
    buffer = rolled_out(make(DevicePPO, "cartpole", "low_rank", n_steps=40)).rollout_buffer
    (table,) = buffer.tabulate()
    contexts = buffer.observed["context"].flatten(0, 1)
    assert torch.equal(table[buffer.context_index], contexts)
    assert len(torch.unique(buffer.context_index)) == len(torch.unique(contexts, dim=0)) > 8
    assert len(table) == 2 ** int(np.ceil(np.log2(len(torch.unique(contexts, dim=0)))))


def test_a_large_buffer_takes_little_memory() -> None:
    """16,384 environments × 32 steps: 95 bytes a row, far from 2 GiB."""
    vec_env = hyperrl.load_family("pendulum").vec_env(1)
    buffer = TensorRolloutBuffer(32, vec_env.observation_space, vec_env.action_space, "cpu", n_envs=16_384)
    stored = (buffer.tensors, buffer.flags, buffer.observed, buffer.last)
    tensors = [buffer.context_index, *(tensor for group in stored for tensor in group.values())]
    assert sum(tensor.nbytes for tensor in tensors) == 95 * 32 * 16_384


def test_each_loads_the_others_zips(tmp_path: Path) -> None:
    first = make(DevicePPO, "pendulum", "low_rank").learn(128)
    first.save(tmp_path / "device.zip")
    second = PPO.load(tmp_path / "device.zip", env=first.env, device="cpu")
    assert isinstance(second.rollout_buffer, DictRolloutBuffer)
    second.learn(128, reset_num_timesteps=False).save(tmp_path / "sb3.zip")
    third: Any = DevicePPO.load(tmp_path / "sb3.zip", env=first.env, device="cpu")
    assert third.num_timesteps == 256
    observation = first.env.reset()
    expected = second.predict(observation, deterministic=True)[0]
    assert_allclose(third.predict(observation, deterministic=True)[0], expected)
    assert third.learn(128, reset_num_timesteps=False).num_timesteps == 384


class Watch(BaseCallback):
    """Stops at a step, and keeps what a step offers."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.events: list[str] = []

    def _on_rollout_start(self) -> None:
        self.events.append("start")

    def _on_rollout_end(self) -> None:
        self.events.append("end")

    def _on_step(self) -> bool:
        assert {"obs_tensor", "actions", "clipped_actions", "rewards", "dones", "infos", "new_obs"} <= set(self.locals)
        assert isinstance(self.locals["dones"], np.ndarray)
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            assert ("terminal_observation" in info) == done
        return self.n_calls < self.last


def test_callbacks_are_called_as_by_ppo() -> None:
    watch = Watch(40)
    model = make(DevicePPO, "cartpole", "unaware").learn(10_000, callback=watch)
    assert watch.events == ["start", "end", "start", "end", "start"]
    assert (watch.n_calls, model.num_timesteps) == (40, 320)
    assert_allclose(model._last_obs["observation"], model.env.simulator.state, rtol=1e-6)  # it goes on from there


class Foreign(DummyVecEnv):
    """Environments of another package with the tensor interface: a point that is to stay near the origin."""

    metadata: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, n: int) -> None:
        box = spaces.Box(-10, 10, (2,))
        self.num_envs, self.action_space = n, spaces.Box(-1, 1, (2,))
        self.observation_space = spaces.Dict(observation=box, context=spaces.Box(0, 1, (1,)))
        self.render_mode, self._seeds = None, [None] * n  # pyright: ignore[reportAttributeAccessIssue]
        self.lengths = torch.zeros(n, dtype=torch.int64)

    def reset(self) -> Any:
        self.state, self.context = torch.randn(self.num_envs, 2), torch.rand(self.num_envs, 1)
        return {"observation": self.state.numpy(), "context": self.context.numpy()}

    def step_tensors(self, actions: Tensor) -> Step:
        assert actions.shape == (self.num_envs, 2)
        assert (actions.abs() <= 1).all()
        last = {"observation": self.state + actions * self.context, "context": self.context}
        reward, lengths = -last["observation"].square().sum(1).double(), self.lengths + 1
        ended = lengths >= 5
        self.lengths = lengths.masked_fill(ended, 0)
        self.state = torch.where(ended[:, None], torch.randn(self.num_envs, 2), last["observation"])
        self.context = torch.where(ended[:, None], torch.rand(self.num_envs, 1), self.context)
        now = {"observation": self.state, "context": self.context}
        return Step(now, reward, ended & False, ended, ended, last, reward, lengths, ended & False)


def test_foreign_environments_with_the_tensor_interface() -> None:
    model: Any = DevicePPO(hyperrl.HyperPolicy, Foreign(8), **SMALL | dict(n_steps=32))
    model.learn(512)
    buffer = model.rollout_buffer
    assert len(buffer.cut_short()[0]) == 8 * 6
    assert torch.equal(buffer.tabulate()[0][buffer.context_index], buffer.observed["context"].flatten(0, 1))


@pytest.mark.parametrize("options", [dict(use_sde=True, sde_sample_freq=4), dict(policy_kwargs=dict(similarity=0.1))])
def test_what_is_not_recorded_trains_too(options: dict[str, Any]) -> None:
    model = DevicePPO(hyperrl.HyperPolicy, hyperrl.load_family("pendulum").vec_env(8), **SMALL | options)
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(128)
    assert any(not torch.equal(p, q) for p, q in zip(before, model.policy.parameters(), strict=True))


def test_elsewhere_it_is_ppo(tmp_path: Path) -> None:
    family = hyperrl.load_family("pendulum")
    model: Any = DevicePPO(hyperrl.UnawarePolicy, VecLastStep(family.vec_env(2)), **SMALL)
    assert type(model.learn(32).rollout_buffer) is DictRolloutBuffer
    model = DevicePPO(hyperrl.UnawarePolicy, family.vec_env(2), **SMALL).learn(32)
    assert isinstance(model.env, BatchedVecEnv)
    for backend, buffer in (("gymnasium", DictRolloutBuffer), ("batched", TensorRolloutBuffer)):
        model.set_env(family.vec_env(2, backend=backend))
        assert type(model.learn(32).rollout_buffer) is buffer
    model.save(tmp_path / "x.zip")
    loaded: Any = DevicePPO.load(tmp_path / "x.zip", device="cpu")
    loaded.set_env(family.vec_env(2))
    assert type(loaded.learn(32).rollout_buffer) is TensorRolloutBuffer
    assert type(hyperrl.specialize(make(DevicePPO, "pendulum", "full"), {"length": 0.7})) is PPO


def test_environments_without_tensors_are_named() -> None:
    vec_env = hyperrl.load_family("pendulum").vec_env(2)
    for other in (DummyVecEnv([hyperrl.load_family("pendulum").make]), VecLastStep(vec_env)):
        with pytest.raises(ValueError, match=f"expected environments that step tensors, .* got {type(other).__name__}"):
            find_tensor_env(other)


def test_a_loss_that_is_not_finite_is_reported() -> None:
    model = make(DevicePPO, "pendulum", "unaware", vf_coef=float("inf"))
    with pytest.raises(ValueError, match=r"the loss is \w+ after 128 steps: a lower learning rate"):
        model.learn(128)
