"""Returns of trained agents where one feature at a time leaves the training range, the others at their default.

    python scripts/over_features.py runs/suite/*

One small file a run in docs/results/features/; `scripts/results` makes the table of docs/extrapolation.md from them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from estimates import shown
from over_families import Table, between
from tyro.conf import Positional

import hyperrl
from hyperrl.contexts import ContextSpace, Vector
from hyperrl.evaluation.pooling import pooled_iqm
from hyperrl.rollouts.episodes import play, random_returns
from hyperrl.utils.files import write_text

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "features"
DISTANCES = (0.0, 0.25, 0.5, 1.0)
EPISODES = 10


def main(runs: Positional[tuple[Path, ...]], out: Path = FOLDER) -> None:
    """Play what has not been played yet.

    Args:
        runs: Run folders.
        out: Folder of the files.
    """
    torch.set_num_threads(1)
    for path in runs:
        run = hyperrl.Run.open(path)
        family, training = run.family, run.training
        contexts = np.concatenate([*points(family.context_space).values()])
        random = out / f"{family.name}-random.json"
        if not random.exists():
            write_text(random, _dumped(family.name, "random", 0, random_returns(family, contexts, EPISODES)))
        file = out / f"{path.name}.json"
        if not file.exists():
            returns = play(run.model("cpu"), family, contexts, EPISODES).returns
            write_text(file, _dumped(family.name, training.agent, training.seed, returns))
            print(file, flush=True)


def points(space: ContextSpace) -> dict[float, Vector]:
    """Return by distance the contexts ``(m, d)`` in which one feature is so many widths outside its range.

    >>> from hyperrl.contexts import Feature
    >>> points(ContextSpace((Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),)),)))[0.25]
    array([[1.75],
           [0.25]])
    """
    low, high = space.train_range
    found: dict[float, Vector] = {}
    for distance in DISTANCES:
        rows = np.repeat(space.default[None], 2 * len(space), axis=0)
        for i in range(len(space)):
            rows[2 * i, i] = high[i] + distance * (high[i] - low[i])
            rows[2 * i + 1, i] = low[i] - distance * (high[i] - low[i])
        found[distance] = rows[space.in_bounds(rows)]
    return found


def table(agents: Sequence[str], folder: Path = FOLDER) -> Table:
    """Return the table of scores by distance, those of all features of all families pooled.

    :param agents: families are those of which every agent has been played.
    """
    returns: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        returns[cell["family"]][cell["agent"]].append(cell["returns"])
    scores, distances = {}, {}
    for family, of in sorted(returns.items()):
        if of.keys() >= {*agents}:
            played = {agent: np.array(of[agent])[..., None] for agent in agents}  # (seeds, n, 1)
            scores[family] = between(np.array(of["random"][0]), played)
            contexts = points(hyperrl.load_family(family).context_space)
            distances[family] = np.concatenate([np.full(len(rows), d) for d, rows in contexts.items()])  # (n,)
    rows = []
    for distance in DISTANCES:
        of = {family: beyond == distance for family, beyond in distances.items()}
        within = [family for family, mask in of.items() if mask.any()]
        estimates = (pooled_iqm([scores[family][agent][:, of[family]] for family in within]) for agent in agents)
        rows.append([f"{distance:g}", str(len(within)), *map(shown, estimates)])
    return ("widths outside", "families", *(f"`{agent}`" for agent in agents)), rows


def _dumped(family: str, agent: str, seed: int, returns: Vector) -> str:
    return (
        json.dumps(dict(family=family, agent=agent, seed=seed, returns=returns.mean(axis=1).round(3).tolist())) + "\n"
    )


if __name__ == "__main__":
    tyro.cli(main)
