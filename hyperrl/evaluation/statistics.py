"""Statistics of scores over seeds and contexts (Agarwal et al. 2021), with intervals that hold for few seeds.

The unit of an interval is the training seed. One network plays all contexts of a seed, so the contexts are not
independent draws, and the contexts are fixed: they are the benchmark, not a sample of it.

- **Interquartile mean, optimality gap, mean, performance profile.** The bootstrap resamples whole seeds and gives the
  statistic's standard error and skewness. At each end, the interval is the wider of Student's t interval with
  ``seeds - 1`` degrees of freedom and of Hall's interval, which corrects t for skewness (Hall 1992). The percentiles of
  the same resamples would be too narrow: with five seeds, nominal 95 % cover 82 %.
- **Probability of improvement.** The standard error is that of Mann and Whitney's U with seeds as units (DeLong et al.
  1988). The interval has the form of Wilson's, so it has a width where one agent wins every comparison too (Newcombe
  2006).
- **A single seed.** There is nothing to tell how seeds differ. The units are then the episodes in each context: the
  interval describes the noise of the evaluation and says nothing about another training.

``docs/evaluation.md`` has the coverage that a simulation measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

Vector = NDArray[np.float64]

LEVEL = 0.95
"""How often an interval is meant to hold the true value."""
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A statistic with its 95 % interval."""

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


def estimate_iqm(returns: ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the :func:`interquartile_mean` over seeds and contexts.

    :param returns: returns or scores, shape ``(seeds, contexts, episodes)``; episodes are averaged.
    :param seed: seed of the bootstrap: the same gives the same interval.
    :raises ValueError: for another shape, and for NaN or infinity.

    >>> print(estimate_iqm([[[0.9]], [[0.8]], [[1.0]], [[0.7]]]))
    0.850 [0.577, 1.142]
    """
    return Estimate(*studentised(lambda s: interquartile_mean(_pool(s[0])), [returns], seed).tolist())


def estimate_gap(scores: ArrayLike, target: float = 1.0, seed: int = 0) -> Estimate:
    """Estimate the :func:`optimality_gap` over seeds and contexts; parameters as in :func:`estimate_iqm`."""
    interval = studentised(lambda s: optimality_gap(_pool(s[0]), target), [scores], seed)
    return Estimate(*np.maximum(interval, 0.0).tolist())


def estimate_profile(scores: ArrayLike, thresholds: ArrayLike, seed: int = 0) -> Vector:
    """Estimate the :func:`performance_profile` over seeds and contexts: value, low and high, shape ``(3, t)``.

    The band holds 95 % at each threshold by itself. It has no width at a threshold where all seeds agree. Parameters as
    in :func:`estimate_iqm`.
    """
    return np.clip(studentised(lambda s: performance_profile(_pool(s[0]), thresholds), [scores], seed), 0.0, 1.0)


def estimate_mean(returns: ArrayLike, seed: int = 0) -> Vector:
    """Estimate the mean over seeds in each context by itself: value, low and high, shape ``(3, contexts)``.

    Parameters as in :func:`estimate_iqm`.
    """
    array = _checked(returns)
    if len(array) == 1:
        array = array.transpose(2, 1, 0)  # the units are the episodes
    return studentised(lambda s: s[0].mean(axis=-2), [array], seed)


def estimate_improvement(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the :func:`probability_of_improvement` of ``x`` over ``y``, both ``(seeds, contexts, episodes)``.

    The contexts must be the same ones in the same order. Other parameters as in :func:`estimate_iqm`.

    >>> print(estimate_improvement([[[0.9]], [[0.8]], [[1.0]]], [[[0.5]], [[0.6]], [[0.4]]]))
    1.000 [0.369, 1.000]
    """
    return mean_improvement([x], [y], seed)


def mean_improvement(xs: Sequence[ArrayLike], ys: Sequence[ArrayLike], seed: int = 0) -> Estimate:
    """Estimate the mean over families of the :func:`probability_of_improvement`.

    :param xs: by family, the scores of one agent, shape ``(seeds, contexts, episodes)``.
    :param ys: by family, the scores of the other agent in the same contexts.
    :param seed: as in :func:`estimate_iqm`.
    """
    pairs = [(_checked(x), _checked(y)) for x, y in zip(xs, ys, strict=True)]
    for x, y in pairs:
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"expected the same contexts, got {x.shape[1]} and {y.shape[1]} of them")
    if any(len(group) == 1 for pair in pairs for group in pair):
        groups = [group for pair in pairs for group in pair]

        def statistic(scores: Sequence[Vector]) -> Vector:
            return np.mean(list(map(probability_of_improvement, scores[::2], scores[1::2])), axis=0)

        return Estimate(*np.clip(studentised(statistic, groups, seed), 0.0, 1.0).tolist())
    means = [(x.mean(axis=2), y.mean(axis=2)) for x, y in pairs]
    return _wilson(
        [
            # Of each seed, how probably it beats one of the other agent, or is beaten: (s,) and (s',).
            (probability_of_improvement(x[:, None], y), probability_of_improvement(x, y[:, None]))
            for x, y in means
        ]
    )


