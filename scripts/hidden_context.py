"""Measure agents that are not told their context, one small file a cell, and write the tables of their page."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from estimates import shown
from results import BLOCK, FILES, ROOT
from rich.console import Console

import hyperrl
from hyperrl.contexts import SPLITS, Vector
from hyperrl.evaluation import estimate_iqm, find_reference, known_scores
from hyperrl.evaluation.switches import after_switch
from hyperrl.report.markdown import markdown_table
from hyperrl.rollouts import Agent, rollout
from hyperrl.utils.files import write_text

STEPS = {"pendulum": 400_000, "cartpole": 250_000, "ode": 1_000_000, "double_integrator": 500_000}
SWITCH = 50
"""Steps between two contexts of an episode, where they change."""
INFERRED: dict[str, dict[str, Any]] = {
    "hidden": {},
    "hidden-bounds": dict(contexts="bounds"),
    "hidden-constant": dict(switch=None),
}
"""Agents that infer their context, and how their estimators learn."""
COMPARED = ("hidden", "hidden-bounds")
"""Those that are compared with the same agent told, and whose beliefs are shown."""
TOLD = "hyper-ppo"
AFTER = (1, 5, 20, 100)
"""Steps after which the estimator's intervals are compared with the truth."""
FARTHER = (0.25, 0.5, 1.0)
"""Ends of classes of distances from the training range, in widths of it."""
SINCE = (0, 5, 20, SWITCH)
"""Edges of classes of steps since a switch."""
PAGE = ROOT / "docs" / "hidden-context.md"
RESULTS = FILES.parent / "hidden-context"
RUNS = Path("runs/hidden-context")


def run(
    families: tuple[str, ...] = tuple(STEPS),
    agents: tuple[str, ...] = ("told", "hidden", "unaware-ppo", "hidden-constant", "hidden-bounds"),
    seeds: int = 5,
    steps: int = 1_500_000,
    runs: Path = RUNS,
    out: Path = RESULTS,
) -> None:
    """Measure what is not measured yet; stop it at any time and call it again.

    Args:
        families: Names of families.
        agents: told, hidden (inferred, learnt in the training range), hidden-bounds (learnt in all of the bounds),
            hidden-constant (learnt in episodes whose context stays), and recipes of agents that are not told their
            context, such as unaware-ppo.
        seeds: Trainings of each; they begin at 1.
        steps: Environment steps that an estimator learns from.
        runs: Folder of the run folders.
        out: Folder of the results, one file for each family, agent and seed.
    """
    torch.set_num_threads(1)
    console = Console()
    for seed in range(1, seeds + 1):
        for agent in agents:
            for family in families:
                path = out / f"{family}-{agent}-{seed}.json"
                if path.exists():
                    continue
                cell = _cell(family, agent, seed, steps, runs)
                write_text(path, json.dumps(cell) + "\n")
                console.print(f"{path}: {cell['seconds']:.0f} s")


def tables(check: bool = False) -> None:
    """Write the tables of docs/hidden-context.md.

    Args:
        check: Write nothing, and fail where a table differs.
    """
    text = PAGE.read_text("utf-8")
    new = filled(text)
    if check:
        sys.exit(f"run scripts/hidden-context tables: other figures in {PAGE}" if new != text else 0)
    write_text(PAGE, new)


