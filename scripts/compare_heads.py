"""Train hyper-ppo with each head of the hypernetwork, and print the returns as a Markdown table.

Run: python scripts/compare_heads.py. What has been measured is kept in runs/ and not measured again.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from estimates import whole
from rich.progress import track

import hyperrl
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.statistics import estimate_iqm
from hyperrl.hypernet import HEADS
from hyperrl.report.markdown import markdown_table
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.utils.provenance import n_parameters


def recipe(head: str, embedding: tuple[int, ...]) -> AgentSpec:
    """Give hyper-ppo another head, with that head's default options."""
    spec = agent_spec("hyper-ppo")
    kwargs = {name: value for name, value in spec.definition.policy_kwargs.items() if name not in ("head", "rank")}
    return replace(
        spec, definition=replace(spec.definition, policy_kwargs=kwargs | {"head": head, "embedding": list(embedding)})
    )


def measure(family: str, head: str, seed: int, steps: int, embedding: tuple[int, ...]) -> Report:
    """Train and evaluate, unless that has been done."""
    path = Path("runs") / f"heads-{steps}-{'-'.join(map(str, embedding))}" / f"{family}-{head}-{seed}.json"
    if not path.exists():
        loaded = hyperrl.load_family(family)
        report = hyperrl.evaluate(build(loaded, recipe(head, embedding), seed, device="cpu").learn(steps), loaded)
        path.parent.mkdir(parents=True, exist_ok=True)
        report.save(path)
    return Report.load(path)


def main(
    families: tuple[str, ...] = ("pendulum", "ode"),
    seeds: int = 3,
    steps: int = 300_000,
    embedding: tuple[int, ...] = (64, 16),
) -> None:
    """Compare the heads by the interquartile mean of the return, with its 95 % interval over seeds."""
    todo = [(family, head, seed) for seed in range(seeds) for family in families for head in HEADS]
    reports = {key: measure(*key, steps, embedding) for key in track(todo, "training")}
    splits = list(next(iter(reports.values())).splits)
    rows = []
    for family in families:
        for head in HEADS:
            parameters = n_parameters(build(hyperrl.load_family(family), recipe(head, embedding), device="cpu").policy)
            cells = []
            for split in splits:
                returns = np.array([reports[family, head, seed].splits[split].returns for seed in range(seeds)])
                cells.append(whole(estimate_iqm(returns)))
            rows.append((family, f"`{head}`", f"{parameters:,}", *cells))
    print(markdown_table(("family", "head", "parameters", *splits), rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