def estimate_median(counts: ArrayLike, seed: int = 0) -> Estimate:
    """Estimate the lower median over seeds, contexts and repetitions, which exists among infinite values too.

    The interval is a percentile bootstrap of whole seeds: Student's t does not apply to infinite values. With a single
    seed the interval is the value.

    :param counts: for instance episodes until a target was reached, infinite where it never was, shape
        ``(seeds, contexts, n)``.
    :param seed: seed of the bootstrap.

    >>> print(estimate_median([[[1.0]], [[2.0]], [[np.inf]]]))
    2.0 [1.0, inf]
    """
    array = np.asarray(counts, dtype=np.float64)
    array = array.reshape(len(array), -1)  # (seeds, contexts * n)
    picks = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    medians = _quantile(array[picks].reshape(RESAMPLES, -1), 0.5)
    low, high = (_quantile(medians, q) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(_quantile(array.ravel(), 0.5)), float(low), float(high))


def studentised(
    statistic: Callable[[Sequence[Vector]], Vector], groups: Sequence[ArrayLike], seed: int = 0
) -> NDArray[np.float64]:
    """Return a statistic of independent groups of seeds, and its interval; see the top of this module.

    Each group is resampled by itself while the others stay, so that its part of the variance and its number of seeds
    are known; degrees of freedom are Welch's.

    :param statistic: maps the scores of all groups, arrays of shape ``(..., seeds, contexts)``, to ``(..., *n)``; the
        order of the seeds does not matter to it.
    :param groups: arrays of shape ``(seeds, contexts, episodes)``, for instance one a family.
    :param seed: seed of the bootstrap.
    :return: value, low and high, shape ``(3, *n)``.
    """
    arrays = [_checked(group) for group in groups]
    scores = [array.mean(axis=2) for array in arrays]
    value = np.asarray(statistic(scores))
    rng = np.random.default_rng(seed)
    variance, third, spread = np.zeros((3, *value.shape))
    for i, array in enumerate(arrays):
        resampled, inverse = _resample(array, rng)
        drawn = [np.broadcast_to(group, (len(resampled), *group.shape)) for group in scores]
        drawn[i] = resampled
        replicates = statistic(drawn)[inverse]  # (RESAMPLES, *n)
        deviation = replicates - replicates.mean(axis=0)
        part, cubed = np.square(deviation).mean(axis=0), np.power(deviation, 3).mean(axis=0)
        n, contexts, episodes = array.shape
        if n == 1:
            freedom = max(contexts * (episodes - 1), 1)
        else:  # what a resample lacks in variance and in the third moment, which is zero for two values
            freedom = n - 1
            part *= n / (n - 1)
            cubed *= n**2 / ((n - 1) * (n - 2)) if n > 2 else 0.0
        variance, third, spread = variance + part, third + cubed, spread + part**2 / freedom
    t = stdtrit(np.where(spread > 0, variance**2 / np.where(spread > 0, spread, 1.0), 1.0), (1 + LEVEL) / 2)
    error = np.sqrt(variance)
    skewness = third / np.where(error > 0, error, 1.0) ** 3
    below, above = np.maximum(t, _hall(t, skewness)), np.maximum(t, -_hall(-t, skewness))
    return np.stack([value, value - below * error, value + above * error])


