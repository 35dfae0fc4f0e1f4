"""Policies as recorded graphs: torch.jit.trace, and both of torch's ONNX exporters, without hyperrl's own export."""

import io
from typing import Any

import pytest
import torch
from policies.test_policies import ALGORITHMS, trained
from torch import Tensor, nn
from toy import observations

from hyperrl.hypernet import HEADS, HyperNetwork

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own: both its tracer and its older exporter are deprecated


class Acting(nn.Module):
    """What SB3's documentation exports: the policy, deterministic, of each entry of an observation as an input."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.policy = model.policy
        self.keys = list(model.observation_space) if isinstance(observations(model), dict) else None

    def forward(self, *entries: Tensor) -> Tensor:
        obs: Any = entries[0] if self.keys is None else dict(zip(self.keys, entries, strict=True))
        actions = self.policy(obs, deterministic=True)
        return actions[0] if isinstance(actions, tuple) else actions


def acting(name: str, head: str) -> tuple[Acting, tuple[Tensor, ...], Tensor]:
    """A policy that acts, observations, and its actions."""
    model = trained(name, head)
    model.policy.set_training_mode(False)
    obs = observations(model)
    module = Acting(model)
    entries = (obs,) if module.keys is None else tuple(obs[key] for key in module.keys)
    with torch.no_grad():
        return module, entries, module(*entries)


@pytest.mark.parametrize("head", ["low_rank", "full"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_traced_policy_acts_alike_for_any_number_of_rows(name: str, head: str) -> None:
    module, entries, expected = acting(name, head)
    with torch.no_grad():
        traced: Any = torch.jit.trace(module, tuple(entry[:5] for entry in entries), check_trace=False)
        torch.testing.assert_close(traced(*entries), expected)


@pytest.mark.parametrize(
    ("name", "head", "dynamo"),
    [
        ("PPO", "low_rank", True),
        pytest.param("SAC", "low_rank", True, marks=pytest.mark.slow),
        pytest.param("DQN", "full", True, marks=pytest.mark.slow),
        ("TD3", "full", False),
    ],
)
def test_a_policy_goes_through_torchs_onnx_exporters(name: str, head: str, dynamo: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    validates = torch.distributions.Distribution._validate_args  # torch's compiler turns it off for good
    module, entries, expected = acting(name, head)
    names = [f"x{i}" for i in range(len(entries))]
    shapes: dict[str, Any] = (
        dict(dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in entries),), verbose=False)
        if dynamo
        else dict(dynamic_axes={name: {0: "batch"} for name in names})
    )
    file = io.BytesIO()
    few = tuple(entry[:5].clone() for entry in entries)
    torch.onnx.export(module, few, file, input_names=names, dynamo=dynamo, **shapes)
    session = onnxruntime.InferenceSession(file.getvalue())
    inputs = {name: entry.numpy() for name, entry in zip(names, entries, strict=True)}
    (actions,) = session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})[:1]
    torch.testing.assert_close(torch.as_tensor(actions), expected, atol=1e-5, rtol=1e-5)
    assert torch.distributions.Distribution._validate_args == validates


@pytest.mark.parametrize("head", HEADS)
def test_a_traced_hypernetwork_generates_one_network_a_row(head: str) -> None:
    network = HyperNetwork(3, nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), head=head)
    for name, parameter in network.named_parameters():
        if "generator" in name:
            nn.init.normal_(parameter, std=0.3)
    context, x = torch.randn(3, 3)[[0, 1, 2, 1, 1, 0]], torch.randn(6, 4)
    with torch.no_grad():
        traced: Any = torch.jit.trace(network, (context[:4], x[:4]), check_trace=False)
        torch.testing.assert_close(traced(context, x), network(context, x))
        exported = torch.export.export(network, (context, x)).module()
        torch.testing.assert_close(exported(context, x), network(context, x))
