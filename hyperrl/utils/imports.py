"""Users' classes, named as ``"module:Class"``, as Gymnasium names entry points."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from hyperrl.utils.errors import nearest

T = TypeVar("T")


def load_module(name: str) -> ModuleType:
    """Import a module. This runs its code.

    :raises ValueError: if there is no module of that name. An error inside the module is raised unchanged.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another one
        raise ValueError(
            f"there is no module {error.name!r} that Python can import. Install its package, or put its folder on "
            "PYTHONPATH"
        ) from None


def load_object(name: str) -> Any:
    """Import what ``"module:Name"`` names. This runs the module's code.

    :param name: a module that Python can import, a colon, and a name in it.
    :raises ValueError: for a name of another form, a module that is not found, and a name that is not in it. An error
        inside the module is raised as it is.

    >>> load_object("collections:OrderedDict")
    <class 'collections.OrderedDict'>
    >>> load_object("collections:OrderdDict")
    Traceback (most recent call last):
    ...
    ValueError: module 'collections' has no 'OrderdDict'. Did you mean 'OrderedDict'?
    """
    module, colon, attribute = name.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"expected 'module:Name', such as 'mypackage.networks:MyPolicy', got {name!r}")
    try:
        found = load_module(module)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise ValueError(f"module {module!r} has no {attribute!r}.{nearest(attribute, vars(found))}") from None


def load_class(name: str, base: type[T]) -> type[T]:
    """Import the class that ``"module:Class"`` names.

    :param name: see :func:`load_object`.
    :param base: what it must derive from.
    :raises ValueError: if it does not, and as :func:`load_object`.

    >>> load_class("collections:OrderedDict", dict)
    <class 'collections.OrderedDict'>
    >>> load_class("collections:OrderedDict", list)
    Traceback (most recent call last):
    ...
    ValueError: 'collections:OrderedDict' is no builtins.list, but a class derived from dict
    """
    found = load_object(name)
    wanted = f"{base.__module__}.{base.__qualname__}"
    if not isinstance(found, type):
        raise ValueError(f"{name!r} is no class derived from {wanted}, but {found!r}")
    if not issubclass(found, base):
        parents = ", ".join(parent.__qualname__ for parent in found.__bases__)
        raise ValueError(f"{name!r} is no {wanted}, but a class derived from {parents}")
    return found
