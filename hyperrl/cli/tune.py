"""``hyperrl tune``."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from hyperrl.cli.arguments import HERE, Engines
from hyperrl.cli.console import say


def tune(
    family: Positional[str],
    agent: Positional[str],
    out: Path | None = None,
    trials: int = 30,
    steps: int = 100_000,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    on: Engines = HERE,
    progress: bool = True,
) -> None:
    """Search for the head, rank, embedding and learning rate with which an agent does best, and write its recipe.

    Trials run side by side. Only with --jobs 1 does the same seed give the same search.

    Args:
        family: Name of a family (see `hyperrl list`), path of a .toml file, or module:attribute of one made in Python.
        agent: Name of an agent with policy hyper (see `hyperrl list`), or path of a .toml file.
        out: Folder to write; must not exist. Default: runs/tune-FAMILY-AGENT-SEED.
        trials: Number of trainings, with those before an interruption.
        steps: Environment steps of a trial.
        seed: Seed of the search and of each trial.
        resume: Continue the search of the same folder; begin where there is none.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        progress: Show a progress bar.
    """
    from hyperrl.experiments.tuning import tune

    if out is None:
        out = Path("runs") / f"tune-{Path(family).stem}-{Path(agent).stem}-{seed}"
    best = tune(
        family, agent, trials, steps, seed, out=out, resume=resume, device=device, engine=on.make(), progress=progress
    )
    say(f"Wrote {best.source}. Next: hyperrl train {family} {best.source}")
