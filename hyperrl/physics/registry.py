"""The physics that come along, by name, and those of users, by module and class."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Final

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
    module, colon, cls = name.partition(":")
    if colon:
        return _load_class(name, module, cls)
    if name not in PHYSICS:
        raise ValueError(
            f"unknown physics {name!r}: known are {list(PHYSICS)}, or give 'module:Class'.{nearest(name, PHYSICS)}"
        )
    return getattr(import_module(f"hyperrl.physics.{name}"), PHYSICS[name])()


def _load_class(name: str, module_name: str, class_name: str) -> Physics:
    if not (class_name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise ValueError(f"physics {name!r}: expected 'module:Class'")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"physics {name!r}: no module {error.name!r} can be imported: install it, or add its folder to PYTHONPATH"
        ) from None
    if not hasattr(module, class_name):
        classes = [key for key, value in vars(module).items() if _is_physics(value) and value is not Physics]
        raise ValueError(
            f"physics {name!r}: {module_name} has no class {class_name!r}; its subclasses of Physics are {classes}."
            f"{nearest(class_name, classes)}"
        )
    cls = getattr(module, class_name)
    if not _is_physics(cls):
        raise ValueError(f"physics {name!r}: expected a subclass of hyperrl.physics.Physics, got {cls!r}")
    if cls.__abstractmethods__:
        raise ValueError(f"physics {name!r}: the methods {sorted(cls.__abstractmethods__)} are missing")
    required = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ValueError(f"physics {name!r}: it is made without arguments, and {class_name} asks for {required}")
    physics = cls()
    missing = [attribute for attribute in Physics.__annotations__ if not hasattr(physics, attribute)]
    if missing:
        raise ValueError(f"physics {name!r}: the attributes {missing} are missing")
    return physics


def _is_physics(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Physics)
