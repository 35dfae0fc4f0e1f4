"""The documentation site: every page and every public name is in it, and it builds without a warning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import yaml
from notebook import notebook

import hyperrl

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_the_notebook_is_the_tutorial() -> None:
    """Whose code ``test_docs`` runs."""
    expected = notebook((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8") == expected, "run scripts/notebook.py"
    cells = json.loads(expected)["cells"]
    assert [cell["cell_type"] for cell in cells[:3]] == ["markdown", "code", "markdown"]
    assert "".join(cells[1]["source"]).startswith("import hyperrl")


def test_every_page_is_in_the_navigation() -> None:
    groups = [next(iter(entry.values())) if isinstance(entry, dict) else [entry] for entry in CONFIG["nav"]]
    assert sorted(page for group in groups for page in group) == sorted(
        path.name for path in (ROOT / "docs").glob("*.md")
    )


def test_every_public_name_is_in_the_reference() -> None:
    assert set(reference.offered("hyperrl")) >= {"HyperPolicy", "evaluate", "explain", "load_agent", "load_family"}
    lazy = {"adaptation", "training", "policies", "sharing", "analysis"}
    assert {f"hyperrl.{room}" for room in lazy} <= set(reference.rooms())
    for room in lazy:
        assert set(reference.offered(f"hyperrl.{room}")) == {
            name for name in dir(getattr(hyperrl, room)) if f"import {name} as {name}" in _text(room)
        }
    assert "::: hyperrl.sharing.load_agent\n" in reference.page_of("hyperrl.sharing")


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "hyperrl" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="hyperrl.{name}"' in page for name in reference.offered("hyperrl"))


def _text(room: str) -> str:
    return (ROOT / "hyperrl" / room / "__init__.py").read_text(encoding="utf-8")
