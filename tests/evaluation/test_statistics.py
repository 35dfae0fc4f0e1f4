from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import mannwhitneyu, trim_mean

from hyperrl.evaluation.statistics import (
    Estimate,
    bootstrap_gap,
    bootstrap_improvement,
    bootstrap_iqm,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_profile,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

THRESHOLDS = [-0.5, 0.0, 0.5, 1.0]
OTHER = np.random.default_rng(9).normal(size=(4, 5, 3))
BOOTSTRAPS: dict[str, Callable[..., Any]] = {
    "iqm": bootstrap_iqm,
    "gap": bootstrap_gap,
    "mean": bootstrap_mean,
    "profile": partial(bootstrap_profile, thresholds=THRESHOLDS),
    "improvement": lambda returns, **kwargs: bootstrap_improvement(returns, OTHER, **kwargs),
}
# Whole numbers: shifting and scaling them is exact, so ties stay ties.
GRID = st.integers(-100, 100).map(float)
SCORES = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=GRID)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_interquartile_mean_equals_scipys_trimmed_mean(scores: list[float]) -> None:
    assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25), rtol=1e-9, atol=1e-6)


@given(arrays(np.float64, st.integers(1, 8), elements=GRID), arrays(np.float64, st.integers(1, 8), elements=GRID))
def test_probability_of_improvement_is_mann_and_whitneys_u(x: np.ndarray, y: np.ndarray) -> None:
    u = mannwhitneyu(x, y, method="asymptotic" if len(x) * len(y) > 1 else "exact").statistic
    assert_allclose(probability_of_improvement(x[:, None], y[:, None]), u / (len(x) * len(y)))


def test_probability_of_improvement_averages_over_contexts() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.3, 1, size=(7, 6)), rng.normal(size=(5, 6))
    us = [mannwhitneyu(x[:, c], y[:, c]).statistic / 35 for c in range(6)]
    assert_allclose(probability_of_improvement(x, y), np.mean(us))


@pytest.mark.parametrize("normal", [0.0, 1.0])
def test_closed_forms_of_uniform_scores(normal: float) -> None:
    """Scores evenly spread over [normal, normal + 1]."""
    scores = normal + (np.arange(4000) + 0.5) / 4000
    assert_allclose(interquartile_mean(scores), normal + 0.5)
    target = normal + 0.5
    assert_allclose(optimality_gap(scores, target), 1 / 8, atol=1e-6)  # the integral of 1/2 - u over [0, 1/2]
    taus = normal + np.linspace(0, 1, 9)
    assert_allclose(performance_profile(scores, taus), np.linspace(1, 0, 9), atol=1e-3)
    # The area below the profile is the mean, up to where the scores reach.
    grid = np.linspace(normal, normal + 1, 1001)
    area = np.trapezoid(performance_profile(scores, grid), grid)
    assert_allclose(normal + area, scores.mean(), atol=1e-3)


@given(SCORES, st.integers(-5, 5), st.sampled_from([0.5, 1.0, 4.0]))
def test_affine_maps_of_the_scores(scores: np.ndarray, shift: int, scale: float) -> None:
    mapped, flat = scale * scores + shift, scores.ravel()
    assert_allclose(interquartile_mean(mapped.ravel()), scale * interquartile_mean(flat) + shift, atol=1e-9)
    assert_allclose(optimality_gap(mapped.ravel(), scale * 1.0 + shift), scale * optimality_gap(flat), atol=1e-9)
    thresholds = np.array(THRESHOLDS)
    assert_array_equal(
        performance_profile(mapped.ravel(), scale * thresholds + shift), performance_profile(flat, thresholds)
    )
    assert probability_of_improvement(mapped, scale * scores[::-1] + shift) == probability_of_improvement(
        scores, scores[::-1]
    )


@given(SCORES, st.data())
def test_raising_a_score_never_looks_worse(scores: np.ndarray, data: st.DataObject) -> None:
    better = scores.copy()
    better[data.draw(st.integers(0, len(scores) - 1)), data.draw(st.integers(0, scores.shape[1] - 1))] += 3
    assert interquartile_mean(better.ravel()) >= interquartile_mean(scores.ravel())
    assert optimality_gap(better.ravel()) <= optimality_gap(scores.ravel())
    assert np.all(performance_profile(better.ravel(), THRESHOLDS) >= performance_profile(scores.ravel(), THRESHOLDS))
    assert probability_of_improvement(better, scores) >= 0.5


@given(SCORES, SCORES)
def test_what_one_wins_the_other_loses(x: np.ndarray, y: np.ndarray) -> None:
    contexts = min(x.shape[1], y.shape[1])
    x, y = x[:, :contexts], y[:, :contexts]
    assert_allclose(probability_of_improvement(x, y) + probability_of_improvement(y, x), 1.0)


