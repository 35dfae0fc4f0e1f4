import numpy as np
import pytest
from numpy.testing import assert_allclose

from hyperrl.evaluation.pooling import (
    pooled_difference,
    pooled_gap,
    pooled_improvement,
    pooled_iqm,
    pooled_profile,
)
from hyperrl.evaluation.statistics import estimate_gap, estimate_improvement, estimate_iqm, estimate_profile

RNG = np.random.default_rng(0)
ONE = RNG.normal(0.5, 0.3, (5, 8, 4))
TWO = RNG.normal(0.8, 0.3, (4, 12, 4))


def test_of_one_family_they_are_the_statistics_of_that_family() -> None:
    assert_allclose(pooled_iqm([ONE]), estimate_iqm(ONE))  # 40 scores: a quarter is a whole number
    assert_allclose(pooled_gap([ONE]), estimate_gap(ONE))
    assert_allclose(pooled_profile([ONE], [0.0, 0.5, 1.0]), estimate_profile(ONE, [0.0, 0.5, 1.0]))
    other = RNG.normal(0.6, 0.3, (3, 8, 4))
    assert_allclose(pooled_improvement([ONE], [other]), estimate_improvement(ONE, other))


def test_with_as_many_scores_each_the_iqm_is_that_of_all_of_them() -> None:
    both = RNG.normal(size=(2, 5, 8, 4))
    every = np.sort(both.mean(axis=3).ravel())  # 80 scores
    assert pooled_iqm(list(both)).value == pytest.approx(every[20:60].mean())


def test_a_family_counts_once_however_many_seeds_and_contexts_it_has() -> None:
    repeated = np.concatenate([TWO] * 3)
    values = [statistic([ONE, TWO])[0] for statistic in (pooled_iqm, pooled_gap)]
    assert_allclose([statistic([ONE, repeated])[0] for statistic in (pooled_iqm, pooled_gap)], values)


def test_a_difference_is_that_of_the_means_and_its_error_is_that_of_both() -> None:
    x, y = [ONE, TWO], [RNG.normal(0.4, 0.2, (3, 8, 4)), RNG.normal(0.6, 0.1, (5, 12, 4))]
    value, low, high = pooled_difference(x, y)
    assert value == pytest.approx(pooled_iqm(x).value - pooled_iqm(y).value)
    assert_allclose(pooled_difference(y, x).value, -value)
    assert low < value < high
    constant = [np.full((2, 3, 1), 0.25)] * 2  # an agent whose seeds are alike adds nothing to the error
    assert_allclose(np.subtract(pooled_difference(x, constant), 0.0), np.subtract(pooled_iqm(x), 0.25))


def test_seeds_are_drawn_family_by_family() -> None:
    """Seeds that are all alike in a family leave nothing to draw there, however far apart families are."""
    alike = [np.full((3, 4, 2), 0.1), np.full((6, 4, 2), 0.9)]
    for statistic in (pooled_iqm, pooled_gap):
        value, low, high = statistic(alike)
        assert low == value == high == pytest.approx(0.5)
    apart = [np.concatenate([np.zeros((3, 4, 2)), np.ones((3, 4, 2))]), np.full((6, 4, 2), 0.5)]
    value, low, high = pooled_iqm(apart)
    assert low < value < high
