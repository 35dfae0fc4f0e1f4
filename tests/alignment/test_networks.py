"""The mathematics of the encoder."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from hyperrl.alignment import AlignedDynamics, AverageL1, SimNorm

ROWS = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.sampled_from([4, 8])), elements=st.floats(-100, 100, width=32)
)


@given(ROWS, st.floats(0.01, 100))
def test_average_l1_is_one_whatever_the_scale(rows: np.ndarray, scale: float) -> None:
    x = torch.as_tensor(rows)
    y = AverageL1()(x)
    large = x.abs().mean(dim=-1) > 1e-4
    assert_close(y.abs().mean(dim=-1)[large], torch.ones(int(large.sum()), dtype=torch.float64))
    assert_close(AverageL1()(scale * x)[large], y[large])


@given(ROWS, st.floats(-10, 10))
def test_simnorm_makes_each_group_a_distribution(rows: np.ndarray, shift: float) -> None:
    x = torch.as_tensor(rows)
    y = SimNorm(4)(x)
    groups = y.unflatten(-1, (-1, 4))
    assert_close(groups.sum(dim=-1), torch.ones(groups.shape[:-1], dtype=torch.float64))
    assert (y >= 0).all()
    assert_close(groups, x.unflatten(-1, (-1, 4)).softmax(dim=-1))
    moved = torch.cat([x[:, :4] + shift, x[:, 4:]], dim=1)  # softmax does not see what a group has in common
    assert_close(SimNorm(4)(moved), y)


@pytest.fixture
def dynamics() -> AlignedDynamics:
    torch.manual_seed(0)
    return AlignedDynamics(observation=3, action=2, history=6)


def test_an_embedding_depends_on_which_transitions_there_were_not_on_their_order(dynamics: AlignedDynamics) -> None:
    transitions, present = torch.randn(5, 6, 8), (torch.rand(5, 6) < 0.6).float()
    z = dynamics.embed(transitions, present)
    order = torch.randperm(6)
    assert_close(dynamics.embed(transitions[:, order], present[:, order]), z)
    anything = torch.where(present.unsqueeze(-1) > 0, transitions, 1e6 * torch.randn(5, 6, 8))
    assert_close(dynamics.embed(anything, present), z)
    assert not torch.allclose(dynamics.embed(transitions, torch.ones(5, 6)), z, atol=1e-4)
    assert z.shape == (5, 16)
    assert ((z >= 0) & (z <= 1)).all()


def test_rows_are_embedded_one_by_one_as_in_a_batch(dynamics: AlignedDynamics) -> None:
    transitions, present = torch.randn(7, 6, 8), (torch.rand(7, 6) < 0.6).float()
    one_by_one = torch.cat([dynamics.embed(transitions[i : i + 1], present[i : i + 1]) for i in range(7)])
    assert_close(dynamics.embed(transitions, present), one_by_one)


@pytest.mark.parametrize("sizes", [(5,), (1, 4), (3, 1, 2, 11)])
def test_running_statistics_are_those_of_all_transitions(dynamics: AlignedDynamics, sizes: tuple[int, ...]) -> None:
    parts = [3 + 2 * torch.randn(n, 8) for n in sizes]
    for part in parts:
        dynamics.observe(part)
    together = torch.cat(parts)
    assert_close(dynamics.mean, together.mean(dim=0))
    assert_close(dynamics.variance, together.var(dim=0, correction=0))
    assert dynamics.count == len(together)


def test_the_loss_is_the_error_of_the_prediction_in_variances_of_the_change(dynamics: AlignedDynamics) -> None:
    transitions = torch.randn(64, 8) * torch.tensor([1, 10, 0.1, 1, 2, 5, 0.01, 3.0])
    dynamics.observe(transitions)
    with torch.no_grad():  # a prediction of no change but the mean one
        for parameter in dynamics.prediction.parameters():
            parameter.zero_()
    loss = dynamics.loss(torch.zeros(64, 6, 8), torch.zeros(64, 6), transitions)
    assert_close(loss, torch.tensor(1.0))
