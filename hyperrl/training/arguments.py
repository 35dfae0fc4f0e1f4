"""What a recipe says of an algorithm or a policy, checked against what its constructor takes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, Final, get_type_hints

import typeguard

from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_object

CLASSES: Final = ("_class", "_fn")
"""How the names of arguments end whose value is a class or a function."""
AT_LEAST_ONE: Final = ("n_steps", "batch_size", "n_epochs", "buffer_size", "sub_sampling_factor")
"""Counts of which Stable-Baselines3 needs at least one, and with less of some of them never ends."""


def with_classes(table: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the names of classes, such as ``activation_fn = "torch.nn:ReLU"``, by the classes; in inner tables too.

    :raises ValueError: for one that is not found, see :func:`~hyperrl.utils.imports.load_object`.

    >>> with_classes({"activation_fn": "torch.nn:ReLU", "net_arch": [64]})
    {'activation_fn': <class 'torch.nn.modules.activation.ReLU'>, 'net_arch': [64]}
    """
    made = {}
    for name, value in table.items():
        if isinstance(value, dict):
            made[name] = with_classes(value)
        elif isinstance(value, str) and name.endswith(CLASSES):
            try:
                made[name] = load_object(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        else:
            made[name] = value
    return made


def arguments(
    cls: type[Any],
    given: Mapping[str, Any],
    where: str,
    also: Mapping[str, Any] | None = None,
    hidden: Collection[str] = (),
) -> dict[str, Any]:
    """Return keyword arguments of a class, of the types that its constructor declares.

    :param given: from a file. A list becomes a tuple where the constructor asks for one.
    :param where: what they are called there.
    :param also: more of them, whose values have been checked.
    :param hidden: arguments of the constructor that are set elsewhere.
    :raises ValueError: for an unknown name, unless the constructor takes any, for a value of another type, and for
        counts below one.

    >>> from stable_baselines3 import SAC
    >>> arguments(SAC, {"train_freq": [1, "episode"], "gamma": 1}, "hyperparameters")
    {'train_freq': (1, 'episode'), 'gamma': 1}
    >>> arguments(SAC, {"tau": "soft"}, "hyperparameters")
    Traceback (most recent call last):
    ...
    ValueError: hyperparameters: 'tau' must be of type float, got str 'soft'
    """
    made = dict(also or {})
    types, takes_any = _parameters(cls)
    valid = [name for name in types if name not in hidden]
    for name in (*made, *given):
        if name not in valid and not takes_any:
            raise ValueError(f"{where}: {cls.__name__} knows no {name!r}: the names are {valid}.{nearest(name, valid)}")
    for name, value in given.items():
        if name in AT_LEAST_ONE and isinstance(value, int) and value < 1:
            raise ValueError(f"{where}: {name!r} must be at least 1, got {value}")
        made[name] = _typed(name, value, types.get(name, Any), where)
    return made


def _parameters(cls: type[Any]) -> tuple[dict[str, Any], bool]:
    """Return the declared type of each argument of a constructor, and whether there may be others.

    Where it takes ``**kwargs``, those of the constructors behind it are among them.
    """
    types: dict[str, Any] = {}
    takes_any = False
    for ancestor in cls.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        names = vars(sys.modules[ancestor.__module__])
        parameters = list(inspect.signature(ancestor.__init__).parameters.values())
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name != "self":
                types.setdefault(parameter.name, _declared(parameter.annotation, names))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
        takes_any = True
    return types, takes_any


def _declared(annotation: Any, names: dict[str, Any]) -> Any:
    """Evaluate an annotation, ``Any`` for none and for one that is imported for type checkers alone."""
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names)["it"]
    except NameError:
        return Any


def _typed(name: str, value: Any, kind: Any, where: str) -> Any:
    candidates = [value, tuple(value)] if isinstance(value, list) else [value]
    for candidate in candidates:
        try:
            return typeguard.check_type(candidate, kind)
        except typeguard.TypeCheckError:
            continue
    kind = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    raise ValueError(f"{where}: {name!r} must be of type {kind}, got {type(value).__name__} {value!r}")
