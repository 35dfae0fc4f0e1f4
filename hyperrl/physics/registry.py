"""The physics that come along, by name, and those of users, by module and class."""

from __future__ import annotations

import inspect
from typing import Any, Final

from hyperrl.physics.base import Physics
from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_class, load_object

PHYSICS: Final = {
    "acrobot": "Acrobot",
    "boat": "Boat",
    "cartpole": "Cartpole",
    "double_integrator": "DoubleIntegrator",
    "epidemic": "Epidemic",
    "lane_keeping": "LaneKeeping",
    "mountain_car": "MountainCar",
    "mountain_car_continuous": "MountainCarContinuous",
    "ode": "Ode",
    "pendulum": "Pendulum",
    "predator_prey": "PredatorPrey",
    "quadrotor": "Quadrotor",
    "tanks": "Tanks",
    "thermostat": "Thermostat",
    "two_link_arm": "TwoLinkArm",
}
"""Module in :mod:`hyperrl.physics` = its class."""


def load(name: str) -> Physics:
    """Return the physics of a name, or of ``"module:Class"``, a subclass of :class:`Physics` in a module of yours.

    :raises ValueError: for an unknown name, with the nearest known one; for a module that cannot be found; for a class
        that is missing or is no physics, or lacks a method or an attribute.

    >>> load("cart_pole")
    Traceback (most recent call last):
    ...
    ValueError: unknown physics 'cart_pole': known are [...], or give 'module:Class'. Did you mean 'cartpole'?
    >>> type(load("hyperrl.physics.cartpole:Cartpole")).__name__
    'Cartpole'
    """
    if ":" in name:
        return _load_class(name)
    if name not in PHYSICS:
        raise ValueError(
            f"unknown physics {name!r}: known are {list(PHYSICS)}, or give 'module:Class'.{nearest(name, PHYSICS)}"
        )
    return load_object(f"hyperrl.physics.{name}:{PHYSICS[name]}")()


def _load_class(name: str) -> Physics:
    cls: Any = load_class(name, Physics)
    if cls.__abstractmethods__:
        raise ValueError(f"physics {name!r}: the methods {sorted(cls.__abstractmethods__)} are missing")
    asked = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if asked:
        raise ValueError(f"physics {name!r}: it must be made without arguments, and asks for {asked}")
    physics = cls()
    missing = [attribute for attribute in Physics.__annotations__ if not hasattr(physics, attribute)]
    if missing:
        raise ValueError(f"physics {name!r}: the attributes {missing} are missing")
    return physics
