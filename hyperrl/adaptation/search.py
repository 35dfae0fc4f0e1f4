"""Context search: the context that has the highest return, the agent being as it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.utils.extras import require

SIGMA = 0.3  # of the first candidates, in widths of the bounds


class ContextSearch:
    """CMA-ES (Hansen and Ostermeier 2001) over the outer bounds, each feature's mapped to [0, 1].

    The first candidate is the default context. After any number of episodes the answer is the candidate with the
    highest return: with a few episodes, the mean of CMA-ES's distribution has hardly moved yet. Since an easy
    initial state may flatter a bad candidate, one that beats the best is played once more, and the mean of both
    episodes counts.

    :param space: the features; irrelevant ones are searched too, since the agent does not know which they are.
    :param seed: the same seed, the same candidates for the same returns.
    :raises ValueError: where the library ``cma`` is missing.

    >>> from hyperrl import load_family
    >>> search = ContextSearch(load_family("ode").context_space)
    >>> for _ in range(60):
    ...     c = search.ask()
    ...     search.tell(-((c[0] + 3) ** 2) - (c[1] - 4) ** 2)
    >>> bool(abs(search.best - [-3, 4]).max() < 1)
    True
    """

    def __init__(self, space: ContextSpace, seed: int = 0) -> None:
        require("method 'search'", "adapt", "cma")
        import cma

        self.space = space
        rng = np.random.default_rng(seed)
        start = space.to_uniform(space.default)
        if len(start) == 1:
            start = np.append(start, 0.5)  # CMA-ES needs two dimensions: the second does nothing
        options = dict(
            bounds=[0.0, 1.0],
            randn=lambda *shape: rng.standard_normal(shape),
            seed=np.nan,  # else it would seed numpy's generator, which is everybody's
            verbose=-9,
            verb_log=0,
        )
        self._strategy: Any = cma.CMAEvolutionStrategy(start, SIGMA, options)
        self._strategy.inject([start], force=True)
        self._population: list[Any] = []
        self._costs: list[float] = []
        self._candidate = space.default
        self._played: list[float] = []  # the returns of the candidate
        self.best: Vector = space.default
        """The context with the highest return so far, shape ``(d,)``; the default one before the first episode."""
        self._best_earned = math.nan

    def ask(self) -> Vector:
        """Return the context to try next, shape ``(d,)``."""
        if not self._played:
            if len(self._costs) == len(self._population):
                self._population, self._costs = self._strategy.ask(), []
            point = self._population[len(self._costs)][: len(self.space)]
            self._candidate = self.space.from_uniform(point[None], bounds=True)[0]
        return self._candidate

    def tell(self, episode_return: float) -> None:
        """Say the return of the context asked for."""
        self._played.append(episode_return)
        mean = sum(self._played) / len(self._played)
        if mean > self._best_earned and len(self._played) == 1:
            return  # ask for it again
        if not mean <= self._best_earned:
            self.best, self._best_earned = self._candidate, mean
        self._costs.append(-mean)
        self._played = []
        if len(self._costs) == len(self._population):
            self._strategy.tell(self._population, self._costs)
