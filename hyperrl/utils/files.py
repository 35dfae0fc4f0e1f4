"""Files and folders written whole or not at all, by one process at a time, and never over others.

An unfinished file or folder is a hidden sibling, ``.<name>.partial``. If the process that wrote it was killed, the next
process that writes the same name removes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def refuse_existing(path: str | Path, instead: str = "choose another folder, or remove it") -> None:
    """Raise an error if a path exists, or cannot be written. Call it before the work.

    :param instead: what the user can do.
    :raises ValueError: if it exists, or its folder can be neither found nor made.
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} exists already and is never overwritten: {instead}")
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise ValueError(f"{path} cannot be written: {parent} is a file and no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: no permission to write to {parent}")


@contextmanager
def held(path: str | Path, seconds: float = 10.0) -> Iterator[None]:
    """Lock a path against other processes that call this. The lock of a killed process is released.

    :param seconds: how long to wait for another.
    :raises ValueError: if another process still holds it.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another process is writing {path}: wait until it has ended, or choose another name"
        ) from None
    try:
        yield
    finally:
        # Before it is let go, so that it is still ours. A process that has opened the file by then gets a lock on a
        # file without a name, which filelock (from 3.24 on) gives up, and tries again.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder: yield a temporary one to write to, and rename it at the end.

    :raises ValueError: if the path exists.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with new_folder(f"{place}/report") as folder:
    ...         _ = (folder / "numbers.json").write_text("[1]")
    ...     [str(file.relative_to(place)) for file in Path(place).rglob("*.json")]
    ['report/numbers.json']
    """
    path = Path(path)
    with held(path):
        refuse_existing(path)
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def read_bytes(path: str | Path) -> bytes:
    """Read a file.

    :raises ValueError: where it cannot be read, saying why.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file, and its folder, so that a reader sees either its old content or all of the new one."""
    path = Path(path)
    with held(path):
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:  # a full disk's error does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, see :func:`write_bytes`."""
    write_bytes(path, text.encode())
