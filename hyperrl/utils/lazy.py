"""Packages whose names are imported at their first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, exports: Mapping[str, Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package that imports its modules on demand (PEP 562).

    :param package: its ``__name__``.
    :param exports: module of the package = names that the package re-exports from it.

    >>> __getattr__, __dir__ = attach("hyperrl", {"contexts": ("ContextSpace", "Feature")})
    >>> __getattr__("Feature").__module__
    'hyperrl.contexts'
    """
    module_of = {name: module for module, names in exports.items() for name in names}

    def get(name: str) -> Any:
        if name in exports:
            return import_module(f"{package}.{name}")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports, *module_of})

    return get, names
