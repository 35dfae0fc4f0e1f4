"""``hyperrl record``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from tyro.conf import Positional

if TYPE_CHECKING:
    pass


def record(
    run: Positional[Path],
    out: Path,
    split: str = "interpolation",
    contexts: int = 4,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Film a trained agent in several contexts side by side, as an animated GIF.

    Args:
        run: Run folder that `hyperrl train` wrote.
        out: File to write, ending in .gif; must not exist.
        split: Where the contexts come from: train, interpolation or extrapolation.
        contexts: Number of contexts, one panel each.
        seed: Seed of contexts and initial states.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        progress: Show a progress bar.
    """
    from hyperrl.report.films import record
    from hyperrl.training.run import Run

    opened = Run.open(run)
    points = opened.family.context_space.sample(split, contexts, seed)
    record(opened.model(device), opened.family, points, out, seed, progress=progress)
    Console().print(f"Wrote {out}", highlight=False)
