"""``hyperrl reference``."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from hyperrl.cli.arguments import HERE, Engines
from hyperrl.cli.console import console
from hyperrl.utils.files import refuse_existing


def reference(
    family: Positional[str],
    agent: str = "unaware-ppo",
    steps: int = 200_000,
    splits: tuple[str, ...] = ("train", "interpolation", "extrapolation"),
    contexts: int = 20,
    episodes: int = 100,
    seed: int = 0,
    seeds: int = 1,
    on: Engines = HERE,
    work: Path | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> None:
    """Train a specialist for each evaluation context, and write what it and random actions get there.

    With the file, returns become scores: 0 is random, 1 is the specialist. An interrupted call goes on where it was.

    Args:
        family: Name of a family (see `hyperrl list`), path of a .toml file, or module:attribute of one made in Python.
        agent: Recipe of the specialists, each trained in one context alone.
        steps: Environment steps of each specialist.
        splits: The splits whose contexts to take.
        contexts: Number of contexts per split; as in `hyperrl evaluate`.
        episodes: Number of episodes per context.
        seed: Seed of contexts, initial states and the first training; as in `hyperrl evaluate`.
        seeds: Number of trainings in each context; the best of them is the specialist.
        work: Folder for the specialists' run folders. Default: runs/reference-FAMILY.
        out: File to write; must not exist. Default: beside the family's file, where it is found.
        progress: Show a progress bar.
    """
    from hyperrl.evaluation.reference import reference_path
    from hyperrl.experiments.specialists import make_reference
    from hyperrl.families.family import load_family

    loaded = load_family(family)
    target = reference_path(loaded) if out is None else out
    if target is None:
        raise ValueError(f"{family} has no file beside which its reference would belong: give --out")
    refuse_existing(target, "remove it first, or give another --out")
    folder = Path("runs") / f"reference-{loaded.name}" if work is None else work
    made, left_out = make_reference(
        loaded, folder, agent, steps, seed, splits, contexts, episodes, seeds, on.make(), progress
    )
    made.save(target)
    terminal = console()
    terminal.print(f"Wrote {target}: {len(made.contexts)} contexts")
    for context in left_out:
        terminal.print(f"No reference in {loaded.context_space.as_dict(context)}: the best is no better than random")
