"""``hyperrl identify``."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from tyro.conf import Positional

from hyperrl.cli.console import console


def identify(family: Positional[str], log: Positional[Path], seed: int = 0) -> None:
    """Find the context that explains a log, by the physics of a family.

    Args:
        family: Name of a family with physics (see `hyperrl list`), or path of a .toml file.
        log: File that numpy.savez wrote, with the arrays observation (n, o), action (n, a), following (n, o), the
            observations after the steps, and reward (n,). Without following, the observations (n + 1, o) are those of
            one episode in a row. Without reward, observations alone tell the context. Nothing is unpickled.
        seed: Seed of the starting points of the search.
    """
    from hyperrl.adaptation.identification import Transitions, identify
    from hyperrl.families.family import load_family

    loaded = load_family(family)
    transitions = Transitions.from_npz(log)
    found = identify(loaded, transitions, seed=seed)
    title = f"{loaded.name}: the context of {len(transitions.reward)} steps"
    table = Table("feature", "value", "95 % interval", "unit", "identified", title=title)
    low, high = found.interval
    for i, feature in enumerate(loaded.context_space.features):
        known = "yes" if found.identified[i] else "no"
        interval = f"[{low[i]:.4g}, {high[i]:.4g}]"
        table.add_row(feature.name, f"{found.context[i]:.4g}", interval, feature.unit, known)
    terminal = console()
    terminal.print(table)
    if not found.identified.all():
        terminal.print("The log does not tell features that are not identified; see docs/adaptation.md.")
