"""Files written whole or not at all, and never over others."""

from __future__ import annotations

import os
from pathlib import Path


def refuse_existing(path: str | Path, instead: str = "choose another folder, or remove it") -> None:
    """Refuse a path where there is something already.

    :param instead: what the user can do.
    :raises ValueError: where there is.
    """
    if Path(path).exists():
        raise ValueError(f"{path} exists already and is never overwritten: {instead}")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader sees either its old content or all of the new one."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, see :func:`write_bytes`."""
    write_bytes(path, text.encode())
