"""``hyperrl check``."""

from __future__ import annotations

import sys

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from hyperrl.cli.console import console, say


def check(family: Positional[str], seed: int = 0) -> None:
    """Check that a family keeps what hyperrl relies on; exit status 1 where it does not.

    Args:
        family: Name of a family (see `hyperrl list`), path of a .toml file, or module:attribute of one made in Python.
        seed: Seed of contexts, initial states and actions.
    """
    from hyperrl.families.contract import check_family
    from hyperrl.families.family import load_family

    loaded = load_family(family)
    findings = check_family(loaded, seed)
    table = Table("", "check", "what is wrong", title=f"family {loaded.name}", title_justify="left")
    for finding in findings:
        mark = Text("ok", "green") if finding.fault is None else Text("FAIL", "red")
        warned = f"warns: {finding.note}" if finding.note else ""
        table.add_row(mark, finding.check, finding.fault or warned)
    console().print(table)
    failed = sum(finding.fault is not None for finding in findings)
    if failed:
        say(f"{failed} of {len(findings)} checks fail.")
        sys.exit(1)
