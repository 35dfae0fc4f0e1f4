"""``hyperrl list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from hyperrl.cli.console import console, say

if TYPE_CHECKING:
    from hyperrl.utils.definitions import Entry


def list_() -> None:
    """List families with their features, recipes of agents, and trained agents that come along."""
    from hyperrl.contexts import show_range
    from hyperrl.families.family import load_family
    from hyperrl.sharing.places import names
    from hyperrl.training.recipe import agent_spec
    from hyperrl.utils.definitions import PATH, catalogue, search_path

    terminal = console()
    for name, entries in catalogue("envs").items():
        title = f"family {name}{_origin(entries)}"
        table = Table("feature", "default", "training range", "bounds", "unit")
        try:
            features = load_family(name).context_space.features
        except Exception as error:  # of the user's modules, whatever they raise
            terminal.print(f"{title} cannot be loaded: {_said(error)}", style="red", soft_wrap=True)
            continue
        for feature in features:
            train, bounds = show_range(feature.train), show_range(feature.bounds)
            table.add_row(feature.name, f"{feature.default:g}", train, bounds, feature.unit)
        say(title)
        terminal.print(table)
    table = Table("agent", "algorithm", "policy", title="agents", title_justify="left")
    faults = []
    for name, entries in catalogue("agents").items():
        try:
            definition = agent_spec(name).definition
        except ValueError as error:
            faults.append(f"agent {name}{_origin(entries)} cannot be loaded: {error}")
            continue
        table.add_row(f"{name}{_origin(entries)}", definition.algorithm, definition.policy)
    terminal.print(table)
    if trained := names():
        say(f"trained agents, as they are: {', '.join(trained)}")
    for root in search_path():
        if not any((root / kind).is_dir() for kind in ("envs", "agents")):
            faults.append(f"{PATH}: {root} has no folder envs or agents")
    for fault in faults:
        terminal.print(fault, style="red", soft_wrap=True)


def _origin(entries: list[Entry]) -> str:
    """Say who offers a definition, where it is not hyperrl, and what of the same name it hides."""
    first, *hidden = entries
    if first.origin == "hyperrl":
        return ""
    hides = f", hides that of {' and '.join(entry.origin for entry in hidden)}" if hidden else ""
    return f" (of {first.origin}: {first.source}{hides})"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
