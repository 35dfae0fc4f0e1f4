"""Policies recorded as graphs, by ``torch.jit.trace``, ``torch.export`` and ``torch.onnx.export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributions import Distribution

from hyperrl.hypernet import is_static


@contextmanager
def unvalidated(only_static: bool = False) -> Iterator[None]:
    """Leave out what torch's distributions check of their values, for which the host would wait for the device.

    :param only_static: leave it out only while a graph is recorded, where values are unavailable.
    """
    if only_static and not is_static():
        yield
        return
    validates = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
