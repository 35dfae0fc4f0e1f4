"""How commands read in the help: one line each in the list of commands, and arguments as users write them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import docstring_parser
import tyro

ASSIGNED = ("context", "hyperparameters", "overrides")
"""Arguments that are values by name."""
METAVARS = {int: "N", float: "X", Path: "PATH"}


def union_of(commands: Mapping[str, Callable[..., None]]) -> Any:
    """Return what tyro makes a command line of: one command of several."""
    return Union[  # noqa: UP007 (of a tuple)
        tuple(
            Annotated[None, tyro.conf.subcommand(name, constructor=described(command), description=one_line(command))]
            for name, command in commands.items()
        )
    ]


def one_line(command: Callable[..., None]) -> str:
    """Return the first sentence of a command's docstring."""
    return _joined(docstring_parser.parse(command.__doc__ or "").short_description or "")


def described(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose arguments have the metavars and defaults that the help is to show."""
    documented = docstring_parser.parse(command.__doc__ or "")
    helps = {entry.arg_name: _joined(entry.description or "") for entry in documented.params}
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    parameters = [
        parameter.replace(annotation=_annotated(parameter, helps.get(parameter.name, "")))
        for parameter in signature.parameters.values()
    ]
    return retyped(wrapper, parameters)


def retyped(wrapper: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Give a function that wraps a command the parameters that tyro is to read, in place of the command's."""
    del wrapper.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
    wrapper.__signature__ = inspect.Signature(parameters)
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _annotated(parameter: inspect.Parameter, text: str) -> Any:
    """Annotate a parameter for tyro, unless it is annotated for it already."""
    kind, markers = parameter.annotation, ()
    if get_origin(kind) is Annotated:
        kind, *markers = get_args(kind)
    if not text:
        return parameter.annotation
    hidden = "Default:" in text or parameter.default in (None, ()) or parameter.default is inspect.Parameter.empty
    hint: dict[str, Any] = dict(help_behavior_hint="") if hidden else {}
    return Annotated[kind, *markers, tyro.conf.arg(metavar=_metavar(parameter.name, kind), help=text, **hint)]


def _metavar(name: str, kind: Any) -> str | None:
    """Say what stands for a value: ``N``, ``X``, ``PATH``, or the argument's name; ``None`` for tyro's own."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    if type(None) in get_args(kind) and len(inner) == 1:
        return _metavar(name, inner[0])
    if get_origin(kind) is tuple:
        if name in ASSIGNED:
            return "NAME=VALUE ..."
        return f"{_metavar(name.removesuffix('s'), inner[0])} ..."
    if kind is str:
        return name.upper()
    return METAVARS.get(kind)


def _joined(text: str) -> str:
    return " ".join(text.split())
