"""The physics that come along, by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from hyperrl.physics.base import Physics
from hyperrl.utils.errors import nearest

PHYSICS: Final = {
    "acrobot": "Acrobot",
    "cartpole": "Cartpole",
    "double_integrator": "DoubleIntegrator",
    "mountain_car": "MountainCar",
    "mountain_car_continuous": "MountainCarContinuous",
    "ode": "Ode",
    "pendulum": "Pendulum",
}
"""Module in :mod:`hyperrl.physics` = its class."""


def load(name: str) -> Physics:
    """Return the physics of a name.

    :raises ValueError: for an unknown name, with the nearest known one.

    >>> load("cart_pole")
    Traceback (most recent call last):
    ...
    ValueError: unknown physics 'cart_pole': known are [...]. Did you mean 'cartpole'?
    """
    if name not in PHYSICS:
        raise ValueError(f"unknown physics {name!r}: known are {list(PHYSICS)}.{nearest(name, PHYSICS)}")
    return getattr(import_module(f"hyperrl.physics.{name}"), PHYSICS[name])()
