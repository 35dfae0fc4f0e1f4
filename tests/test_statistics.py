import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import trim_mean

from hyperrl.statistics import bootstrap_iqm, interquartile_mean


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_interquartile_mean_equals_scipys_trimmed_mean(scores: list[float]) -> None:
    assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25), rtol=1e-9, atol=1e-6)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Normal returns of 40 seeds: the interquartile mean of a symmetric distribution is its mean, here 3."""
    rng = np.random.default_rng(0)
    estimates = [bootstrap_iqm(rng.normal(3, 1, size=(40, 1, 1)), resamples=500) for _ in range(300)]
    covered = np.mean([low <= 3 <= high for _, low, high in estimates])
    assert 0.9 < covered < 0.98


def test_seeds_are_resampled_whole() -> None:
    """Contexts of one seed stand or fall together: the interval is as wide as for a single context."""
    per_seed = np.random.default_rng(1).normal(size=(6, 1, 1))
    together = bootstrap_iqm(np.tile(per_seed, (1, 20, 3)), resamples=4000)
    independent = bootstrap_iqm(np.random.default_rng(1).normal(size=(6, 20, 1)), resamples=4000)
    assert together.high - together.low > 3 * (independent.high - independent.low)


def test_one_seed_resamples_its_episodes() -> None:
    assert bootstrap_iqm(np.ones((1, 4, 5))) == (1.0, 1.0, 1.0)
    value, low, high = bootstrap_iqm(np.random.default_rng(0).normal(size=(1, 20, 10)))
    assert low < value < high


def test_the_bootstrap_is_deterministic() -> None:
    returns = np.random.default_rng(0).normal(size=(5, 4, 3))
    assert bootstrap_iqm(returns, seed=1) == bootstrap_iqm(returns, seed=1)
    assert bootstrap_iqm(returns, seed=1) != bootstrap_iqm(returns, seed=2)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        bootstrap_iqm(np.zeros((3, 4)))
