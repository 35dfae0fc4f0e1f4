"""Arithmetic on named numbers, read from a string."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

from hyperrl.utils.errors import nearest

_ALLOWED = (
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.Pow,
    ast.UnaryOp,
    ast.USub,
    ast.Call,
)
_FUNCTIONS = {"abs": abs}


class Expression:
    """An arithmetic expression of numbers, names, ``+ - * / **``, parentheses and ``abs()``.

    Anything else is refused before it is evaluated, so a definition file cannot run code.

    :param text: the expression.
    :param names: the names that may occur in it.
    :raises ValueError: for anything else, with the nearest valid name.

    >>> Expression("2 * abs(gain)", names=["gain"])({"gain": -0.5})
    1.0
    >>> Expression("2 * gian", names=["gain"])
    Traceback (most recent call last):
    ...
    ValueError: unknown name 'gian' in '2 * gian': the names are ['gain']. Did you mean 'gain'?
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        self.names = tuple(names)
        try:
            tree = ast.parse(text, mode="eval")
        except SyntaxError as error:
            raise ValueError(f"expected an arithmetic expression, got {text!r}: {error.msg}") from None
        functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree.body):
            number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
            if not number and not isinstance(node, _ALLOWED):
                raise ValueError(f"expected numbers, names, + - * / **, parentheses and abs(), got {text!r}")
            valid = _FUNCTIONS if id(node) in functions else names
            if id(node) in functions and not isinstance(node, ast.Name):
                raise ValueError(f"expected numbers, names, + - * / **, parentheses and abs(), got {text!r}")
            if isinstance(node, ast.Name) and node.id not in valid:
                raise ValueError(
                    f"unknown name {node.id!r} in {text!r}: the names are {list(valid)}.{nearest(node.id, valid)}"
                )
        self._code = compile(tree, f"<expression {text!r}>", "eval")

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __reduce__(self) -> tuple[type[Expression], tuple[str, tuple[str, ...]]]:
        return Expression, (self.text, self.names)  # compiled code cannot be pickled

    def __call__(self, values: Mapping[str, float]) -> float:
        """Return the value of the expression, given the value of each name."""
        return eval(self._code, {"__builtins__": {}, **_FUNCTIONS}, dict(values))
