"""Devices by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return the device of a name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …; ``"auto"`` is cuda if available, else cpu.

    :raises ValueError: for another name, and for cuda if it is not available.

    >>> find_device("cpu")
    device(type='cpu')
    >>> find_device("gpu")
    Traceback (most recent call last):
    ...
    ValueError: expected a device such as 'cpu', 'cuda' or 'auto', got 'gpu'
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"expected a device such as 'cpu', 'cuda' or 'auto', got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch finds no CUDA device here; 'auto' takes the cpu then")
    return device
