"""How returns fall with the distance of the context from the training range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.evaluation.reference import Reference
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.statistics import Estimate, estimate_iqm

EDGES: Final = (-math.inf, 0.0, 0.25, 0.5, 1.0, math.inf)
"""Ends of the classes of distances, in widths of the training range; the first class is the training range."""


@dataclass(frozen=True)
class NoveltyClass:
    """The contexts at similar distances from the training range.

    :param low: the least distance in widths of the training range, not included.
    :param high: the largest, included.
    :param contexts: how many contexts lie there.
    :param iqm: interquartile mean of their scores, or of their returns.
    """

    low: float
    high: float
    contexts: int
    iqm: Estimate

    def __str__(self) -> str:
        if self.high == 0:
            return "inside the range"
        return f"up to {self.high:g}" if math.isfinite(self.high) else f"beyond {self.low:g}"


@dataclass(frozen=True)
class ByNovelty:
    """How results depend on the distance from the training range.

    :param classes: those that have contexts, from near to far.
    :param correlation: Spearman's rank correlation of distance and mean result over all contexts; NaN where one of
        them is constant.
    :param is_scored: whether results are scores; else they are returns.
    """

    classes: tuple[NoveltyClass, ...]
    correlation: float
    is_scored: bool


def by_novelty(report: Report, reference: Reference | None = None) -> ByNovelty:
    """Sort the contexts of all splits by their distance from the training range.

    :param report: of :func:`hyperrl.evaluate`.
    :param reference: for scores; returns are taken where it lacks a context.
    :raises ValueError: for a report without distances, as a file of another program may be.
    """
    novelty, returns, contexts = [], [], []
    for name, split in report.splits.items():
        if split.novelty is None:
            raise ValueError(f"the report does not say how far the contexts of {name!r} lie outside the training range")
        novelty.append(split.novelty)
        returns.append(split.returns)
        contexts.append(split.contexts)
    distance, values = np.concatenate(novelty), np.concatenate(returns)
    scores = None if reference is None else reference.scores(np.concatenate(contexts), values)
    is_scored = scores is not None and bool(np.isfinite(scores).all())
    values = scores if scores is not None and is_scored else values
    classes = []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        of = (low < distance) & (distance <= high)
        if of.any():
            classes.append(NoveltyClass(low, high, int(of.sum()), estimate_iqm(values[None, of])))
    return ByNovelty(tuple(classes), rank_correlation(distance, values.mean(axis=1)), is_scored)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rank correlation of ``x`` and ``y``, each ``(n,)``; NaN where one of them is constant.

    >>> round(rank_correlation([0.0, 0.1, 0.3], [1.0, 0.2, 0.9]), 3)
    -0.5
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])  # that of scipy.stats, which takes a second to import


def _ranks(x: ArrayLike) -> NDArray[np.float64]:
    """Rank numbers ``(n,)`` from 1 on; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]
