"""The layers of the package: a module imports from its own room and from those below it, never from one above."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hyperrl"

LAYERS = (
    ("utils",),
    ("contexts",),
    ("hypernet", "physics"),
    ("simulation",),
    ("families", "policies"),
    ("alignment", "device"),
    ("export",),
    ("rollouts",),
    ("analysis",),
    ("inference",),
    ("training",),
    ("evaluation",),
    ("sharing",),
    ("experiments",),
    ("adaptation",),
    ("report",),
    ("explorer",),
    ("cli",),
)
"""Rooms from the bottom up; rooms of one layer do not import each other."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


PAGE = PACKAGE.parent / "docs" / "architecture.md"


def imported(path: Path) -> set[str]:
    """The rooms that a file imports from, inside functions and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hyperrl":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("hyperrl.")}
    return found & LEVEL.keys()


def test_every_room_has_a_layer() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms - {"__init__", "__main__"} == LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    above = {other for other in imported(path) if other != room and LEVEL[other] >= LEVEL[room]}
    assert not above, f"{room} is below {sorted(above)}"


def test_the_architecture_page_draws_the_layers_from_the_top_down() -> None:
    (diagram,) = re.findall(r"```\n(cli .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    drawn = tuple(tuple(re.findall(r"(?:^|\| )(\w+)  ", line)) for line in diagram.splitlines())
    assert drawn == LAYERS[::-1]


def test_the_architecture_page_names_files_that_exist() -> None:
    files = re.findall(r"`([\w/]+\.(?:py|toml))`", PAGE.read_text(encoding="utf-8"))
    assert len(files) > 20
    missing = [file for file in files if not (PACKAGE / file).is_file() and not (PACKAGE.parent / file).is_file()]
    assert not missing


PACKAGES = [path for path in MODULES if path.name == "__init__.py"]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_say_what_they_are_for_and_hold_no_implementation(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert not [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
