"""Definition files: TOML, found by name or path and read into dataclasses whose keys and types are checked."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from hyperrl.utils.errors import nearest

T = TypeVar("T")


def names(kind: str) -> list[str]:
    """Return the names of all definitions of a kind, ``"envs"`` or ``"agents"``.

    >>> "pendulum" in names("envs")
    True
    """
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def folder(kind: str) -> Path:
    """Find the definitions of a kind: packaged data of an installed hyperrl, else beside the package in a checkout."""
    package = Path(__file__).parent.parent
    packaged = package / kind
    return packaged if packaged.is_dir() else package.parent / kind


def read(kind: str, name: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find a definition by its name or path, and return the file and what it holds.

    :param kind: ``"envs"`` or ``"agents"``.
    :raises ValueError: for an unknown name, a file that is not there, or one that is not TOML.
    """
    if Path(name).suffix == ".toml":
        source = Path(name)
        if not source.is_file():
            raise ValueError(f"no such file: {source}")
    else:
        valid = names(kind)
        if str(name) not in valid:
            noun = {"envs": "family", "agents": "agent"}[kind]
            raise ValueError(
                f"unknown {noun} {str(name)!r}: known are {valid}, or give the path of a .toml file."
                f"{nearest(str(name), valid)}"
            )
        source = folder(kind) / f"{name}.toml"
    return source, read_toml(source)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    :raises ValueError: where it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None


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
