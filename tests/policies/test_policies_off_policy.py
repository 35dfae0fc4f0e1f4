from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose
from sb3_contrib import QRDQN, TQC, CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from stable_baselines3 import DDPG, DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn
from toy import CONTEXT, IMAGE, VECTOR, observations, perturb, toy

import hyperrl
from hyperrl.hypernet import HEADS, HyperNetwork, mlp
from hyperrl.policies import POLICY_OF, HyperCrossQPolicy, HyperDQNPolicy, HyperSACPolicy, HyperTD3Policy
from hyperrl.policies.context import ContextReader
from hyperrl.policies.hyper_config import HyperConfig
from hyperrl.policies.off_policy import GeneratedNetwork

SIZES: dict[str, Any] = dict(learning_starts=8, buffer_size=200, batch_size=16, device="cpu", seed=0)
TARGETS: dict[str, Any] = {
    "perceptron": lambda: mlp([5, 8, 8, 2], nn.ReLU),
    "normalised": lambda: nn.Sequential(
        BatchRenorm1d(5), nn.Linear(5, 8), nn.ReLU(), BatchRenorm1d(8), nn.Linear(8, 2)
    ),
    "linear": lambda: nn.Sequential(nn.Linear(5, 2)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("head", [head for head in HEADS if head != "adapter"])
def test_each_row_goes_through_the_network_of_its_context(head: str, target: str) -> None:
    """As through plain networks with the generated weights, one a context; normalisation sees all rows."""
    torch.manual_seed(0)
    reader = ContextReader(spaces.Dict(VECTOR))
    network = GeneratedNetwork(TARGETS[target](), 3, reader, HyperConfig(head=head))
    perturb(network)
    contexts = torch.rand(3, 4) * 2 - 1
    index = torch.randint(3, (20,))
    features, actions = torch.randn(20, 3), torch.randn(20, 2, requires_grad=True)
    rows = torch.cat([features, contexts[index], actions], dim=1)

    def plain(x: Tensor) -> Tensor:
        for part in network.parts:
            if isinstance(part, HyperNetwork):
                outputs = x.new_zeros(20, 0)
                for i in range(3):
                    own = torch.func.functional_call(part.head.base, part.weights(contexts[i]), (x,))
                    outputs = own if i == 0 else torch.where((index == i).unsqueeze(1), own, outputs)
                x = outputs
            else:
                x = part(x)
        return x

    for training in (True, False):
        network.train(training)
        torch.testing.assert_close(network(rows), plain(torch.cat([features, actions], dim=1)))
    gradients = [
        torch.autograd.grad(output.square().sum(), actions)[0]
        for output in (network(rows), plain(torch.cat([features, actions], dim=1)))
    ]
    torch.testing.assert_close(*gradients)


def test_contexts_are_found_though_actions_have_a_gradient() -> None:
    """The actor's loss goes through the critic: one set of weights a context there, too."""
    model = SAC(HyperSACPolicy, toy(), policy_kwargs=dict(net_arch=[8]), **SIZES)
    seen = []
    for network in model.critic.q_networks:
        network.networks[0].encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))  # pyright: ignore[reportAttributeAccessIssue]
    model.critic(observations(model), torch.randn(12, 3, requires_grad=True))
    assert seen == [3, 3]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_normalisation_of_crossq_is_common_to_all_contexts(batch_norm: bool) -> None:
    policy_kwargs = dict(context_slice=(0, 4), net_arch=[8, 8], batch_norm=batch_norm)
    model = CrossQ(HyperCrossQPolicy, toy(flat=True), policy_kwargs=policy_kwargs, **SIZES).learn(48)
    layers = [module for module in model.policy.modules() if isinstance(module, BatchRenorm1d)]
    networks = [module for module in model.policy.modules() if isinstance(module, HyperNetwork)]
    assert len(layers) == (9 if batch_norm else 0)  # three networks of three linear layers, one before each
    assert all(layer.ra_mean.abs().sum() > 0 for layer in layers)  # pyright: ignore[reportAttributeAccessIssue]
    assert {len(network.head.shapes) for network in networks} == {2 if batch_norm else 6}
    assert len({id(network.encoder) for network in networks}) == 3


@pytest.mark.parametrize(
    ("algorithm", "policy", "share"),
    [
        (SAC, HyperSACPolicy, True),
        (SAC, HyperSACPolicy, False),
        (TD3, HyperTD3Policy, True),
        (DQN, HyperDQNPolicy, False),
    ],
)
def test_images_beside_the_context(algorithm: Any, policy: Any, share: bool) -> None:
    options: dict[str, Any] = dict(features_extractor_kwargs=dict(cnn_output_dim=8), net_arch=[8])
    if algorithm is not DQN:
        options |= dict(share_features_extractor=share, n_critics=3)
    env = toy("discrete" if algorithm is DQN else "box", IMAGE, n=2)
    model = algorithm(policy, env, policy_kwargs=options, **SIZES)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(24)
    changed = {key for key, value in model.policy.state_dict().items() if not torch.equal(value, before[key])}
    assert any("cnn" in key for key in changed)
    if algorithm is not DQN:
        assert len(model.critic.q_networks) == 3  # pyright: ignore[reportAttributeAccessIssue]
        assert (model.critic.features_extractor is model.actor.features_extractor) == share  # pyright: ignore[reportAttributeAccessIssue]
    if algorithm is SAC and share:  # SB3 leaves a shared extractor to the actor's loss
        trained = {id(p) for group in model.critic.optimizer.param_groups for p in group["params"]}  # pyright: ignore[reportAttributeAccessIssue]
        named = dict(model.critic.named_parameters())  # pyright: ignore[reportAttributeAccessIssue]
        assert trained == {id(p) for key, p in named.items() if "features_extractor" not in key}
        assert len(trained) < len(named)


