"""Statistics over several families, as rliable's are over tasks (Agarwal et al. 2021).

An agent has one array of scores a family, shape ``(seeds, contexts, episodes)``; numbers of seeds and contexts may
differ. Each family counts as much as another, and each of its seeds and contexts as much as another of that family.
Resamples draw the seeds of each family by themselves (a stratified bootstrap); see
:mod:`~hyperrl.evaluation.statistics` for what is drawn, and what an interval means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.evaluation.statistics import (
    Estimate,
    Vector,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    resample,
)

Groups = Sequence[ArrayLike]
"""Scores by family, each of shape ``(seeds, contexts, episodes)``."""


def pooled_iqm(scores: Groups, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the interquartile mean of the scores of all families.

    >>> print(pooled_iqm([[[[0.0], [1.0]]], [[[0.2], [0.8]]]]))
    0.500 [0.500, 0.500]
    """
    return Estimate(*map(float, _bootstrap(_interquartile_mean, [scores], resamples, seed)))


def pooled_gap(scores: Groups, target: float = 1.0, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate the optimality gap, the mean over families."""

    def gap(families: list[Vector]) -> Vector:
        return np.mean([optimality_gap(_flat(family), target) for family in families], axis=0)

    return Estimate(*map(float, _bootstrap(gap, [scores], resamples, seed)))


def pooled_profile(scores: Groups, thresholds: ArrayLike, resamples: int = 2000, seed: int = 0) -> Vector:
    """Return the fraction of scores above each threshold, the mean over families, and its interval: ``(3, t)``."""

    def profile(families: list[Vector]) -> Vector:
        return np.mean([performance_profile(_flat(family), thresholds) for family in families], axis=0)

    return _bootstrap(profile, [scores], resamples, seed)


def pooled_improvement(x: Groups, y: Groups, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate how probably a seed of agent x beats a seed of agent y in a context and on a family drawn at random."""

    def improvement(first: list[Vector], second: list[Vector]) -> Vector:
        return np.mean([probability_of_improvement(a, b) for a, b in zip(first, second, strict=True)], axis=0)

    return Estimate(*map(float, _bootstrap(improvement, [x, y], resamples, seed)))


def _interquartile_mean(families: list[Vector]) -> Vector:
    """Return the mean of the middle half of the weight of all scores, each family weighing 1: ``(resamples,)``."""
    flat = [_flat(family) for family in families]  # (resamples, n) each
    weights = np.concatenate([np.full(f.shape[-1], 1 / (len(flat) * f.shape[-1])) for f in flat])
    every = np.concatenate(flat, axis=-1)
    order = np.argsort(every, axis=-1)
    upper = np.cumsum(weights[order], axis=-1)
    lower = upper - weights[order]
    middle = np.clip(np.minimum(upper, 0.75) - np.maximum(lower, 0.25), 0, None)
    return (np.take_along_axis(every, order, axis=-1) * middle).sum(axis=-1) / middle.sum(axis=-1)


def _flat(scores: Vector) -> Vector:
    """Put seeds and contexts into one axis: ``(resamples, seeds, contexts)`` to ``(resamples, n)``."""
    return scores.reshape(len(scores), -1)


def _bootstrap(
    statistic: Callable[..., Vector], agents: Sequence[Groups], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return a statistic and its 95 % interval, shape ``(3, ...)``.

    :param statistic: takes a list of arrays ``(resamples, seeds, contexts)``, one a family, for each agent.
    """
    rng = np.random.default_rng(seed)
    arrays = [[np.asarray(family, dtype=np.float64) for family in agent] for agent in agents]
    drawn = [[resample(family, resamples, rng) for family in agent] for agent in arrays]
    low, high = np.quantile(statistic(*drawn), [0.025, 0.975], axis=0)
    return np.stack([statistic(*([family.mean(axis=2)[None] for family in agent] for agent in arrays))[0], low, high])