@given(SCORES, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(scores: np.ndarray, random: Any) -> None:
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = scores[order]
    assert_allclose(interquartile_mean(shuffled.ravel()), interquartile_mean(scores.ravel()))
    assert_allclose(optimality_gap(shuffled.ravel()), optimality_gap(scores.ravel()))
    assert probability_of_improvement(shuffled, scores) == pytest.approx(0.5)


@pytest.mark.parametrize("seeds", [1, 6])
@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_intervals_hold_the_value_and_are_deterministic(name: str, seeds: int) -> None:
    bootstrap = BOOTSTRAPS[name]
    returns = np.random.default_rng(0).normal(size=(seeds, 5, 3))
    value, low, high = np.asarray(bootstrap(returns, seed=1))
    assert np.all(low <= value)
    assert np.all(value <= high)
    assert np.any(low < high)
    few = dict(resamples=50)  # of a profile, whose values are few, many resamples have the same quantiles
    assert_array_equal(bootstrap(returns, seed=1, **few), bootstrap(returns, seed=1, **few))
    assert not np.array_equal(bootstrap(returns, seed=1, **few), bootstrap(returns, seed=2, **few))


@pytest.mark.parametrize("name", ["iqm", "gap", "profile"])
def test_seeds_are_resampled_whole(name: str) -> None:
    """Contexts of one seed stand or fall together: the interval is as wide as for a single context."""
    per_seed = np.random.default_rng(1).normal(size=(6, 1, 1))
    once = np.asarray(BOOTSTRAPS[name](per_seed, resamples=4000))
    together = np.asarray(BOOTSTRAPS[name](np.tile(per_seed, (1, 20, 3)), resamples=4000))
    independent = np.asarray(BOOTSTRAPS[name](np.random.default_rng(1).normal(size=(6, 20, 1)), resamples=4000))
    assert np.all(together[2] - together[1] >= 0.7 * (once[2] - once[1]))
    assert np.sum(together[2] - together[1]) > 2 * np.sum(independent[2] - independent[1])


def test_seeds_of_two_agents_are_resampled_apart() -> None:
    """Of two agents with the same scores either may come out ahead, were they resampled together it would be a tie."""
    x = np.random.default_rng(0).normal(size=(5, 1, 1))
    value, low, high = bootstrap_improvement(x, x)
    assert value == 0.5
    assert low < 0.3
    assert high > 0.7


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (lambda rng: bootstrap_iqm(rng.normal(3, 1, size=(40, 1, 1)), resamples=500), 3.0),
        (lambda rng: bootstrap_gap(rng.uniform(0, 1, size=(40, 1, 1)), resamples=500), 0.5),
        (lambda rng: bootstrap_profile(rng.uniform(0, 1, size=(40, 1, 1)), [0.3], resamples=500)[:, 0], 0.7),
        (lambda rng: bootstrap_improvement(*rng.uniform(size=(2, 40, 1, 1)), resamples=500), 0.5),
        (lambda rng: bootstrap_mean(rng.normal(3, 1, size=(40, 1, 1)), resamples=500)[:, 0], 3.0),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(estimate: Callable[..., Any], truth: float) -> None:
    rng = np.random.default_rng(0)
    estimates = [estimate(rng) for _ in range(300)]
    covered = np.mean([low <= truth <= high for _, low, high in estimates])
    assert 0.9 < covered < 0.98


@pytest.mark.parametrize("name", ["iqm", "gap", "profile"])
def test_equal_returns_leave_no_doubt(name: str) -> None:
    value, low, high = np.asarray(BOOTSTRAPS[name](np.full((3, 5, 4), 2.0)))
    assert_array_equal(low, value)
    assert_array_equal(high, value)


def test_estimates_are_written_with_the_digits_that_count() -> None:
    assert str(Estimate(0.91234, 0.9, 0.95)) == "0.912 [0.900, 0.950]"
    assert str(Estimate(-161.04, -171.0, -153.0)) == "-161.0 [-171.0, -153.0]"


@given(arrays(float, (3, 2, 4), elements=st.sampled_from([1.0, 2.0, 7.0, np.inf])))
def test_the_median_is_a_value_that_half_reach_and_lies_in_its_interval(counts: np.ndarray) -> None:
    value, low, high = bootstrap_median(counts)
    assert (counts <= value).mean() >= 0.5 > (counts < value).mean()
    assert low <= value <= high
    assert bootstrap_median(counts[:1])[1:] == (bootstrap_median(counts[:1]).value,) * 2


def test_bad_returns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        bootstrap_iqm(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_iqm(np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match="the same contexts, got 2 and 3"):
        bootstrap_improvement(np.zeros((1, 2, 1)), np.zeros((1, 3, 1)))
