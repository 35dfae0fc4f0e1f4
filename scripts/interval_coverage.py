"""How often the intervals of hyperrl.evaluation hold the true value: a simulation with few seeds, as a Markdown table.

The contexts of a seed are no independent draws. The true value is that of very many seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tyro

from hyperrl.evaluation import statistics

CONTEXTS = 20
LEVEL = np.random.default_rng(5).uniform(0.2, 0.95, CONTEXTS)  # how good everybody is in each context
Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draw the scores of some seeds, shape ``(seeds, contexts)``."""


def normal(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """A seed is better or worse in all contexts, by a normal deviation."""
    return LEVEL + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.1, (seeds, CONTEXTS))


def skewed(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Exponential: most seeds are good, some are much worse."""
    return LEVEL - rng.exponential(0.15, (seeds, 1)) + rng.normal(0, 0.05, (seeds, CONTEXTS))


def near_one(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Bounded by 1 and close to it: a beta distribution."""
    return 1 - rng.beta(1, 8, (seeds, 1)) - 0.05 * rng.beta(1, 3, (seeds, CONTEXTS))


def bimodal(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Half of the seeds fail in all contexts."""
    return _mixture(rng, seeds, 0.5)


def rare_failure(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Three seeds in ten fail; five seeds that all succeed, one case in six, cannot know."""
    return _mixture(rng, seeds, 0.7)


def heavy_tail(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Log-normal: a few seeds are worse by far."""
    return 1 - 0.1 * rng.lognormal(0, 1, (seeds, 1)) + rng.normal(0, 0.02, (seeds, CONTEXTS))


def per_context(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """A seed is better in some contexts and worse in others."""
    slope = rng.normal(0, 0.15, (seeds, 1)) * np.linspace(-1, 1, CONTEXTS)
    return LEVEL + slope + rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.03, (seeds, CONTEXTS))


def corner(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """All are at the top, but half of the seeds fail in a quarter of the contexts."""
    fails = (rng.random((seeds, 1)) < 0.5) & (np.arange(CONTEXTS) < CONTEXTS // 4)
    high = 0.98 + rng.normal(0, 0.01, (seeds, CONTEXTS))
    return np.where(fails, rng.uniform(0, 0.5, (seeds, CONTEXTS)), high)


def _mixture(rng: np.random.Generator, seeds: int, share: float) -> np.ndarray:
    good, bad = 0.95 + rng.normal(0, 0.02, (seeds, 1)), 0.4 + rng.normal(0, 0.05, (seeds, 1))
    return np.where(rng.random((seeds, 1)) < share, good, bad) + rng.normal(0, 0.03, (seeds, CONTEXTS))


DRAWS: dict[str, Draw] = {
    "normal": normal,
    "skewed (exponential)": skewed,
    "bounded near 1": near_one,
    "differs by context": per_context,
    "fails in a corner": corner,
    "bimodal, half fail": bimodal,
    "heavy tail (log-normal)": heavy_tail,
    "3 in 10 seeds fail": rare_failure,
}
STATISTICS: dict[str, tuple[Callable[..., np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "IQM": (lambda x: np.array(statistics.estimate_iqm(x)), lambda x: statistics.interquartile_mean(x.ravel())),
    "optimality gap": (lambda x: np.array(statistics.estimate_gap(x)), lambda x: statistics.optimality_gap(x.ravel())),
    "mean of a context": (lambda x: statistics.estimate_mean(x)[:, 0], lambda x: x.mean(axis=0)[0]),
}
SHIFTS = (0.0, 0.1, 0.25)
"""By how much one of two agents is better, for the probability of improvement."""


def coverage(estimate: Callable[..., np.ndarray], truth: float, draws: Sequence[Sequence[np.ndarray]]) -> float:
    """Return the share of the draws whose interval holds the truth."""
    intervals = np.array([estimate(*(scores[:, :, None] for scores in scores_of)) for scores_of in draws])
    return float(np.mean((intervals[:, 1] <= truth + 1e-12) & (truth - 1e-12 <= intervals[:, 2])))


def coverage_of(statistic: str, draw: Draw, seeds: int, repetitions: int) -> float:
    """Return how often an interval of one agent's statistic holds the value that it has with very many seeds."""
    estimate, exact = STATISTICS[statistic]
    rng = np.random.default_rng(0)
    truth = float(np.mean([exact(draw(rng, 4_000)) for _ in range(5)]))
    return coverage(estimate, truth, [[draw(rng, seeds)] for _ in range(repetitions)])


def coverage_of_improvement(draw: Draw, shift: float, seeds: int, repetitions: int) -> float:
    """Return how often the interval of the probability of improvement holds that of very many seeds."""
    rng = np.random.default_rng(0)
    many = [(draw(rng, 500) + shift, draw(rng, 500)) for _ in range(8)]
    truth = float(np.mean([statistics.probability_of_improvement(x, y) for x, y in many]))
    draws = [[draw(rng, seeds) + shift, draw(rng, seeds)] for _ in range(repetitions)]
    return coverage(lambda x, y: np.array(statistics.estimate_improvement(x, y)), truth, draws)


def main(seeds: tuple[int, ...] = (3, 5, 10), repetitions: int = 2000) -> None:
    """Print the coverage of nominal 95 % intervals in percent, for each number of seeds.

    Args:
        seeds: Numbers of seeds.
        repetitions: Simulated experiments in each cell.
    """
    print("| scores | " + " | ".join((*STATISTICS, "improvement")) + " |")
    print("| --- " * (len(STATISTICS) + 2) + "|")
    for name, draw in DRAWS.items():
        rows = [[coverage_of(statistic, draw, n, repetitions) for n in seeds] for statistic in STATISTICS]
        rows.append([min(coverage_of_improvement(draw, shift, n, repetitions) for shift in SHIFTS) for n in seeds])
        print(f"| {name} | " + " | ".join(", ".join(f"{100 * c:.0f}" for c in row) for row in rows) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
