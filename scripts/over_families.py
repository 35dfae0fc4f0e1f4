"""Scores of agents over all small families, between those of random actions and of the best agent known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from estimates import shown

from hyperrl import load_family
from hyperrl.contexts import SPLITS, Vector
from hyperrl.evaluation import Report, Split
from hyperrl.evaluation.pooling import pooled_difference, pooled_iqm
from hyperrl.evaluation.statistics import estimate_iqm
from hyperrl.experiments.comparison import Comparison
from hyperrl.rollouts.episodes import random_returns

DEVELOPMENT = (
    *("pendulum", "cartpole", "ode", "double_integrator", "double_integrator_friction"),
    *("quadrotor", "boat", "thermostat"),
)
"""The families by which a design may be chosen."""
JUDGEMENT = ("two_link_arm", "lane_keeping", "predator_prey", "epidemic", "tanks", "acrobot")
"""Those that are looked at once it is chosen; docs/extrapolation.md has the protocol."""
Agents = Mapping[str, tuple[str, ...]]
AGENTS: Agents = {
    **{name: (name,) for name in ("hyper-ppo", "adapter-ppo", "film-ppo")},
    "concat-ppo": ("concat-ppo", "concat-slow-ppo"),
}
"""What stands in the columns, and of which agents it is the better on each family."""
BODIES: Agents = {name: (name,) for name in ("mujoco-hyper-ppo", "mujoco-concat-ppo", "mujoco-unaware-ppo")}
"""The same for MuJoCo's bodies."""
CONTEXTS, EPISODES = 20, 10
DISTANCES = (0.0, 0.25, 0.5, 1.0)
"""Ends of classes of distances from the training range, in widths of it."""
LEAST = 0.1
"""The least gain over random actions that has score 1, as a share of the family's median: no score divides by zero."""

Table = tuple[Sequence[str], list[list[str]]]
"""A head and rows."""
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


def scored(
    comparisons: Mapping[str, Comparison], split: str, folder: Path, agents: Agents
) -> tuple[Scores, dict[str, Vector]]:
    """Return the scores of each agent on each family, and the contexts ``(n, d)`` of each family.

    In each context random actions have score 0, and the agent with the highest mean return over its seeds has score 1,
    unless it gains very little there (``LEAST``). Where an agent has several learning rates, each family has the one
    with the higher return outside the training range. Families without one of the agents are left out.
    """
    scores: Scores = {agent: {} for agent in agents}
    contexts = {}
    every = [name for names in agents.values() for name in names]
    for family, comparison in comparisons.items():
        if not {*every} <= {*comparison.agents}:
            continue
        outside = {name: estimate_iqm(comparison.returns(name, "extrapolation")).value for name in every}
        played = {name: comparison.returns(name, split) for name in comparison.agents}
        at = comparison.reports[every[0]][0].splits[split].contexts
        random = random_report(family, folder).splits[split]
        if not np.allclose(random.contexts, at):
            raise ValueError(f"{family}: random actions were played in other contexts: remove {folder / family}.json")
        of_family = between(random.returns.mean(axis=1), played)
        contexts[family] = at
        for agent, names in agents.items():
            scores[agent][family] = of_family[max(names, key=lambda name: outside[name])]
    return scores, contexts


def between(low: Vector, played: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return scores between the returns of random actions and of the best agent in each context.

    :param low: mean returns of random actions, shape ``(n,)``.
    :param played: returns of each agent, shape ``(seeds, n, episodes)``.

    >>> played = {"best": np.array([[[10.0], [4.0]]]), "other": np.array([[[0.0], [3.0]]])}
    >>> between(np.array([-10.0, 0.0]), played)["other"]
    array([[[0.5 ],
            [0.75]]])
    """
    gain = np.max([returns.mean(axis=(0, 2)) for returns in played.values()], axis=0) - low  # (n,)
    gain = np.maximum(gain, LEAST * np.median(gain))
    return {agent: (returns - low[:, None]) / gain[:, None] for agent, returns in played.items()}


def score_rows(scores: Scores, groups: Mapping[str, Sequence[str]], judged: Sequence[str]) -> list[list[str]]:
    """Return rows of interquartile means over families, of differences to the first agent, and of the worst families.

    :param groups: families by the name of the group.
    :param judged: the groups in which agents are compared.
    """
    first, *others = scores
    rows = []
    for name, group in groups.items():
        of = {agent: [scores[agent][family] for family in group] for agent in scores}
        rows.append([f"{name} ({len(group)})", *(shown(pooled_iqm(of[agent])) for agent in scores)])
        if name in judged:
            less = [shown(pooled_difference(of[first], of[agent])) for agent in others]
            rows.append([f"{name}: `{first}` less it", "", *less])
    means = {agent: {family: estimate_iqm(s).value for family, s in of.items()} for agent, of in scores.items()}
    best = {family: max(means[agent][family] for agent in scores) for family in scores[first]}
    rows.append(["lowest score", *(_lowest(means[agent]) for agent in scores)])
    behind = {agent: {family: means[agent][family] - best[family] for family in best} for agent in scores}
    rows.append(["farthest behind the best", *(_lowest(behind[agent]) for agent in scores)])
    return rows


def distance_rows(scores: Scores, contexts: Mapping[str, Vector]) -> list[list[str]]:
    """Return rows of interquartile means over families, by the distance of the farthest feature from the range."""
    beyond = {family: load_family(family).context_space.beyond(at).max(axis=1) for family, at in contexts.items()}
    rows = []
    for low, high in pairwise(DISTANCES):
        of = {family: (low < d) & (d <= high) for family, d in beyond.items()}
        within = [family for family, mask in of.items() if mask.sum() > 1]
        estimates = (pooled_iqm([each[family][:, of[family]] for family in within]) for each in scores.values())
        rows.append([f"{low:g} to {high:g}", str(len(within)), *map(shown, estimates)])
    return rows


def table(name: str, small: Mapping[str, Comparison], folder: Path) -> Table:
    """Return a table over the small families.

    :param name: a split, or ``"distance"``: by distance, outside the training range.
    :param small: comparisons by family.
    :param folder: where the returns of random actions are.
    """
    titles = [f"`{agent}`" for agent in AGENTS]
    scores, contexts = scored(small, "extrapolation" if name == "distance" else name, folder, AGENTS)
    if name == "distance":
        return ("widths outside", "families", *titles), distance_rows(scores, contexts)
    groups = {
        "development": [family for family in contexts if family in DEVELOPMENT],
        "judgement": [family for family in contexts if family in JUDGEMENT],
        "all": list(contexts),
    }
    # A design was chosen on the development families: what is better there says little.
    return ("families", *titles), score_rows(scores, groups, judged=("judgement", "all"))


def table_of_bodies(split: str, bodies: Mapping[str, Comparison], folder: Path) -> Table:
    """Return a table over MuJoCo's bodies; parameters as in :func:`table`."""
    scores, contexts = scored(bodies, split, folder, BODIES)
    return ("families", *(f"`{agent}`" for agent in BODIES)), score_rows(scores, {"all": list(contexts)}, ("all",))


def _lowest(of: Mapping[str, float]) -> str:
    family = min(of, key=lambda name: of[name])
    return f"{of[family]:.3f} ({family})".replace("-", "−")
