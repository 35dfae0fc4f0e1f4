"""MuJoCo itself, imported when it is needed and kept from writing log files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def library() -> Any:
    """Import MuJoCo, whose names type checkers do not find."""
    return import_module("mujoco")


def state_bits() -> int:
    """Return MuJoCo's name for what is kept of a simulation: time, positions, velocities, activations, warm start."""
    bits = library().mjtState
    kept = bits.mjSTATE_TIME | bits.mjSTATE_QPOS | bits.mjSTATE_QVEL | bits.mjSTATE_ACT | bits.mjSTATE_WARMSTART
    return int(kept)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo from writing warnings to a log file in the working folder."""
    mujoco = library()
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _ignore(message: object) -> None:
    pass
