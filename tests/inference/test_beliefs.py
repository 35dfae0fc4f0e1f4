"""What outputs of a network say of features, against distributions that are known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyperrl import load_family
from hyperrl.contexts import ContextSpace, Feature
from hyperrl.inference.beliefs import Beliefs

LINEAR = Feature("gravity", "m/s²", 10.0, train=((8.0, 12.0),), bounds=((6.0, 14.0),))
WIDE = Feature("mass", "kg", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),))
GAIN = Feature("gain", "1", 1.0, train=((-2.0, -0.5), (0.5, 2.0)), bounds=((-3.0, -0.3), (0.3, 3.0)))
CHOICE = Feature("factor", "1", 1.0, train=((-1, -1), (1, 1)), bounds=((-1, -1), (1, 1)))


def outputs(beliefs: Beliefs, logits: list[list[float]], mean: float = 0.0, log_std: float = 0.0) -> torch.Tensor:
    parts = torch.zeros(3, *beliefs.low.shape)
    parts[0], parts[1], parts[2] = torch.tensor(logits), mean, log_std + 0.5
    return parts.flatten()


def test_the_likelihood_of_a_normal_distribution() -> None:
    beliefs = Beliefs(ContextSpace((LINEAR,)))
    known: Any = stats.norm(10.0 + 0.3 * 2.0, math.exp(-1.0) * 2.0)  # the training range is 10 ± 2
    found = beliefs.log_prob(outputs(beliefs, [[0.0]], 0.3, -1.0), torch.tensor([[9.0], [13.0]]))
    assert found[:, 0].numpy() == pytest.approx(known.logpdf([9.0, 13.0]) + math.log(2.0), abs=1e-5)
    belief = beliefs(outputs(beliefs, [[0.0]], 0.3, -1.0))
    assert (belief.mean.item(), belief.std.item()) == pytest.approx((known.mean(), known.std()), rel=1e-5)
    assert (belief.low.item(), belief.high.item()) == pytest.approx(known.interval(0.95), rel=1e-4)
    assert belief.context.item() == pytest.approx(known.median())


def test_bounds_of_a_wide_ratio_are_logarithmic() -> None:
    beliefs = Beliefs(ContextSpace((WIDE,)))
    middle, half_width = (math.log(0.5) + math.log(1.5)) / 2, (math.log(1.5) - math.log(0.5)) / 2
    s = math.exp(-1.0) * half_width
    known: Any = stats.lognorm(s, scale=math.exp(middle + 0.3 * half_width))
    found = beliefs.log_prob(outputs(beliefs, [[0.0]], 0.3, -1.0), torch.tensor([[0.7]]))
    assert found.item() == pytest.approx(known.logpdf(0.7) + math.log(0.7 * half_width), abs=1e-5)
    belief = beliefs(outputs(beliefs, [[0.0]], 0.3, -1.0))
    assert (belief.mean.item(), belief.std.item()) == pytest.approx((known.mean(), known.std()), rel=1e-5)
    assert belief.low.item() == pytest.approx(known.ppf(0.025), rel=1e-4)
    assert belief.high.item() == pytest.approx(min(known.ppf(0.975), 2.0), rel=1e-4)


def test_a_choice_is_as_likely_as_it_is_believed_to_be() -> None:
    beliefs = Beliefs(ContextSpace((CHOICE,)))
    said = outputs(beliefs, [[math.log(0.2), math.log(0.8)]], mean=5.0)
    found = beliefs.log_prob(said, torch.tensor([[-1.0], [1.0]]))
    assert found[:, 0].exp().numpy() == pytest.approx([0.2, 0.8])
    belief = beliefs(said)
    assert belief.context.item() == 1.0
    assert (belief.mean.item(), belief.std.item()) == pytest.approx((0.6, 0.8))
    assert (belief.low.item(), belief.high.item()) == (-1.0, 1.0)
    sure = beliefs(outputs(beliefs, [[math.log(0.99), math.log(0.01)]]))
    assert (sure.low.item(), sure.high.item()) == (-1.0, -1.0)


@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(-3, 0))
def test_quantiles_of_a_gain_whose_sign_is_unknown(logit: float, mean: float, log_std: float) -> None:
    """Against many samples of the same mixture."""
    beliefs = Beliefs(ContextSpace((GAIN,)))
    belief = beliefs(outputs(beliefs, [[logit, 0.0]], mean, log_std))
    rng = np.random.default_rng(0)
    scaled = mean + math.exp(log_std) * rng.standard_normal(200_000)
    half_width = (math.log(2.0) - math.log(0.5)) / 2
    is_negative = rng.random(200_000) < 1 / (1 + math.exp(-logit))
    values = np.where(is_negative, -np.exp(-scaled * half_width), np.exp(scaled * half_width))
    assert belief.mean.item() == pytest.approx(values.mean(), abs=0.02 * (1 + values.std()))
    assert belief.std.item() == pytest.approx(values.std(), rel=0.03)
    for end, q in ((belief.low.item(), 0.025), (belief.high.item(), 0.975)):
        inside = values.clip(-3, 3)
        inside[(inside > -0.3) & (inside < 0.3)] = 0.3 * np.sign(inside[(inside > -0.3) & (inside < 0.3)])
        below, upto = (inside < end - 1e-4).mean(), (inside <= end + 1e-4).mean()
        assert below - 0.01 <= q <= upto + 0.01


@pytest.mark.parametrize("name", ["pendulum", "cartpole", "ode", "double_integrator"])
@pytest.mark.parametrize("bounds", [False, True])
def test_the_context_to_act_on_lies_in_bounds_and_zeros_are_the_middle(name: str, bounds: bool) -> None:
    space = load_family(name).context_space
    beliefs = Beliefs(space, bounds)
    said = 5 * torch.randn(500, beliefs.outputs, generator=torch.Generator().manual_seed(0))
    assert space.in_bounds(beliefs(said).context.numpy()).all()
    assert space.in_training_range(beliefs(torch.zeros(1, beliefs.outputs)).context.numpy()).all() or bounds
    assert torch.isfinite(beliefs.log_prob(said, torch.as_tensor(space.sample("extrapolation", 500)).float())).all()
