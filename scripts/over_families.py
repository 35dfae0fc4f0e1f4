"""Scores of agents over all small families, between those of random actions and of the best agent known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from hyperrl import load_family
from hyperrl.contexts import SPLITS, Vector
from hyperrl.evaluation import Report, Split
from hyperrl.evaluation.pooling import pooled_difference, pooled_iqm
from hyperrl.evaluation.statistics import Estimate, estimate_iqm
from hyperrl.experiments.comparison import Comparison
from hyperrl.rollouts.episodes import random_returns

DEVELOPMENT = (
    *("pendulum", "cartpole", "ode", "double_integrator", "double_integrator_friction"),
    *("quadrotor", "boat", "thermostat"),
)
"""The families by which a design may be chosen."""
JUDGEMENT = ("two_link_arm", "lane_keeping", "predator_prey", "epidemic", "tanks", "acrobot")
"""Those that are looked at once it is chosen; docs/extrapolation.md has the protocol."""
AGENTS = ("hyper-ppo", "adapter-ppo", "film-ppo", "concat-ppo")
CONCAT = ("concat-ppo", "concat-slow-ppo")
CONTEXTS, EPISODES = 20, 10
DISTANCES = (0.0, 0.25, 0.5, 1.0)
"""Ends of classes of distances from the training range, in widths of it."""
LEAST = 0.1
"""The least gain over random actions that has score 1, as a share of the family's median: no score divides by zero."""

Scores = dict[str, dict[str, Vector]]
"""By agent and family, scores of shape ``(seeds, contexts, episodes)``."""


def random_report(family: str, folder: Path) -> Report:
    """Read what random actions return in the contexts of :func:`hyperrl.evaluate`; play them where no file has it."""
    path = folder / f"{family}.json"
    if not path.exists():
        of = load_family(family)
        splits = {}
        for split in SPLITS:
            contexts = of.context_space.sample(split, CONTEXTS, 0)
            splits[split] = Split(contexts, random_returns(of, contexts, EPISODES).round(4))
        Report(family, splits, agent="random", seed=0).save(path)
    return Report.load(path)


def scored(comparisons: Mapping[str, Comparison], split: str, folder: Path) -> tuple[Scores, dict[str, Vector]]:
    """Return the scores of each agent on each family, and the contexts ``(n, d)`` of each family.

    In each context random actions have score 0, and the agent with the highest mean return over its seeds has score 1,
    unless it gains very little there (``LEAST``). On each family concat has the learning rate, of two, with the higher
    return outside the training range.
    """
    scores: Scores = {agent: {} for agent in AGENTS}
    contexts = {}
    for family, comparison in comparisons.items():
        if not {*AGENTS, *CONCAT} <= {*comparison.agents}:
            continue
        outside = partial(comparison.returns, split="extrapolation")
        concat = max(CONCAT, key=lambda name: estimate_iqm(outside(name)).value)
        played = {name: comparison.returns(name, split) for name in (*AGENTS, *CONCAT)}
        at = comparison.reports["hyper-ppo"][0].splits[split].contexts
        random = random_report(family, folder).splits[split]
        if not np.allclose(random.contexts, at):
            raise ValueError(f"{family}: random actions were played in other contexts: remove {folder / family}.json")
        low = random.returns.mean(axis=1)  # (n,)
        gain = np.max([returns.mean(axis=(0, 2)) for returns in played.values()], axis=0) - low
        gain = np.maximum(gain, LEAST * np.median(gain))[:, None]
        contexts[family] = at
        for agent in AGENTS:
            returns = played[concat if agent == "concat-ppo" else agent]
            scores[agent][family] = (returns - low[:, None]) / gain
    return scores, contexts


def score_rows(scores: Scores) -> list[list[str]]:
    """Return rows of interquartile means over families, of differences to hyper-ppo, and of the worst families."""
    families = list(scores[AGENTS[0]])
    groups = {
        "development": [family for family in DEVELOPMENT if family in families],
        "judgement": [family for family in JUDGEMENT if family in families],
        "all": families,
    }
    rows = []
    for name, group in groups.items():
        of = {agent: [scores[agent][family] for family in group] for agent in AGENTS}
        rows.append([f"{name} ({len(group)})", *(_shown(pooled_iqm(of[agent])) for agent in AGENTS)])
        less = [_shown(pooled_difference(of[AGENTS[0]], of[agent])) for agent in AGENTS[1:]]
        rows.append([f"{name}: `hyper-ppo` less it", "", *less])
    means = {agent: {family: _iqm(scores[agent][family]) for family in families} for agent in AGENTS}
    best = {family: max(means[agent][family] for agent in AGENTS) for family in families}
    rows.append(["lowest score", *(_lowest(means[agent]) for agent in AGENTS)])
    behind = {agent: {family: means[agent][family] - best[family] for family in families} for agent in AGENTS}
    rows.append(["farthest behind the best", *(_lowest(behind[agent]) for agent in AGENTS)])
    return rows


def distance_rows(scores: Scores, contexts: Mapping[str, Vector]) -> list[list[str]]:
    """Return rows of interquartile means over families, by the distance of the farthest feature from the range."""
    beyond = {family: load_family(family).context_space.beyond(at).max(axis=1) for family, at in contexts.items()}
    rows = []
    for low, high in pairwise(DISTANCES):
        of = {family: (low < d) & (d <= high) for family, d in beyond.items()}
        within = [family for family, mask in of.items() if mask.sum() > 1]
        estimates = (pooled_iqm([scores[agent][family][:, of[family]] for family in within]) for agent in AGENTS)
        rows.append([f"{low:g} to {high:g}", str(len(within)), *map(_shown, estimates)])
    return rows


def tables(comparisons: Mapping[str, Comparison], folder: Path) -> dict[str, tuple[Sequence[str], list[list[str]]]]:
    """Return heads and rows of the tables by their names."""
    titles = [f"`{agent}`" for agent in AGENTS]
    made: dict[str, tuple[Sequence[str], list[list[str]]]] = {}
    for split in SPLITS[1:]:
        scores, contexts = scored(comparisons, split, folder)
        made[f"over families {split}"] = (("families", *titles), score_rows(scores))
        if split == "extrapolation":
            made["over families distance"] = (("widths outside", "families", *titles), distance_rows(scores, contexts))
    return made


def _iqm(scores: Vector) -> float:
    return estimate_iqm(scores).value


def _lowest(of: Mapping[str, float]) -> str:
    family = min(of, key=lambda name: of[name])
    return f"{of[family]:.3f} ({family})".replace("-", "−")


def _shown(estimate: Estimate) -> str:
    return str(estimate).replace("-", "−")
