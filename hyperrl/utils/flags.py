"""Flags that hold within a ``with`` block, in this thread alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


@contextmanager
def raised(flag: ContextVar[bool]) -> Iterator[None]:
    """Set a flag, and within an inner block again, until the block ends.

    >>> flag = ContextVar("flag", default=False)
    >>> with raised(flag):
    ...     flag.get()
    True
    >>> flag.get()
    False
    """
    before = flag.set(True)
    try:
        yield
    finally:
        flag.reset(before)
