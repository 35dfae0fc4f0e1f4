"""Train every agent on every family of the results, several seeds each, and write one report per family."""

import os
from pathlib import Path

import tyro
from demo import work
from rich.console import Console

from hyperrl import parallel
from hyperrl.comparison import Comparison
from hyperrl.report import write_report
from hyperrl.runs import Run

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
    "ode": 250_000,
    "double_integrator": 250_000,
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

    A run that is there already is kept, an interrupted one is continued; so seeds can be added later. Reports are
    written anew for each number of seeds.

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
    for family in families:
        steps = FAMILIES.get(family, 250_000) // (10 if quick else 1)
        # Seed by seed, so that an interrupted reproduction has as many seeds of one agent as of another.
        runs = [(agent, seed, out / family / f"{agent}-{seed}") for seed in range(seeds) for agent in agents]
        total = sum(steps for *_, run in runs if not run.exists())
        trainings = [(agent, family, seed, steps, run) for agent, seed, run in runs]
        parallel.run(work, trainings, jobs, total, f"{len(runs)} trainings on {family}")
        report = out / family / f"report-{seeds}"
        if not report.exists():
            in_order = [Run.open(run) for agent in agents for name, _, run in runs if name == agent]
            write_report(Comparison(in_order), report)
        console.print(f"{report}/report.md")


if __name__ == "__main__":
    tyro.cli(main)
