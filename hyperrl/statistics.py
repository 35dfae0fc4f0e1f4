"""Statistics of returns: the interquartile mean and its bootstrap interval (Agarwal et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Estimate(NamedTuple):
    """A statistic with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is left without its lowest and highest quarter.

    >>> float(interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]))
    3.5
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap_iqm(returns: ArrayLike, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the interquartile mean over contexts (and seeds) of the mean return, with its interval.

    With several training seeds, whole seeds are resampled: the contexts of one seed are played by one network,
    so they are not independent of each other. With a single seed the interval resamples the episodes within each
    context, and says nothing about how another seed would have learnt.

    :param returns: shape ``(seeds, contexts, episodes)``.
    :param resamples: bootstrap resamples.
    :param seed: seed of the resampling.
    """
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 3 or returns.size == 0:
        raise ValueError(f"expected returns of shape (seeds, contexts, episodes), got shape {returns.shape}")
    seeds, contexts, episodes = returns.shape
    rng = np.random.default_rng(seed)
    scores = returns.mean(axis=2)  # (seeds, contexts)
    if seeds > 1:
        drawn = scores[rng.integers(seeds, size=(resamples, seeds))]  # (resamples, seeds, contexts)
    else:
        picks = rng.integers(episodes, size=(resamples, contexts, episodes))
        drawn = np.take_along_axis(returns, picks, axis=2).mean(axis=2)  # (resamples, contexts)
    low, high = np.quantile(interquartile_mean(drawn.reshape(resamples, -1)), [0.025, 0.975])
    return Estimate(float(interquartile_mean(scores.ravel())), float(low), float(high))
