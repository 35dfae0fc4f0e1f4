"""Returns of trained agents where one feature at a time leaves the training range, the others at their default.

    python scripts/over_features.py runs/suite/*

One small file a run in docs/results/features/; `scripts/results` makes the table of docs/extrapolation.md from them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import tyro
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


def table(agents: Mapping[str, str], folder: Path = FOLDER) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the table of scores by distance, those of all features of all families pooled.

    :param agents: titles by name. Families are those of which every agent has been played.
    """
    returns: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        returns[cell["family"], cell["agent"]].append(cell["returns"])
    families = sorted({f for f, _ in returns if all((f, agent) in returns for agent in agents)})
    rows = []
    scores = {family: _scores(family, returns, agents) for family in families}
    places = {family: _places(family) for family in families}
    for distance in DISTANCES:
        of = {family: of[distance] for family, of in places.items()}
        within = [family for family, place in of.items() if place.start < place.stop]
        estimates = (pooled_iqm([scores[family][agent][:, of[family], None] for family in within]) for agent in agents)
        rows.append([f"{distance:g}", str(len(within)), *(str(each).replace("-", "−") for each in estimates)])
    return ("widths outside", "families", *agents.values()), rows


def _scores(family: str, returns: Mapping[tuple[str, str], list[list[float]]], agents: Mapping[str, str]) -> dict:
    ((low),) = np.array(returns[family, "random"])  # (n,)
    played = {agent: np.array(returns[family, agent]) for agent in agents}  # (seeds, n) each
    gain = np.max([of.mean(axis=0) for of in played.values()], axis=0) - low
    gain = np.maximum(gain, 0.1 * np.median(gain))
    return {agent: (of - low) / gain for agent, of in played.items()}


def _places(family: str) -> dict[float, slice]:
    found, end = {}, 0
    for distance, rows in points(hyperrl.load_family(family).context_space).items():
        found[distance] = slice(end, end + len(rows))
        end += len(rows)
    return found


def _dumped(family: str, agent: str, seed: int, returns: Vector) -> str:
    return (
        json.dumps(dict(family=family, agent=agent, seed=seed, returns=returns.mean(axis=1).round(3).tolist())) + "\n"
    )


if __name__ == "__main__":
    tyro.cli(main)
