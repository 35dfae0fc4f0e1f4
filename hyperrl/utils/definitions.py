"""Definition files: TOML, found by name or path and read into dataclasses whose keys and types are checked."""

from __future__ import annotations

import os
import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

from hyperrl.utils.errors import nearest

T = TypeVar("T")


PATH: Final = "HYPERRL_PATH"
"""The environment variable that lists folders of the user's own, each with subfolders ``envs`` and ``agents``."""
GROUPS: Final = {"envs": "hyperrl.families", "agents": "hyperrl.agents"}
"""Kind = the group of entry points by which a package offers definitions."""
_NOUNS: Final = {"envs": "family", "agents": "agent"}


@dataclass(frozen=True)
class Entry:
    """Where a definition of a name is.

    :param name: its name.
    :param source: its file, or ``"module:attribute"``.
    :param origin: who offers it: ``"HYPERRL_PATH"``, the name of a package, or ``"hyperrl"``.
    """

    name: str
    source: Path | str
    origin: str


def catalogue(kind: str) -> dict[str, list[Entry]]:
    """Return all definitions of a kind by name. The first of several with one name is used; it hides the others.

    The folders of ``HYPERRL_PATH`` come first, then what installed packages offer, then hyperrl's own. A package
    offers a folder of TOML files by an entry point whose value is its dotted path, ``mypackage.definitions``, or one
    family made in Python by ``mypackage.rooms:ROOM``, in the group ``hyperrl.families`` or ``hyperrl.agents``.

    :param kind: ``"envs"`` or ``"agents"``.
    """
    entries = [entry for root in search_path() for entry in _in_folder(root / kind, PATH)]
    for name, value, package in _offered(GROUPS[kind]):
        if ":" in value:
            entries.append(Entry(name, value, package))
        elif (offered := _package_folder(value)) is not None:
            entries += _in_folder(offered, package)
    entries += _in_folder(folder(kind), "hyperrl")
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.name, []).append(entry)
    return dict(sorted(found.items()))


def search_path() -> list[Path]:
    """Return the folders of ``HYPERRL_PATH``; the separator is that of ``PATH``."""
    return [Path(root) for root in os.environ.get(PATH, "").split(os.pathsep) if root]


def names(kind: str) -> list[str]:
    """Return the names of all definitions of a kind, ``"envs"`` or ``"agents"``.

    >>> "pendulum" in names("envs")
    True
    """
    return list(catalogue(kind))


def folder(kind: str) -> Path:
    """Find hyperrl's own definitions: packaged data of an installed hyperrl, else beside the package in a checkout."""
    package = Path(__file__).parent.parent
    packaged = package / kind
    return packaged if packaged.is_dir() else package.parent / kind


def find(kind: str, name: str | Path) -> Path | str:
    """Find a definition by its name or path: its file, or ``"module:attribute"`` for a family made in Python.

    :param kind: ``"envs"`` or ``"agents"``.
    :raises ValueError: for an unknown name, or a file that is not there.
    """
    if Path(name).suffix == ".toml":
        if not Path(name).is_file():
            raise ValueError(f"no such file: {name}")
        return Path(name)
    known = catalogue(kind)
    if str(name) not in known:
        raise ValueError(
            f"unknown {_NOUNS[kind]} {str(name)!r}: known are {list(known)}, or give the path of a .toml file."
            f"{nearest(str(name), known)}"
        )
    return known[str(name)][0].source


def read(kind: str, name: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find a definition by its name or path, and return the file and what it holds.

    :param kind: ``"envs"`` or ``"agents"``.
    :raises ValueError: for an unknown name, a file that is not there, or one that is not TOML.
    """
    source = find(kind, name)
    if isinstance(source, str):
        raise ValueError(f"the {_NOUNS[kind]} {str(name)!r} is made in Python, by {source}: there is no file")
    return source, read_toml(source)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    :raises ValueError: if it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None


def _in_folder(folder: Path, origin: str) -> list[Entry]:
    return [Entry(path.stem, path, origin) for path in sorted(folder.glob("*.toml"))]


@cache
def _offered(group: str) -> list[tuple[str, str, str]]:
    """Return name, value and package of the entry points of a group."""
    from importlib.metadata import entry_points

    return [
        (point.name, point.value, "a package" if point.dist is None else point.dist.name)
        for point in entry_points(group=group)
    ]


def _package_folder(dotted: str) -> Path | None:
    """Find a package's folder without running its code."""
    top, *inner = dotted.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for location in () if spec is None else spec.submodule_search_locations or ():
        if (found := Path(location, *inner)).is_dir():
            return found
    return None


def build(cls: type[T], table: Any, where: str = "") -> T:
    """Make a dataclass of a TOML table, checking its keys and the types of its values."""
    if not isinstance(table, dict):
        raise ValueError(f"{where}expected a table, got {table!r}")
    known = {declared.name: declared for declared in fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            raise ValueError(f"{where}unknown key {key!r}: the keys are {list(known)}.{nearest(key, known)}")
    for key, declared in known.items():
        if key not in table and declared.default is MISSING and declared.default_factory is MISSING:
            raise ValueError(f"{where}the key {key!r} is missing")
    hints = get_type_hints(cls)
    for key, value in table.items():
        kinds = get_args(hints[key]) or (hints[key],)
        integer_for_float = float in kinds and type(value) is int
        if type(value) not in kinds and not integer_for_float:
            raise ValueError(
                f"{where}{key!r} must be of type {kinds[0].__name__}, got {type(value).__name__} {value!r}"
            )
    return cls(**table)
