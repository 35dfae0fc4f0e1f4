"""Tables of AIB's agents with irrelevant features beside the context, and told a wrong context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from estimates import numbers, shown
from over_families import Table

from hyperrl.contexts import MESH_SPLITS
from hyperrl.evaluation import Report
from hyperrl.evaluation.pooling import pooled_iqm
from hyperrl.families import load_family

AGENTS = ("hyper-ppo", "concat-ppo")
SPLITS = (MESH_SPLITS[0], MESH_SPLITS[2], "interpolation")
SAID = {
    "noise": "with noise of {} half ranges",
    "other": "another's with probability {}",
}


def irrelevant(reports: Sequence[Report]) -> Table:
    """Return the scores of each agent with some numbers of irrelevant features, inside and outside.

    :param reports: of trainings with and without such features.
    """
    splits = SPLITS[:2]
    rows = []
    for family, n in sorted({(report.family, report.irrelevant) for report in reports}):
        of = {agent: _of(reports, family, agent, n) for agent in AGENTS}
        cells = [
            _score(family, [report.splits[split].returns for report in of[agent]])
            for split in splits
            for agent in AGENTS
        ]
        rows.append([family, str(n), numbers(map(len, of.values())), *cells])
    head = tuple(f"`{agent}`, `{split}`" for split in splits for agent in AGENTS)
    return ("family", "irrelevant", "seeds", *head), rows


def wrong(reports: Sequence[Report]) -> Table:
    """Return the scores of each agent where what it is told is wrong, inside the training range.

    :param reports: those of trainings without irrelevant features count.
    """
    rows = []
    for family in sorted({report.family for report in reports}):
        of = {agent: _of(reports, family, agent, 0) for agent in AGENTS}
        seeds = numbers(map(len, of.values()))
        true = [_score(family, [report.splits[SPLITS[2]].returns for report in of[agent]]) for agent in AGENTS]
        rows.append([family, "the true one", seeds, *true])
        for kind, said in SAID.items():
            series = {agent: [report.perturbations[kind] for report in of[agent]] for agent in AGENTS}
            for i, level in enumerate(series[AGENTS[0]][0].values if series[AGENTS[0]] else ()):
                if level == 0:  # as if it were not there
                    continue
                cells = [_score(family, [each.returns[i] for each in series[agent]]) for agent in AGENTS]
                rows.append([family, said.format(f"{level:g}"), seeds, *cells])
    return ("family", "the context told", "seeds", *(f"`{agent}`" for agent in AGENTS)), rows


def _of(reports: Sequence[Report], family: str, agent: str, n: int) -> list[Report]:
    return [report for report in reports if (report.family, report.agent, report.irrelevant) == (family, agent, n)]


def _score(family: str, returns: list[np.ndarray]) -> str:
    """Write the interquartile mean of returns, one array of each seed, by the greatest return there could be."""
    if not returns:
        return "–"
    shares = np.stack([each.reshape(1, -1) for each in returns]) / (load_family(family).max_episode_steps or 1)
    return shown(pooled_iqm([shares]))
