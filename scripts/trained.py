"""Make the folders of ``trained/``, the agents that come along, from run folders."""

import shutil
from pathlib import Path

import tyro

from hyperrl.cli.console import say
from hyperrl.evaluation import Report
from hyperrl.sharing import share
from hyperrl.training import Run, group_runs

TRAINED = Path("trained")


def main(runs: tyro.conf.Positional[tuple[Path, ...]], out: Path = TRAINED) -> None:
    """Share one run of each family and agent: of several seeds, the one in the middle by return in training contexts.

    What is there of these families and agents is replaced.

    Args:
        runs: Run folders, evaluated with `hyperrl evaluate`, of any families, agents and seeds.
        out: Folder of the agents.
    """
    families: dict[str, list[Run]] = {}
    for run in map(Run.open, runs):
        families.setdefault(run.training.family, []).append(run)
    for family, of_family in families.items():
        for agent, of_agent in group_runs(of_family).items():
            ordered = sorted(of_agent, key=lambda run: Report.load(run.evaluation_path).splits["train"].iqm.value)
            chosen = ordered[(len(ordered) - 1) // 2]
            target = out / family / agent
            shutil.rmtree(target, ignore_errors=True)
            share(chosen, target)
            size = sum(file.stat().st_size for file in target.iterdir())
            say(f"{target}: seed {chosen.training.seed}, of {len(ordered)} trainings, {size / 1000:.0f} kB")


if __name__ == "__main__":
    tyro.cli(main)