def test_normalised_images_are_left_as_they_are() -> None:
    entries = {**VECTOR, "camera": spaces.Box(0, 1, (3, 36, 36))}
    model = SAC(HyperSACPolicy, toy(entries=entries, n=1), policy_kwargs=dict(normalize_images=False), **SIZES)
    assert model.predict(toy(entries=entries, n=1).reset())[0].shape == (1, 3)


@pytest.mark.parametrize(("algorithm", "policy"), [(SAC, HyperSACPolicy), (TD3, HyperTD3Policy)])
def test_n_step_returns_on_a_flat_observation(algorithm: Any, policy: Any) -> None:
    kwargs = dict(context_slice=(0, 4), net_arch=[8])
    model = algorithm(policy, toy(flat=True), n_steps=3, policy_kwargs=kwargs, **SIZES).learn(48)
    assert model.replay_buffer.sample(8).discounts.min() < model.gamma


@pytest.mark.parametrize("noise", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
@pytest.mark.parametrize("algorithm", [TD3, DDPG])
def test_action_noise(algorithm: Any, noise: Any) -> None:
    noise = noise(np.zeros(3), np.full(3, 0.2))
    model = algorithm(HyperTD3Policy, toy(), action_noise=noise, policy_kwargs=dict(net_arch=[8]), **SIZES).learn(48)
    assert np.abs(model.replay_buffer.actions).max() <= 1


class GoalWithContext(gym.Wrapper[Any, Any, Any, Any]):
    """Bits to flip, and a context beside observation and goals: which of two actions flips a bit."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        entries: Any = env.observation_space
        self.observation_space = spaces.Dict({**entries.spaces, "context": spaces.Box(-1, 1, (2,))})

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        self.context = self.np_random.uniform(-1, 1, size=2).astype(np.float32)
        return {**observation, "context": self.context}, info

    def step(self, action: Any) -> Any:
        observation, *rest = self.env.step(action)
        return {**observation, "context": self.context}, *rest

    def compute_reward(self, *args: Any) -> Any:
        return self.env.unwrapped.compute_reward(*args)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("algorithm", "continuous"), [(SAC, True), (TD3, True), (TQC, True), (DQN, False), (QRDQN, False)]
)
def test_hindsight_replay_with_goals_and_a_context(algorithm: Any, continuous: bool) -> None:
    env = GoalWithContext(BitFlippingEnv(n_bits=4, continuous=continuous))
    policy = getattr(hyperrl.policies, POLICY_OF[algorithm.__name__])
    kwargs = dict(net_arch=[8], **({"n_quantiles": 5} if algorithm in (TQC, QRDQN) else {}))
    model = algorithm(policy, env, replay_buffer_class=HerReplayBuffer, policy_kwargs=kwargs, **SIZES).learn(40)
    extractor = next(m for m in model.policy.modules() if isinstance(m, hyperrl.policies.ContextExtractor))
    assert extractor.features_dim == 3 * 4 + 2
    obs = env.reset()[0]
    assert env.action_space.contains(model.predict(obs, deterministic=True)[0])
    batch = model.replay_buffer.sample(8).observations
    assert batch["context"].shape == (8, 2)


def test_vec_normalize_of_the_observation_alone() -> None:
    env = VecNormalize(hyperrl.load_family("pendulum").vec_env(2), norm_obs_keys=["observation"])
    model = SAC(HyperSACPolicy, env, policy_kwargs=dict(net_arch=[8]), **SIZES).learn(40)
    batch: Any = model.replay_buffer.sample(8, env=env)
    assert (batch.observations["context"].numpy() >= CONTEXT.low - 1e-6).all()
    assert_allclose(batch.observations["context"], batch.next_observations["context"])


def test_a_normalised_context_is_warned_about() -> None:
    env = VecNormalize(hyperrl.load_family("pendulum").vec_env(2))
    with pytest.warns(UserWarning, match=r"context lies outside its bounds .* norm_obs_keys"):
        SAC(HyperSACPolicy, env, policy_kwargs=dict(net_arch=[8]), **SIZES).learn(20)


def test_callbacks(tmp_path: Any) -> None:
    family = hyperrl.load_family("cartpole")
    evaluation = EvalCallback(family.vec_env(2, split="interpolation"), n_eval_episodes=2, eval_freq=10, verbose=0)
    callbacks: list[BaseCallback] = [evaluation, CheckpointCallback(10, str(tmp_path), save_replay_buffer=True)]
    DQN(HyperDQNPolicy, family.vec_env(2), policy_kwargs=dict(net_arch=[8]), **SIZES).learn(40, callback=callbacks)
    assert evaluation.last_mean_reward > 0
    assert len(list(tmp_path.glob("*"))) == 4


def test_gsde_is_linear_in_the_last_hidden_layer_of_the_context() -> None:
    model: Any = SAC(HyperSACPolicy, toy(), use_sde=True, policy_kwargs=dict(net_arch=[9, 8], clip_mean=0.5), **SIZES)
    perturb(model.policy)
    actor = model.actor
    obs = observations(model, contexts=1)
    mean, log_std, kwargs = actor.get_action_dist_params(obs)
    (network,) = actor.network.networks
    weights = network.weights(torch.as_tensor(CONTEXT.normalize(obs["context"][0])).float())
    hidden = torch.relu(obs["observation"] @ weights["0.weight"].T + weights["0.bias"])
    hidden = torch.relu(hidden @ weights["2.weight"].T + weights["2.bias"])
    torch.testing.assert_close(kwargs["latent_sde"], hidden)
    torch.testing.assert_close(mean, (hidden @ weights["5.weight"].T + weights["5.bias"]).clamp(-0.5, 0.5))
    assert log_std.shape == (8, 3)
