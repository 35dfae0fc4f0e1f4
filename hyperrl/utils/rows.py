"""Observations and actions laid out as rows of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


def width(space: spaces.Space[Any]) -> int:
    """Return how many numbers :func:`encode` makes of an element of a space.

    :raises ValueError: for spaces of anything but numbers and choices.
    """
    if isinstance(space, spaces.Dict):
        return sum(width(entry) for entry in space.spaces.values())
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and len(space.nvec.shape) == 1:
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(f"expected a space of numbers or choices, to infer a context from, got {space}")


def encode(space: spaces.Space[Any], values: Any, scale: bool = False) -> NDArray[np.float32]:
    """Return rows of numbers, ``(n, width)``, of ``n`` elements of a space; a choice becomes one-hot.

    :param values: ``n`` rows, or a Dict of such. Rows of numbers may come back as they are, not copied.
    :param scale: map the entries of a box with bounds to [-1, 1].

    >>> encode(spaces.Discrete(3, start=1), np.array([3, 1]))
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    if isinstance(space, spaces.Dict):
        return np.concatenate([encode(entry, values[key], scale) for key, entry in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(values).reshape(-1) - int(space.start)]
    if isinstance(space, spaces.MultiDiscrete):
        columns = (np.asarray(values).reshape(len(values), -1) - space.start.reshape(-1)).T
        chosen = zip(space.nvec.reshape(-1).tolist(), columns, strict=True)
        return np.concatenate([np.eye(n, dtype=np.float32)[column] for n, column in chosen], axis=1)
    rows = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
    if scale and isinstance(space, spaces.Box):
        middle, half_width = scale_of(space)
        rows = (rows - middle) / half_width
    return rows


def scale_of(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the middle and the half width of a box, flat; 0 and 1 where it has no bounds."""
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    bounded = (high > low) & (high - low < 1e6)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, half_width = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
    return middle.astype(np.float32), half_width.astype(np.float32)
