"""Statistics over several families, as rliable's are over tasks (Agarwal et al. 2021).

An agent has one array of scores a family, shape ``(seeds, contexts, episodes)``; numbers of seeds and contexts may
differ. Each family counts as much as another, and each of its seeds and contexts as much as another of that family.
The seeds of each family are resampled by themselves (a stratified bootstrap); see
:mod:`~hyperrl.evaluation.statistics` for how the intervals are made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.evaluation.statistics import (
    Estimate,
    Vector,
    mean_improvement,
    optimality_gap,
    performance_profile,
    studentised,
)

Groups = Sequence[ArrayLike]
"""Scores by family, each of shape ``(seeds, contexts, episodes)``."""


def pooled_iqm(scores: Groups, seed: int = 0) -> Estimate:
    """Estimate the interquartile mean of the scores of all families.

    >>> print(pooled_iqm([[[[0.0], [1.0]]], [[[0.2], [0.8]]]]))
    0.500 [0.500, 0.500]
    """
    return Estimate(*studentised(_interquartile_mean, scores, seed).tolist())


def pooled_difference(x: Groups, y: Groups, seed: int = 0) -> Estimate:
    """Estimate by how much the interquartile mean of agent x exceeds that of agent y, over the same families.

    >>> print(pooled_difference([[[[0.5], [1.0]]], [[[0.5], [0.9]]]], [[[[0.25], [0.75]]], [[[0.25], [0.65]]]]))
    0.250 [0.250, 0.250]
    """

    def difference(groups: Sequence[Vector]) -> Vector:
        return _interquartile_mean(groups[: len(x)]) - _interquartile_mean(groups[len(x) :])

    return Estimate(*studentised(difference, [*x, *y], seed).tolist())


def pooled_gap(scores: Groups, target: float = 1.0, seed: int = 0) -> Estimate:
    """Estimate the optimality gap, the mean over families."""

    def gap(families: Sequence[Vector]) -> Vector:
        return np.mean([optimality_gap(_flat(family), target) for family in families], axis=0)

    return Estimate(*np.maximum(studentised(gap, scores, seed), 0.0).tolist())


def pooled_profile(scores: Groups, thresholds: ArrayLike, seed: int = 0) -> Vector:
    """Return the fraction of scores above each threshold, the mean over families, and its interval: ``(3, t)``."""

    def profile(families: Sequence[Vector]) -> Vector:
        return np.mean([performance_profile(_flat(family), thresholds) for family in families], axis=0)

    return np.clip(studentised(profile, scores, seed), 0.0, 1.0)


def pooled_improvement(x: Groups, y: Groups, seed: int = 0) -> Estimate:
    """Estimate how probably a seed of agent x beats a seed of agent y in a context and on a family drawn at random."""
    return mean_improvement(x, y, seed)


def _interquartile_mean(families: Sequence[Vector]) -> Vector:
    """Return the mean of the middle half of the weight of all scores, each family weighing 1: ``(...)``."""
    flat = [_flat(family) for family in families]  # (..., n) each
    weights = np.concatenate([np.full(f.shape[-1], 1 / (len(flat) * f.shape[-1])) for f in flat])
    every = np.concatenate(flat, axis=-1)
    if np.ptp(weights) == 0:
        every = np.sort(every, axis=-1)  # quicker, and then the order does not matter for the weights
    else:
        order = np.argsort(every, axis=-1)
        every, weights = np.take_along_axis(every, order, axis=-1), weights[order]
    upper = np.cumsum(weights, axis=-1)
    middle = np.clip(np.minimum(upper, 0.75) - np.maximum(upper - weights, 0.25), 0, None)
    return (every * middle).sum(axis=-1) / middle.sum(axis=-1)


def _flat(scores: Vector) -> Vector:
    """Put seeds and contexts into one axis: ``(..., seeds, contexts)`` to ``(..., n)``."""
    return scores.reshape(*scores.shape[:-2], -1)
