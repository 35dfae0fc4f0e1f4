"""Attributes of an environment by their path: ``"gravity"``, ``"model.opt.gravity"``, ``"bodies[0].mass"``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from hyperrl.utils.errors import nearest

_SEGMENT = re.compile(r"([^\W\d]\w*)((?:\[-?\d+\])*)")


class AttributePath:
    """The way from an object to one of its attributes, or to an item of one.

    :param text: names with dots between them; ``[0]`` after a name takes an item of a list or an array.
    :raises ValueError: for anything else.

    >>> from types import SimpleNamespace
    >>> env = SimpleNamespace(model=SimpleNamespace(mass=[1.0, 2.0]))
    >>> AttributePath("model.mass[1]").set(env, 0.5)
    >>> env.model.mass
    [1.0, 0.5]
    >>> AttributePath("model.mas").set(env, 0.5)
    Traceback (most recent call last):
    ...
    ValueError: 'model' has no attribute 'mas'. Did you mean 'mass'?
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps: list[str | int] = []
        for segment in text.split("."):
            found = _SEGMENT.fullmatch(segment)
            if found is None or segment.startswith("__"):
                raise ValueError(
                    f"expected an attribute such as 'gravity', 'model.opt.gravity' or 'bodies[0].mass', got {text!r}"
                )
            self.steps += [found[1], *(int(index) for index in re.findall(r"-?\d+", found[2]))]

    def __repr__(self) -> str:
        return f"AttributePath({self.text!r})"

    def check(self, root: Any) -> None:
        """Refuse a path that leads nowhere.

        :raises ValueError: naming the step that fails, and the nearest name.
        """
        self._follow(root, self.steps)

    def set(self, root: Any, value: float | list[float]) -> None:
        """Set the attribute; an array stays one, of its type.

        :raises ValueError: where there is no such attribute, and for a list of another length than the array.
        """
        owner = self._follow(root, self.steps[:-1])
        last, current = self.steps[-1], self._follow(root, self.steps)
        if isinstance(current, np.ndarray):
            if np.shape(value) not in ((), current.shape):
                raise ValueError(f"{self.text!r} has shape {current.shape}, got {value}")
            new: Any = np.full_like(current, value)
        else:
            new = value
        if isinstance(last, int):
            owner[last] = new
        else:
            setattr(owner, last, new)

    def _follow(self, root: Any, steps: list[str | int]) -> Any:
        """Return where the steps lead."""
        place, passed = root, ""
        for step in steps:
            try:
                place = place[step] if isinstance(step, int) else getattr(place, step)
            except (AttributeError, IndexError, KeyError, TypeError):
                where = repr(passed) if passed else "the environment"
                if isinstance(step, int):
                    raise ValueError(f"{where} has no item [{step}]") from None
                known = [name for name in dir(place) if not name.startswith("_")]
                raise ValueError(f"{where} has no attribute {step!r}.{nearest(step, known)}") from None
            passed += f"[{step}]" if isinstance(step, int) else f".{step}" if passed else step
        return place
