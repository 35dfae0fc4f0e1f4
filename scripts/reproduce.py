"""Train every agent on every family of the results, several seeds each, and write reports and a summary."""

import os
from collections.abc import Sequence
from pathlib import Path

import tyro
from demo import work
from rich.console import Console

from hyperrl.evaluation.statistics import estimate_iqm
from hyperrl.experiments.comparison import Comparison
from hyperrl.experiments.engines import LocalEngine, Task, gather
from hyperrl.report.markdown import markdown_table, write_report
from hyperrl.training.run import Run
from hyperrl.utils.files import write_text

AGENTS = (
    "hyper-ppo",
    "hyper-full-ppo",
    "adapter-ppo",
    "film-ppo",
    "concat-ppo",
    "unaware-ppo",
)
FAMILIES = {  # and their environment steps
    "pendulum": 400_000,
    "ode": 1_000_000,
    "double_integrator": 500_000,
    "double_integrator_friction": 250_000,
    "cartpole": 250_000,
}


def main(
    families: tuple[str, ...] = tuple(FAMILIES),
    agents: tuple[str, ...] = AGENTS,
    seeds: int = 10,
    quick: bool = False,
    jobs: int = os.cpu_count() or 1,
    out: Path = Path("runs/reproduce"),
) -> None:
    """Reproduce the results: hours on two cores; minutes with --quick.

    Seeds begin at 1: with seed 0 the recipes' learning rates were chosen. A run that is there already is kept, an
    interrupted one is continued; so seeds can be added later. Reports are written for each number of seeds; summary.md
    holds the families of the last call.

    Args:
        families: Names of families.
        agents: Names of recipes.
        seeds: Trainings per agent and family.
        quick: Two seeds and a tenth of the steps, which proves that it runs and nothing else.
        jobs: Trainings at a time, one core each.
        out: Folder for runs and reports.
    """
    if quick:
        seeds, out = 2, out / "quick"
    console = Console()
    comparisons = []
    for family in families:
        steps = FAMILIES.get(family, 250_000) // (10 if quick else 1)
        # Seed by seed, so that an interrupted reproduction has as many seeds of one agent as of another.
        runs = [(agent, seed, out / family / f"{agent}-{seed}") for seed in range(1, seeds + 1) for agent in agents]
        total = sum(steps for *_, run in runs if not run.exists())
        trainings = [Task((agent, family, seed, steps), run) for agent, seed, run in runs]
        gather(LocalEngine(jobs), work, trainings, total, f"{len(runs)} trainings on {family}")
        comparisons.append(Comparison([Run.open(run) for agent in agents for name, _, run in runs if name == agent]))
        report = out / family / f"report-{seeds}"
        if not report.exists():
            write_report(comparisons[-1], report)
        console.print(f"{report}/report.md")
    write_text(out / "summary.md", summary(comparisons))
    console.print(f"{out}/summary.md")


def summary(comparisons: Sequence[Comparison]) -> str:
    """Return one table per split: IQM of returns, or of scores where every context has a reference."""
    tables = []
    for split in comparisons[0].splits:
        agents = comparisons[0].agents
        rows = [
            (
                f"{c.family.name}, {'score' if c.is_scored else 'return'}",
                f"{len(c.reports[agents[0]])}",
                *(str(estimate_iqm(c.values(agent, split))) for agent in agents),
            )
            for c in comparisons
        ]
        tables += [f"## {split}", markdown_table(("family", "seeds", *(f"`{agent}`" for agent in agents)), rows)]
    return "\n\n".join(tables) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
