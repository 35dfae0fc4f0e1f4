import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from toy import CONTEXT, IMAGE, observations, to_numpy, toy

from hyperrl.policies import ContextExtractor, ContextReader, HyperPolicy
from hyperrl.policies.registry import ALGORITHMS, algorithm_class, policy_class

SIZES: dict[str, dict[str, Any]] = {name: dict(n_steps=8, batch_size=16) for name in ("PPO", "TRPO", "RecurrentPPO")}


@pytest.mark.parametrize("kind", ["concat", "unaware"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_baselines_of_every_algorithm(name: str, kind: str) -> None:
    """Stock policies behind the extractor see the context, or do not; they learn, save and load."""
    policy, kwargs = policy_class(kind, name)
    sizes = SIZES.get(name, {} if name == "A2C" else dict(learning_starts=8, buffer_size=100, batch_size=8))
    env = toy("discrete" if "DQN" in name else "box")
    model = algorithm_class(name)(policy, env, policy_kwargs=kwargs, seed=0, device="cpu", **sizes).learn(32)
    obs = observations(model)
    other = {**obs, "context": torch.as_tensor(CONTEXT.sample("extrapolation", 12, 1), dtype=torch.float32)}

    def values(model: Any, obs: Any) -> Any:  # before they are rounded to an action
        network = model.policy
        network = getattr(network, "q_net", None) or getattr(network, "quantile_net", None) or network
        if network is not model.policy:
            return network(obs)
        if name == "RecurrentPPO":
            memory = tuple(torch.zeros(network.lstm_hidden_state_shape[0], 12, network.lstm_output_dim) for _ in "hc")
            return network.predict_values(obs, memory, torch.ones(12))
        return network.predict_values(obs) if hasattr(network, "predict_values") else network(obs, deterministic=True)

    assert torch.equal(values(model, obs), values(model, other)) == (kind == "unaware")
    file = io.BytesIO()
    model.save(file)
    loaded = type(model).load(file, device="cpu")
    assert_array_equal(
        loaded.predict(to_numpy(obs), deterministic=True)[0], model.predict(to_numpy(obs), deterministic=True)[0]
    )


def test_features_then_context() -> None:
    entries = {"context": IMAGE["context"], "a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}
    extractor = ContextExtractor(spaces.Dict(entries))
    context = CONTEXT.sample("train", 5, 0).astype(np.float32)
    a, b = torch.randn(5, 2), torch.eye(3)[[0, 1, 2, 1, 0]]
    features = extractor({"context": torch.as_tensor(context), "a": a, "b": b})
    expected = torch.cat([a, b, torch.as_tensor(CONTEXT.normalize(context)).float()], dim=1)
    torch.testing.assert_close(features, expected)
    assert extractor.features_dim == 2 + 3 + 4


def test_the_middle_of_a_flat_observation() -> None:
    low, high = np.array([-9, 0, 2, -9], np.float32), np.array([9, 4, 6, 9], np.float32)
    extractor = ContextExtractor(spaces.Box(low, high), context_slice=(1, 3))
    rows = torch.tensor([[7.0, 0.0, 4.0, 8.0], [1.0, 3.0, 6.0, 2.0]])
    torch.testing.assert_close(extractor(rows), torch.tensor([[7.0, 8.0, -1.0, 0.0], [1.0, 2.0, 0.5, 1.0]]))


def test_the_extractor_of_the_rest_is_a_choice() -> None:
    env = toy(entries=IMAGE)
    kwargs = dict(extractor_class=CombinedExtractor, extractor_kwargs=dict(cnn_output_dim=7))
    policy_kwargs = dict(features_extractor_class=ContextExtractor, features_extractor_kwargs=kwargs)
    model = SAC("MultiInputPolicy", env, buffer_size=10, policy_kwargs=policy_kwargs, device="cpu")
    extractor: Any = model.actor.features_extractor
    assert extractor.features_dim == 7 + 5 + 4
    assert isinstance(extractor.extractor.extractors["camera"], NatureCNN)


class Counting(FlattenExtractor):
    """A user's features extractor, with attributes of its own."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space)
        self.calls = 0
        self.norm = torch.nn.BatchNorm1d(self.features_dim)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.norm(super().forward(observations))


def test_the_users_features_extractor_is_reached_as_on_a_stock_policy() -> None:
    kwargs = dict(context_slice=(-4, None), features_extractor_class=Counting)
    env = toy(flat=True)
    policy = PPO(HyperPolicy, env, policy_kwargs=kwargs, n_steps=8, batch_size=8, device="cpu").policy
    policy.predict(env.reset())
    extractor: Any = policy.features_extractor
    assert extractor.calls == 1
    assert extractor.norm is extractor.extractor.norm
    copied = copy.deepcopy(extractor)
    assert copied.norm is copied.extractor.norm
    with pytest.raises(AttributeError, match="'Counting' object has no attribute 'norms'"):
        extractor.norms  # noqa: B018


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-3.4e38, 3.4e38)])
def test_an_unbounded_context_is_left_as_it_is(bounds: tuple[float, float]) -> None:
    reader = ContextReader(spaces.Dict(obs=spaces.Box(-1, 1, (2,)), c=spaces.Box(*bounds, (3,))), "c")
    context = torch.randn(4, 3)
    assert_array_equal(reader({"obs": torch.zeros(4, 2), "c": context}), context)


def test_the_reader_has_no_state() -> None:
    """What a target network would have to copy, and polyak averages do not."""
    assert ContextReader(toy().observation_space).state_dict() == {}


OPTIMIZERS: list[tuple[dict[str, Any], bool | None]] = [
    ({}, True),
    (dict(optimizer_class=torch.optim.AdamW), True),
    (dict(optimizer_kwargs=dict(foreach=True)), None),
    (dict(optimizer_kwargs=dict(fused=False)), False),
    (dict(optimizer_class=torch.optim.SGD), None),
]


@pytest.mark.parametrize(("policy_kwargs", "fused"), OPTIMIZERS)
def test_adam_is_fused_unless_the_user_chose(policy_kwargs: dict[str, Any], fused: bool | None) -> None:
    optimizer = PPO(
        HyperPolicy, toy(), policy_kwargs=policy_kwargs, n_steps=8, batch_size=8, device="cpu"
    ).policy.optimizer
    assert optimizer.defaults["fused"] is fused
