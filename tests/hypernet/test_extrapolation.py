import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import PPO
from torch import nn

import hyperrl
from hyperrl.hypernet import SecantExtrapolation, mlp
from hyperrl.policies import HyperPolicy

RANGES = [[(-1.0, 1.0)], [(-1.0, -0.25), (0.25, 1.0)], [(-1.0, -1.0), (1.0, 1.0)]]
"""An ordinary feature, a motor that may be inverted, and a choice, which never lies outside."""


def encoder() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp([3, 8, 5], nn.Tanh, nn.Tanh())


contexts = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.sampled_from([-1.0, 1.0])), min_size=1, max_size=9)


@given(contexts)
def test_inside_the_range_it_is_the_encoder(rows: list[tuple[float, ...]]) -> None:
    plain = encoder()
    extended = SecantExtrapolation(*plain, ranges=RANGES, features=[0, 1])
    c = torch.tensor(rows)
    inside = c.clamp(-1, 1)
    torch.testing.assert_close(extended(inside), plain(inside), rtol=0, atol=0)
    # A row does not depend on the others.
    torch.testing.assert_close(extended(c), torch.cat([extended(row[None]) for row in c]), rtol=1e-5, atol=1e-6)


def formula(plain: nn.Module, c: torch.Tensor, intervals: list[tuple[float, float]]) -> torch.Tensor:
    """The definition, one context at a time, each feature by itself."""
    b = c.clamp(-1, 1)
    z = plain(b[None])[0]
    for i in (0, 1):
        x = float(c[i] - b[i])
        if x == 0:
            continue
        low, high = intervals[i]
        at = []
        for value in (low, (low + high) / 2, high):
            point = b.clone()
            point[i] = value
            at.append(plain(point[None])[0])
        left, right = (at[1] - at[0]) / ((high - low) / 2), (at[2] - at[1]) / ((high - low) / 2)
        for j in range(len(z)):
            if left[j] * right[j] > 0:
                slope = min(left[j], right[j], key=abs)
                z[j] = z[j] + slope * math.copysign(math.log1p(abs(x)), x)
    return z


@pytest.mark.parametrize(
    ("context", "second"),
    [
        ([2.0, 0.5, 1.0], (0.25, 1.0)),
        ([-1.5, -2.0, 1.0], (-1.0, -0.25)),
        ([3.0, 1.5, -1.0], (0.25, 1.0)),
        ([0.0, -1.2, -1.0], (-1.0, -0.25)),
    ],
)
def test_outside_it_goes_on_by_the_steady_slope(context: list[float], second: tuple[float, float]) -> None:
    plain = encoder()
    c = torch.tensor(context)
    with torch.no_grad():
        z = SecantExtrapolation(*plain, ranges=RANGES, features=[0, 1])(c[None])[0]
        torch.testing.assert_close(z, formula(plain, c, [(-1.0, 1.0), second]))
        assert not torch.allclose(z, plain(c[None])[0], atol=1e-3)


def test_what_turns_within_the_range_stays() -> None:
    class Square(nn.Module):
        def forward(self, c: torch.Tensor) -> torch.Tensor:
            return torch.cat([c**2, c**3], dim=1)

    z = SecantExtrapolation(Square(), ranges=[[(-1, 1)]])(torch.tensor([[1.0], [2.0], [1e6]]))
    torch.testing.assert_close(z, torch.tensor([[1.0, 1.0], [1.0, 1 + math.log(2)], [1.0, 1 + math.log(1e6)]]))


def test_an_exported_graph_computes_the_same() -> None:
    extended = SecantExtrapolation(*encoder(), ranges=RANGES, features=[0, 1])
    exported = torch.export.export(extended, (torch.zeros(2, 3),)).module()
    c = torch.tensor([[2.0, -2.0, 1.0], [0.5, 0.5, -1.0]])
    torch.testing.assert_close(exported(c), extended(c))


def test_gradients_pass_outside_the_range() -> None:
    extended = SecantExtrapolation(*encoder(), ranges=RANGES, features=[0, 1])
    extended(torch.tensor([[2.0, 0.5, 1.0]])).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in extended.parameters())


def test_a_range_in_disorder_is_refused() -> None:
    with pytest.raises(ValueError, match="increasing order as range 0"):
        SecantExtrapolation(nn.Identity(), ranges=[[(1, -1)]])


def test_a_policy_extrapolates_unless_told_not_to() -> None:
    family = hyperrl.load_family("pendulum")
    kwargs = dict(n_steps=8, batch_size=8, seed=0, device="cpu")
    models = [PPO(HyperPolicy, family.vec_env(2), policy_kwargs=dict(extrapolate=e), **kwargs) for e in (True, False)]
    models[1].policy.load_state_dict(models[0].policy.state_dict())  # the same names of parameters
    for model in models:
        for name, parameter in model.policy.named_parameters():
            if "head" in name:
                parameter.data += 0.01
    for split, is_same in (("train", True), ("extrapolation", False)):
        context = family.context_space.sample(split, 5, 0).astype(np.float32)
        observation = dict(observation=np.ones((5, 3), np.float32), context=context)
        actions = [model.predict(observation, deterministic=True)[0] for model in models]
        assert np.allclose(*actions, atol=1e-6) == is_same
