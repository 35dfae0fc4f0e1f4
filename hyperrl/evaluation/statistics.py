"""Statistics of scores over seeds and contexts, with bootstrap intervals (Agarwal et al. 2021).

**What is resampled.** Whole training seeds, those of each agent among themselves: the contexts of one seed are played
by one network and stand or fall together, so they are not independent draws. With a single seed there is nothing of the
kind to resample; its interval resamples the episodes within each context, and says nothing about how another seed would
have learnt. Contexts are the same in every resample: they are the benchmark, not a sample of it. Intervals are
percentiles of the resamples; fewer than five seeds give too narrow ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]


class Estimate(NamedTuple):
    """A statistic with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if max(map(abs, self)) < 10 else 1
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def interquartile_mean(scores: ArrayLike) -> Vector:
    """Return the mean over the last axis of what is left without its lowest and highest quarter.

    >>> float(interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]))
    3.5
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Vector:
    """Return by how much the scores of the last axis fall short of a target on average; excess counts for nothing.

    >>> float(optimality_gap([0.5, 1.0, 7.0, 0.5]))
    0.25
    """
    return np.maximum(target - np.asarray(scores, dtype=np.float64), 0.0).mean(axis=-1)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Vector:
    """Return the fraction of the last axis's scores above each of ``t`` thresholds, shape ``(..., t)``.

    >>> performance_profile([0.2, 0.6, 0.7, 1.0], [0.0, 0.5, 1.0])
    array([1.  , 0.75, 0.  ])
    """
    scores = np.asarray(scores, dtype=np.float64)
    above = [(scores > threshold).mean(axis=-1) for threshold in np.asarray(thresholds, dtype=np.float64)]
    return np.stack(above, axis=-1)


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> Vector:
    """Return how probably a seed of ``x`` beats a seed of ``y`` in a context drawn at random; ties count half.

    In each context it is Mann and Whitney's U divided by the number of pairs of seeds.

    :param x: scores, shape ``(..., seeds, contexts)``.
    :param y: scores, shape ``(..., seeds, contexts)``; the numbers of seeds may differ.

    >>> float(probability_of_improvement([[1.0], [2.0]], [[0.0], [2.0]]))
    0.625
    """
    left = np.asarray(x, dtype=np.float64)[..., :, None, :]  # (..., s, 1, c)
    right = np.asarray(y, dtype=np.float64)[..., None, :, :]  # (..., 1, s', c)
    return ((left > right) + 0.5 * (left == right)).mean(axis=(-3, -2, -1))


def bootstrap_iqm(returns: ArrayLike, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the :func:`interquartile_mean` over seeds and contexts.

    :param returns: returns or scores, shape ``(seeds, contexts, episodes)``; episodes are averaged.
    :param resamples: how often the bootstrap resamples, see the top of this module.
    :param seed: seed of the resampling: the same gives the same interval.
    """
    return Estimate(*_bootstrap(lambda s: interquartile_mean(_pool(s)), [returns], resamples, seed).tolist())


def bootstrap_gap(scores: ArrayLike, target: float = 1.0, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the :func:`optimality_gap` over seeds and contexts; parameters as in :func:`bootstrap_iqm`."""
    return Estimate(*_bootstrap(lambda s: optimality_gap(_pool(s), target), [scores], resamples, seed).tolist())


def bootstrap_profile(scores: ArrayLike, thresholds: ArrayLike, resamples: int = 2000, seed: int = 0) -> Vector:
    """Estimate the :func:`performance_profile` over seeds and contexts: value, low and high, shape ``(3, t)``.

    The band holds 95 % at each threshold by itself. Parameters as in :func:`bootstrap_iqm`.
    """
    return _bootstrap(lambda s: performance_profile(_pool(s), thresholds), [scores], resamples, seed)


def bootstrap_improvement(x: ArrayLike, y: ArrayLike, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the :func:`probability_of_improvement` of ``x`` over ``y``, both ``(seeds, contexts, episodes)``.

    The contexts must be the same ones in the same order. Other parameters as in :func:`bootstrap_iqm`.
    """
    return Estimate(*_bootstrap(probability_of_improvement, [x, y], resamples, seed).tolist())


def bootstrap_mean(returns: ArrayLike, resamples: int = 2000, seed: int = 0) -> Vector:
    """Estimate the mean over seeds in each context by itself: value, low and high, shape ``(3, contexts)``.

    Parameters as in :func:`bootstrap_iqm`.
    """
    return _bootstrap(lambda s: s.mean(axis=-2), [returns], resamples, seed)


def bootstrap_median(counts: ArrayLike, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the lower median over seeds, contexts and repetitions, which exists among infinite values too.

    :param counts: for instance episodes until a target was reached, infinite where it never was, shape
        ``(seeds, contexts, n)``. Seeds are resampled; with a single one the interval is the value.

    >>> print(bootstrap_median([[[1.0]], [[2.0]], [[np.inf]]]))
    2.0 [1.0, inf]
    """
    array = np.asarray(counts, dtype=np.float64)
    array = array.reshape(len(array), -1)  # (seeds, contexts * n)
    picks = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    medians = _quantile(array[picks].reshape(resamples, -1), 0.5)
    low, high = _quantile(medians, 0.025), _quantile(medians, 0.975)
    return Estimate(float(_quantile(array.ravel(), 0.5)), float(low), float(high))


def _quantile(values: Vector, q: float) -> Vector:
    """Return the lower quantile of the last axis: numpy's would make NaN of infinite values."""
    return np.sort(values, axis=-1)[..., int(q * (values.shape[-1] - 1))]


def _pool(scores: Vector) -> Vector:
    """Put seeds and contexts into one axis: ``(..., seeds, contexts)`` to ``(..., seeds * contexts)``."""
    return scores.reshape(*scores.shape[:-2], -1)


def _bootstrap(
    statistic: Callable[..., Vector], groups: list[ArrayLike], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the statistic of the scores ``(seeds, contexts)`` of each group, and its interval, shape ``(3, ...)``.

    :param statistic: takes an array ``(..., seeds, contexts)`` for each group.
    :param groups: one or more arrays of shape ``(seeds, contexts, episodes)``.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    for array in arrays:
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"expected returns of shape (seeds, contexts, episodes), got shape {array.shape}")
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"expected the same contexts, got {arrays[0].shape[1]} and {array.shape[1]} of them")
        if not np.isfinite(array).all():
            raise ValueError("expected finite returns, got NaN or infinity")
    rng = np.random.default_rng(seed)
    drawn = [resample(array, resamples, rng) for array in arrays]
    low, high = np.quantile(statistic(*drawn), [0.025, 0.975], axis=0)
    return np.stack([statistic(*(array.mean(axis=2) for array in arrays)), low, high])


def resample(returns: Vector, resamples: int, rng: np.random.Generator) -> Vector:
    """Return resampled scores, shape ``(resamples, seeds, contexts)``."""
    seeds, contexts, episodes = returns.shape
    if seeds > 1:
        return returns.mean(axis=2)[rng.integers(seeds, size=(resamples, seeds))]
    picks = rng.integers(episodes, size=(resamples, contexts, episodes))
    return np.take_along_axis(returns, picks, axis=2).mean(axis=2)[:, None]
