"""``hyperrl list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    pass


def list_() -> None:
    """List families with their features, and agents."""
    from hyperrl.contexts import show_range
    from hyperrl.families.family import load_family
    from hyperrl.training.recipe import agent_spec
    from hyperrl.utils.definitions import names

    console = Console()
    for name in names("envs"):
        table = Table(
            "feature", "default", "training range", "bounds", "unit", title=f"family {name}", title_justify="left"
        )
        for feature in load_family(name).context_space.features:
            train, bounds = show_range(feature.train), show_range(feature.bounds)
            table.add_row(feature.name, f"{feature.default:g}", train, bounds, feature.unit)
        console.print(table)
    table = Table("agent", "algorithm", "policy", title="agents", title_justify="left")
    for name in names("agents"):
        definition = agent_spec(name).definition
        table.add_row(name, definition.algorithm, definition.policy)
    console.print(table)
