"""``hyperrl share``."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from hyperrl.cli.console import say


def share(run: Positional[Path], out: Path, reference: Path | None = None) -> None:
    """Write a trained agent as a folder to give away: numbers and text, nothing that runs.

    The folder has the layout of the Hugging Face Hub, and every command takes it where it takes a run folder.

    Args:
        run: Run folder that `hyperrl train` wrote. Evaluate it first, so that its scores go along.
        out: New folder.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
    """
    from hyperrl.evaluation.reference import Reference
    from hyperrl.sharing.writing import share
    from hyperrl.training.run import Run

    opened = Run.open(run)
    shared = share(opened, out, None if reference is None else Reference.load(reference, opened.family))
    if not shared.config.scores:
        say(f"{run} has not been evaluated: the folder says nothing of scores")
    say(f"Wrote {out}. hyperrl evaluate {out}, or in Python hyperrl.load_agent({str(out)!r})")
