"""Arithmetic on named numbers, read from a string."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import Final

import numpy as np

from hyperrl.contexts import ContextSpace, latin_hypercube
from hyperrl.utils.errors import nearest

LONGEST: Final = 500
"""Characters of an expression."""
DEEPEST: Final = 100
"""Operations, calls and parentheses within each other."""
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

    Anything else is refused before it is evaluated, so a definition file cannot run code. All numbers are floats, so
    that each operation takes the same short time.

    :param text: the expression, of at most 500 characters.
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
        if len(text) > LONGEST:
            raise ValueError(f"expected an expression of at most {LONGEST} characters, got {len(text)}")
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise ValueError(f"expected an arithmetic expression, got {text!r}: {reason}") from None
        except (RecursionError, MemoryError):
            raise ValueError(f"expected at most {DEEPEST} nested operations, got {text!r}") from None
        self._check(tree.body)
        self._code = compile(tree, f"<expression {text!r}>", "eval")

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and (self.text, self.names) == (other.text, other.names)

    def __hash__(self) -> int:
        return hash((self.text, self.names))

    def __reduce__(self) -> tuple[type[Expression], tuple[str, tuple[str, ...]]]:
        return Expression, (self.text, self.names)  # compiled code cannot be pickled

    def __call__(self, values: Mapping[str, float]) -> float:
        """Return the value of the expression, given the value of each name.

        :raises ValueError: where the result is no finite real number.

        >>> Expression("(-gain) ** 0.5", names=["gain"])({"gain": 2.0})
        Traceback (most recent call last):
        ...
        ValueError: '(-gain) ** 0.5' is no finite real number for gain=2
        """
        try:
            result = eval(self._code, {"__builtins__": {}, **_FUNCTIONS}, dict(values))
        except (ZeroDivisionError, OverflowError):
            result = math.nan
        if isinstance(result, complex) or not math.isfinite(result):
            used = ", ".join(f"{name}={values[name]:g}" for name in self._used)
            raise ValueError(f"{self.text!r} is no finite real number{' for ' if used else ''}{used}")
        return result

    def check_over(self, space: ContextSpace) -> None:
        """Evaluate at the default, at the corners of the bounds and at a spread of contexts between.

        :raises ValueError: where the result is no finite real number, with the context.
        """
        for context in _probes(space):
            self(space.as_dict(context))

    @property
    def _used(self) -> list[str]:
        return [name for name in self.names if name in self._code.co_names]

    def _check(self, root: ast.expr) -> None:
        """Refuse what is not arithmetic, and make all constants floats."""
        waiting: list[tuple[ast.AST, Collection[str], int]] = [(root, self.names, 1)]
        while waiting:
            node, valid, depth = waiting.pop()
            if depth > DEEPEST:
                raise ValueError(f"expected at most {DEEPEST} nested operations, got {self.text!r}")
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, int | float)
                and not isinstance(node.value, bool)
            ):
                node.value = _finite(node.value, self.text)
            elif not isinstance(node, _ALLOWED) or (isinstance(node, ast.Call) and not isinstance(node.func, ast.Name)):
                raise ValueError(f"expected numbers, names, + - * / **, parentheses and abs(), got {self.text!r}")
            elif isinstance(node, ast.Name) and node.id not in valid:
                raise ValueError(
                    f"unknown name {node.id!r} in {self.text!r}: the names are {list(valid)}.{nearest(node.id, valid)}"
                )
            function = node.func if isinstance(node, ast.Call) else None
            for child in ast.iter_child_nodes(node):
                waiting.append((child, _FUNCTIONS if child is function else self.names, depth + 1))
            if isinstance(node, ast.Call) and (len(node.args) != 1 or node.keywords):
                raise ValueError(f"abs() takes one argument, got {self.text!r}")


def _probes(space: ContextSpace) -> Iterator[np.ndarray]:
    """Give contexts that cover the bounds: the default, corners, their middles, and a Latin hypercube."""
    yield space.default
    ends = [sorted({end for interval in feature.bounds for end in interval}) for feature in space.features]
    middles = [[(low + high) / 2 for low, high in feature.bounds] for feature in space.features]
    for i, values in enumerate(zip(ends, middles, strict=True)):
        for value in (*values[0], *values[1]):
            context = space.default
            context[i] = value
            yield context
    if math.prod(map(len, ends)) <= 1024:
        yield from (np.array(corner) for corner in product(*ends))
    yield from space.from_uniform(latin_hypercube(256, len(space), np.random.default_rng(0)), bounds=True)


def _finite(value: int | float, text: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"expected finite numbers, got {text!r}")
    return number
