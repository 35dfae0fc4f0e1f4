"""Factors on the fields of a MuJoCo model: what a context changes of a compiled body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, Final

import numpy as np

from hyperrl.utils.errors import nearest

OPTIONS: Final = ("opt.gravity", "opt.wind", "opt.density", "opt.viscosity")
"""The options of a model that may be scaled."""
FIELDS: Final = (
    "body_mass",
    "geom_friction",
    "jnt_stiffness",
    "dof_damping",
    "dof_armature",
    "dof_frictionloss",
    "actuator_gear",
    "tendon_stiffness",
    "tendon_damping",
)
"""The fields of a model that may be scaled: those on which no shape, place or bounding volume depends."""
_THINGS: Final = {
    "body": ("body", "nbody"),
    "geom": ("geom", "ngeom"),
    "jnt": ("joint", "njnt"),
    "dof": ("joint", "njnt"),
    "actuator": ("actuator", "nu"),
    "tendon": ("tendon", "ntendon"),
}
"""Prefix of a field = the things whose names its values go by, and the model's number of them."""
_DERIVED: Final = {"body_mass": "body_inertia"}
"""Field = the field that is scaled with it: a body twice as heavy has twice the inertia."""


class ModelScale:
    """Factors on the values that a model was compiled with, so that nothing compounds.

    :param model: the model as it was compiled; it is not changed here.
    :param targets: what each factor is of: an option such as ``"opt.gravity"``, or a field of ``MjModel`` and a name,
        ``"body_mass.torso"``, a pattern of names, ``"actuator_gear.*"``; where a thing has no name, its number is its
        name. Factors of one value are multiplied. A body's inertia is scaled with its mass.
    :raises ValueError: for a field or a name that there is not, with the nearest one.

    >>> import mujoco
    >>> model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body name='ball'><freejoint/>"
    ...     "<geom size='.1' mass='2'/></body></worldbody></mujoco>")
    >>> scale = ModelScale(model, ["body_mass.ball"])
    >>> scale.apply(model, [1.5])
    >>> scale.apply(model, [1.5])
    >>> model.body("ball").mass
    array([3.])
    >>> ModelScale(model, ["body_mass.bal"])
    Traceback (most recent call last):
    ...
    ValueError: 'body_mass.bal': the model has no body 'bal': there are ['world', 'ball']. Did you mean 'ball'?
    """

    def __init__(self, model: Any, targets: Sequence[str]) -> None:
        self._targets = [_resolve(model, target) for target in targets]
        self._compiled = {field: np.array(_value(model, field)) for field, _ in self._targets}
        """Field = its values as compiled, without those that are scaled with another field."""
        self._derived = {field: np.array(_value(model, _DERIVED[field])) for field in self._compiled.keys() & _DERIVED}
        self._scratch: Any = None

    @property
    def fields(self) -> list[str]:
        """The fields that it changes, in the order in which :meth:`values` gives them."""
        return [*self._compiled, *(_DERIVED[field] for field in self._derived)]

    def values(self, factors: Sequence[float]) -> dict[str, np.ndarray]:
        """Return the fields' values for the factors, one for each target; each of the field's shape."""
        product = {field: np.ones(np.shape(value)) for field, value in self._compiled.items()}
        for (field, rows), factor in zip(self._targets, factors, strict=True):
            product[field][rows] *= factor
        scaled = {field: value * product[field] for field, value in self._compiled.items()}
        for field, value in self._derived.items():
            scaled[_DERIVED[field]] = value * product[field][:, None]  # (nbody, 3)
        return scaled

    def apply(self, model: Any, factors: Sequence[float]) -> None:
        """Set the values in a model of the same body, and what MuJoCo derives from them."""
        for field, value in self.values(factors).items():
            if np.ndim(value):
                _value(model, field)[...] = value
            else:
                setattr(model.opt, field.removeprefix("opt."), float(value))
        mujoco = library()
        if self._scratch is None:
            self._scratch = mujoco.MjData(model)
        mujoco.mj_setConst(model, self._scratch)  # overwrites the data


def library() -> Any:
    """Import MuJoCo, whose names type checkers do not find."""
    return import_module("mujoco")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo from writing warnings to a log file in the working folder."""
    mujoco = library()
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _ignore(message: object) -> None:
    pass


def _value(model: Any, field: str) -> Any:
    return getattr(model.opt, field[4:]) if field.startswith("opt.") else getattr(model, field)


def _resolve(model: Any, target: str) -> tuple[str, Any]:
    """Return the field and the index of the values in it."""
    if target in OPTIONS:
        return target, ...
    field, _, pattern = target.partition(".")
    if field not in FIELDS:
        hint = nearest(target, OPTIONS) or nearest(field, FIELDS)
        raise ValueError(
            f"{target!r}: expected one of {list(OPTIONS)}, or one of the fields {list(FIELDS)} and a name, such as "
            f"'body_mass.torso' or 'actuator_gear.*'.{hint}"
        )
    prefix = field.partition("_")[0]
    thing, count = _THINGS[prefix]
    names = [getattr(model, thing)(i).name or str(i) for i in range(getattr(model, count))]
    found = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(
            f"{target!r}: the model has no {thing} {pattern!r}: there are {names}.{nearest(pattern, names)}"
        )
    return field, np.isin(model.dof_jntid, found) if prefix == "dof" else found