def _hall(t: Vector, skewness: Vector) -> Vector:
    """Return the studentised value that Hall's cubic transformation, which removes skewness, maps to ``t``.

    Solve ``t = T + λ·T²/3 + λ²·T³/27 + λ/6`` for T, λ being the skewness of the estimate (Hall 1992).
    """
    skewed = np.abs(skewness) > 1e-6
    safe = np.where(skewed, skewness, 1.0)
    return np.where(skewed, 3 / safe * (np.cbrt(1 + safe * (t - safe / 6)) - 1), t)


def _wilson(families: Sequence[tuple[Vector, Vector]]) -> Estimate:
    """Return the mean probability of improvement and its interval: all θ with ``|value - θ| ≤ t·√(k·θ·(1 - θ))``.

    k is the variance of the value relative to θ·(1 - θ). It is measured where the value lies between 0 and 1. Near 0
    and 1 there is little to measure it by, and k goes to what it is when all contexts of a seed agree (Newcombe 2006).

    :param families: for each seed of the first agent, how probably it beats a seed of the second, shape ``(s,)``, and
        for each seed of the second, how probably a seed of the first beats it, shape ``(s',)``.
    """
    value = float(np.mean([wins.mean() for wins, _ in families]))
    groups = [group for pair in families for group in pair]
    parts = [group.var(ddof=1) / len(group) / len(families) ** 2 for group in groups]
    variance = sum(parts)
    freedom = sum(len(group) - 1 for group in groups)
    if variance > 0:  # Welch and Satterthwaite
        freedom = variance**2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    pairs = [(len(wins) * len(losses), (len(wins) + len(losses)) / 2) for wins, losses in families]
    agreeing = sum((1 + (mean - 1) / 2) / n for n, mean in pairs) / len(families) ** 2
    weight = 1 / (2 * sum(n for n, _ in pairs))
    k = min((variance + weight * agreeing) / (value * (1 - value) + weight), 1.0)
    scale = float(stdtrit(freedom, (1 + LEVEL) / 2)) ** 2 * k
    center = (value + scale / 2) / (1 + scale)
    reach = np.sqrt(scale * value * (1 - value) + scale**2 / 4) / (1 + scale)
    return Estimate(value, min(max(float(center - reach), 0.0), value), max(min(float(center + reach), 1.0), value))


def _quantile(values: Vector, q: float) -> Vector:
    """Return the lower quantile of the last axis: numpy's would make NaN of infinite values."""
    return np.sort(values, axis=-1)[..., int(q * (values.shape[-1] - 1))]


def _pool(scores: Vector) -> Vector:
    """Put seeds and contexts into one axis: ``(..., seeds, contexts)`` to ``(..., seeds * contexts)``."""
    return scores.reshape(*scores.shape[:-2], -1)


def _checked(returns: ArrayLike) -> Vector:
    array = np.asarray(returns, dtype=np.float64)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"expected returns of shape (seeds, contexts, episodes), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("expected finite returns, got NaN or infinity")
    return array


def _resample(returns: Vector, rng: np.random.Generator) -> tuple[Vector, NDArray[np.intp]]:
    """Resample whole seeds, or one seed's episodes.

    :return: the scores of ``r`` different resamples, shape ``(r, seeds, contexts)``, and which of these each one is,
        shape ``(RESAMPLES,)``. Few seeds have few different resamples, five of them 126.
    """
    seeds, contexts, episodes = returns.shape
    if seeds > 1:
        picks = np.sort(rng.integers(seeds, size=(RESAMPLES, seeds)), axis=1)
        distinct, inverse = np.unique(picks, axis=0, return_inverse=True)
        return returns.mean(axis=2)[distinct], inverse.reshape(-1)
    # One episode fewer than there are: the mean of n of them would vary too little, by (n - 1) / n.
    picks = rng.integers(episodes, size=(RESAMPLES, contexts, max(episodes - 1, 1)))
    return np.take_along_axis(returns, picks, axis=2).mean(axis=2)[:, None], np.arange(RESAMPLES)