def filled(text: str, out: Path = RESULTS) -> str:
    """Renew the tables between ``<!-- results: NAME -->`` and ``<!-- end -->`` from the files of results."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*-[0-9]*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        cells.setdefault((cell["family"], cell["agent"]), []).append(cell)
    families = [name for name in STEPS if any(name == family for family, _ in cells)]

    def renew(match: re.Match[str]) -> str:
        header, rows = TABLES[match["name"]](cells, families)
        return match[1] + markdown_table(header, rows) + "\n" + match[4]

    return BLOCK.sub(renew, text)


def _cell(name: str, agent: str, seed: int, steps: int, runs: Path) -> dict[str, Any]:
    """Train, infer where needed, and evaluate one agent of one seed."""
    recipe = TOLD if agent in ("told", *INFERRED) else agent
    folder = runs / f"{name}-{recipe}-{seed}"
    if not folder.exists():
        hyperrl.train(name, recipe, STEPS[name], seed, folder, device="cpu", resume=True)
    opened = hyperrl.Run.open(folder)
    family, model = opened.family, opened.model("cpu")
    cell: dict[str, Any] = dict(
        family=name, agent=agent, seed=seed, training_steps=STEPS[name], definition=family.digest
    )
    begun = time.process_time()
    if agent in INFERRED:
        model = hyperrl.infer_context(model, family, steps, seed, **INFERRED[agent])
        cell |= dict(steps=steps)
    cell["seconds"] = round(time.process_time() - begun, 1)
    report = hyperrl.evaluate(model, family)
    cell["returns"] = {split: seen.returns.round(2).tolist() for split, seen in report.splits.items()}
    cell["after_switch"] = _after_switch(model, family)
    if agent in INFERRED:
        cell["calibration"] = {split: _calibration(model, family, split) for split in SPLITS}
    return cell


def _after_switch(model: Any, family: hyperrl.Family) -> dict[str, list[list[float]]]:
    """Return the mean reward of a step, for each class of steps and each context: up to a switch, and after one."""
    seen = after_switch(model, family, SWITCH)
    return {
        kind: [rewards[:, low:high].mean(axis=1).round(4).tolist() for low, high in itertools.pairwise(SINCE)]
        for kind, rewards in (("first", seen.first), ("later", seen.later))
    }


def _calibration(model: Any, family: hyperrl.Family, split: str) -> dict[str, Any]:
    """Return after some steps, for each feature: how often the interval holds the truth, its width, and the error."""
    space = family.context_space
    contexts = np.repeat(space.sample(split, 100, seed=1), 2, axis=0)
    width = np.subtract(*space.train_range[::-1])
    found: dict[str, Any] = {}
    with closing(family.vec_env(len(contexts), contexts=contexts, seed=1)) as vec_env:
        agent = Agent(model, vec_env.observation_space)
        playing = np.ones(len(contexts), dtype=bool)
        for step, seen in enumerate(rollout(agent, vec_env)):
            if step in AFTER:
                belief = model.belief(agent.memory)
                low, high, context = (x.numpy()[playing] for x in (belief.low, belief.high, belief.context))
                true = contexts[playing]
                found[str(step)] = dict(
                    inside=((low <= true + 1e-6) & (true <= high + 1e-6)).mean(0).round(3).tolist(),
                    width=np.median((high - low) / width, axis=0).round(3).tolist(),
                    error=np.median(np.abs(context - true) / width, axis=0).round(3).tolist(),
                )
            playing &= ~seen.dones
            if step >= max(AFTER) or not playing.any():
                return found
    return found


Cells = Mapping[tuple[str, str], Sequence[dict[str, Any]]]
Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _scores(cells: Sequence[dict[str, Any]], split: str) -> tuple[Vector, Vector]:
    """Return the scores ``(seeds, n, episodes)`` and contexts ``(n, d)``; returns without a reference."""
    family = hyperrl.load_family(cells[0]["family"])
    played = [np.array(cell["returns"][split]) for cell in cells]  # (n, episodes) each
    if len({of.shape for of in played}) > 1:  # some files hold the mean of a context's episodes
        played = [of.mean(axis=1, keepdims=True) for of in played]
    returns = np.array(played)
    contexts = family.context_space.sample(split, returns.shape[1], 0)
    reference = find_reference(family)
    if reference is None:
        return returns, contexts
    known = np.isfinite(reference.at(contexts)[0])
    return known_scores(reference, contexts, returns), contexts[known]


def _agents(cells: Cells) -> list[str]:
    first = ["told", *INFERRED]
    return [
        agent for agent in (*first, *sorted({a for _, a in cells} - set(first))) if any(a == agent for _, a in cells)
    ]


def _score_rows(cells: Cells, families: Sequence[str]) -> Rows:
    agents = _agents(cells)
    rows = [
        (
            family,
            split,
            *(
                f"{shown(estimate_iqm(_scores(cells[family, agent], split)[0]))} ({len(cells[family, agent])})"
                if (family, agent) in cells
                else "–"
                for agent in agents
            ),
        )
        for family in families
        for split in SPLITS
    ]
    return ("family", "split", *agents), rows


def _ratio_rows(cells: Cells, families: Sequence[str]) -> Rows:
    """The score of hiding the context over that of telling it, seed by seed, with the interval of the mean."""
    rows = []
    for family in families:
        for agent in COMPARED:
            told, hidden = ({cell["seed"]: cell for cell in cells.get((family, name), [])} for name in ("told", agent))
            both = sorted(told.keys() & hidden.keys())
            if not both:
                continue
            ratios = []
            for split in SPLITS:
                of = [
                    estimate_iqm(_scores([hidden[s]], split)[0]).value
                    / estimate_iqm(_scores([told[s]], split)[0]).value
                    for s in both
                ]
                ratios.append(f"{np.mean(of):.3f} [{min(of):.3f}, {max(of):.3f}]")
            rows.append((family, agent, str(len(both)), *ratios))
    return ("family", "agent", "seeds", *(f"{split}, over told [least, most]" for split in SPLITS)), rows


def _distance_rows(cells: Cells, families: Sequence[str]) -> Rows:
    agents = _agents(cells)
    rows = []
    for family in families:
        space = hyperrl.load_family(family).context_space
        measured = {
            agent: _scores(cells[family, agent], "extrapolation") for agent in agents if (family, agent) in cells
        }
        for low, high in itertools.pairwise((0.0, *FARTHER)):
            found = ["–"] * len(agents)
            for agent, (scores, contexts) in measured.items():
                distance = space.beyond(contexts).max(axis=1)
                of = (distance > low) & (distance <= high)
                if of.sum() > 1:
                    found[agents.index(agent)] = shown(estimate_iqm(scores[:, of]))
            if set(found) != {"–"}:
                rows.append((family, f"{low:g} to {high:g}", *found))
    return ("family", "distance", *agents), rows


def _switch_rows(cells: Cells, families: Sequence[str]) -> Rows:
    """The reward of a step, by steps since the episode began and since a switch."""
    rows = []
    for family in families:
        for agent in _agents(cells):
            measured = [cell["after_switch"] for cell in cells.get((family, agent), []) if "after_switch" in cell]
            if measured:
                rewards = np.array([one["first"] + one["later"] for one in measured])  # (seeds, classes, contexts)
                means = (shown(estimate_iqm(of_class[..., None])) for of_class in rewards.swapaxes(0, 1))
                rows.append((family, agent, str(len(measured)), *means))
    classes = [f"{low + 1} to {high}" for low, high in itertools.pairwise(SINCE)]
    titles = (f"{which} steps {since}" for since in ("of the episode", "after a switch") for which in classes)
    return ("family", "agent", "seeds", *titles), rows


def _calibration_rows(cells: Cells, families: Sequence[str]) -> Rows:
    rows = []
    for family in families:
        names = hyperrl.load_family(family).context_space.names
        for agent in COMPARED:
            seeds = cells.get((family, agent), [])
            for i, name in enumerate(names if seeds else ()):
                row = [family, agent, name]
                for split in SPLITS[1:]:
                    for kind in ("inside", "error"):
                        values = [
                            np.mean([cell["calibration"][split][str(step)][kind][i] for cell in seeds])
                            for step in AFTER
                            if all(str(step) in cell["calibration"][split] for cell in seeds)
                        ]
                        row.append(" ".join(f"{value:.2f}" for value in values))
                rows.append(tuple(row))
    kinds = [f"{split}: {kind}" for split in SPLITS[1:] for kind in ("inside", "error")]
    return ("family", "agent", "feature", *kinds), rows


def _time_rows(cells: Cells, families: Sequence[str]) -> Rows:
    rows = [
        (family, agent, f"{np.mean([cell['seconds'] for cell in cells[family, agent]]):.0f}")
        for family in families
        for agent in INFERRED
        if (family, agent) in cells
    ]
    return ("family", "agent", "seconds of one core to learn the estimator"), rows


TABLES: dict[str, Callable[[Cells, Sequence[str]], Rows]] = {
    "hidden scores": _score_rows,
    "hidden ratios": _ratio_rows,
    "hidden distances": _distance_rows,
    "hidden calibration": _calibration_rows,
    "hidden switches": _switch_rows,
    "hidden seconds": _time_rows,
}


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "tables": tables})
