"""What a context changes of a compiled MuJoCo model: factors, values, and the lengths of bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from hyperrl.physics.lengths import Lengths, matching
from hyperrl.physics.libmujoco import library, quiet
from hyperrl.utils.errors import nearest

OPTIONS: Final = ("opt.gravity", "opt.wind", "opt.density", "opt.viscosity")
"""The options of a model that may be changed."""
FIELDS: Final = (
    "body_mass",
    "body_pos",
    "geom_friction",
    "jnt_stiffness",
    "dof_damping",
    "dof_armature",
    "dof_frictionloss",
    "actuator_gear",
    "actuator_trnid",
    "tendon_stiffness",
    "tendon_damping",
    "tendon_range",
)
"""The fields of a model that may be changed: those on which no shape or bounding volume depends."""
_THINGS: Final = {
    "body": ("body", "nbody"),
    "geom": ("geom", "ngeom"),
    "jnt": ("joint", "njnt"),
    "dof": ("joint", "njnt"),
    "actuator": ("actuator", "nu"),
    "tendon": ("tendon", "ntendon"),
}
"""Prefix of a field = the things whose names its values go by, and the model's number of them."""
_TARGET: Final = re.compile(r"(opt\.\w*|\w*)(?:\[(\d+)\])?(?:\.(.*))?")
"""A field or an option, the number of one of its values, and a pattern of names."""

Value = Callable[[Mapping[str, float]], float]
"""A function of the context, by the names of its features."""


class ModelEdit:
    """Changes of a model by the context, from the values that it was compiled with, so that nothing compounds.

    What is scaled or set is an option such as ``"opt.density"``, or a field of ``MjModel`` and a name,
    ``"body_mass.torso"``, or a pattern of names, ``"actuator_gear.*"``; where a thing has no name, its number is its
    name. ``"opt.gravity[2]"`` and ``"geom_friction[0].*"`` are one number of several. Factors of one value are
    multiplied, also with what is set. A body's inertia changes with its mass.

    :param model: the model as it was compiled; it is not changed here.
    :param spec: its definition, an ``MjSpec``, where lengths change.
    :param scale: what is multiplied = the factor.
    :param set: what is set = the value; the later of two counts.
    :param length: name of a body, or pattern of names = the factor on its length, see :class:`Lengths`.
    :raises ValueError: for a field or a name that there is not, with the nearest one.

    >>> import mujoco
    >>> model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body name='ball'><freejoint/>"
    ...     "<geom size='.1' mass='2'/></body></worldbody></mujoco>")
    >>> edit = ModelEdit(model, scale={"body_mass.ball": lambda c: c["mass"]}, set={"opt.density": lambda c: 1.2})
    >>> edit.apply(model, {"mass": 1.5})
    >>> edit.apply(model, {"mass": 1.5})
    >>> model.body("ball").mass, model.opt.density
    (array([3.]), 1.2)
    >>> ModelEdit(model, scale={"body_mass.bal": lambda c: 2.0})
    Traceback (most recent call last):
    ...
    ValueError: [model.scale] 'body_mass.bal': the model has no body 'bal': there are ['world', 'ball']. Did you mean
    'ball'?
    """

    def __init__(
        self,
        model: Any,
        spec: Any = None,
        *,
        scale: Mapping[str, Value] | None = None,
        set: Mapping[str, Value] | None = None,
        length: Mapping[str, Value] | None = None,
    ) -> None:
        self._scale = [(*_named("scale", model, target), factor) for target, factor in (scale or {}).items()]
        self._set = [(*_named("set", model, target), value) for target, value in (set or {}).items()]
        self._length = list((length or {}).values())
        self._lengths = _lengths(model, spec, list(length)) if length else None
        fields = [field for field, _, _ in (*self._scale, *self._set)]
        fields += ["body_inertia"] if "body_mass" in fields else []
        fields += [] if self._lengths is None else self._lengths.fields
        self.fields: Final = list(dict.fromkeys(fields))
        """The fields that it changes, in the order in which :meth:`values` gives them."""
        self._compiled = {field: np.array(value_of(model, field)) for field in self.fields}
        self._joints: Final = model.njnt
        self._scratch: Any = None
        self._init_qpos: np.ndarray | None = None

    @classmethod
    def of(cls, env: Any, **tables: Mapping[str, Value]) -> ModelEdit:
        """Return changes of the model of an environment such as Gymnasium's.

        Its attributes are ``model``; where lengths change, ``fullpath``, the file of the model; and ``init_qpos`` where
        episodes do not begin where the model does.

        :param env: the environment, unwrapped.
        :param tables: ``scale``, ``set``, ``length``.
        """
        spec = None
        if tables.get("length") and hasattr(env, "fullpath"):
            with quiet():
                spec = library().MjSpec.from_file(env.fullpath)
        edit = cls(env.model, spec, **tables)
        edit._init_qpos = getattr(env, "init_qpos", None)
        return edit

    def values(self, context: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Return the fields' values in a context, each of the field's shape.

        What MuJoCo derives from them, ``mj_setConst`` must compute.

        :raises ValueError: for a factor on a length that is not positive, and for a joint that there is not.
        """
        values = {field: value.copy() for field, value in self._start(context).items()}
        for field, where, value in self._set:
            new = value(context)
            if field == "actuator_trnid" and new not in range(self._joints):
                raise ValueError(
                    f"[model.set] actuator_trnid: expected the number of a joint, 0 to {self._joints - 1}, got {new}"
                )
            if field == "body_mass":
                values["body_inertia"][where] *= (new / values[field][where])[:, None]  # (bodies, 3)
            values[field][where] = new
        product = {field: np.ones(np.shape(values[field])) for field, _, _ in self._scale}
        for field, where, factor in self._scale:
            product[field][where] *= factor(context)
        for field, factors in product.items():
            values[field] *= factors
        if "body_mass" in product:
            values["body_inertia"] *= product["body_mass"][:, None]  # (nbody, 3)
        return values

    def apply(self, model: Any, context: Mapping[str, float]) -> None:
        """Set the values in a model of the same bodies, and what MuJoCo derives from them."""
        for field, value in self.values(context).items():
            if np.ndim(value):
                value_of(model, field)[...] = value
            else:
                setattr(model.opt, field.removeprefix("opt."), float(value))
        mujoco = library()
        if self._scratch is None:
            self._scratch = mujoco.MjData(model)
        mujoco.mj_setConst(model, self._scratch)  # overwrites the data

    def apply_to(self, env: Any, context: Mapping[str, float]) -> None:
        """Set the values in the model of the environment; its episodes begin higher or lower as its legs are longer."""
        self.apply(env.model, context)
        if self._init_qpos is not None and "qpos0" in self.fields:
            env.init_qpos = self._init_qpos + (env.model.qpos0 - self._compiled["qpos0"])

    def _start(self, context: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Return what is scaled and set: the fields' values as compiled, with the lengths of the context."""
        factors = [factor(context) for factor in self._length]
        if self._lengths is None or all(factor == 1 for factor in factors):
            return self._compiled
        try:
            model = self._lengths.compile(factors)
        except ValueError as error:
            raise ValueError(f"[model.length] {error}") from None
        return self._compiled | {field: getattr(model, field) for field in self._lengths.fields}


def value_of(model: Any, field: str) -> Any:
    """Return the values of a field, or of an option such as ``"opt.gravity"``."""
    return getattr(model.opt, field[4:]) if field.startswith("opt.") else getattr(model, field)


def _lengths(model: Any, spec: Any, targets: list[str]) -> Lengths:
    try:
        if spec is None:
            raise ValueError("the definition of the model is not known")
        return Lengths(model, spec, targets)
    except ValueError as error:
        raise ValueError(f"[model.length] {error}") from None


def _named(table: str, model: Any, target: str) -> tuple[str, Any]:
    """Return the field and the index of the values in it."""
    try:
        field, where = _resolve(model, target, whole=table == "scale")
        if table == "set" and field == "body_mass" and not np.all(model.body_mass[where]):
            raise ValueError("where the compiled mass is 0, there is no inertia to go with another")
        if field == "body_pos":
            _check_joints(model, where)
        if field == "actuator_trnid":
            _check_actuators(table, model, where)
    except ValueError as error:
        raise ValueError(f"[model.{table}] {target!r}: {error}") from None
    return field, where


def _check_joints(model: Any, where: Any) -> None:
    """Refuse the place of a body that has a free joint, which says it, or of the world."""
    rows = where[0] if isinstance(where, tuple) else where
    free = library().mjtJoint.mjJNT_FREE
    for body in np.atleast_1d(rows):
        first = model.body_jntadr[body]
        if body == 0 or (first >= 0 and model.jnt_type[first] == free):
            raise ValueError(f"the body {model.body(body).name!r} is not held at a place on another body")


def _check_actuators(table: str, model: Any, where: Any) -> None:
    """Refuse what is not the number of the joint that an actuator moves."""
    if table == "scale":
        raise ValueError("the number of a joint cannot be scaled: use [model.set]")
    actuators, number = where
    is_joint = model.actuator_trntype[actuators] == library().mjtTrn.mjTRN_JOINT
    if number != 0 or not is_joint.all():
        raise ValueError("expected actuator_trnid[0] of actuators that move a joint")


def _resolve(model: Any, target: str, whole: bool) -> tuple[str, Any]:
    """Return the field and the index of the values in it.

    :param whole: whether it may be several numbers of a thing.
    """
    found = _TARGET.fullmatch(target)
    field, number, pattern = ("", None, None) if found is None else found.groups()
    is_option = field in OPTIONS and pattern is None
    if not is_option and (field not in FIELDS or pattern is None):
        hint = nearest(target, OPTIONS) or nearest(field, FIELDS)
        raise ValueError(
            f"expected one of {list(OPTIONS)}, or one of the fields {list(FIELDS)} and a name, such as "
            f"'body_mass.torso' or 'actuator_gear.*'.{hint}"
        )
    shape = np.shape(value_of(model, field))[0 if is_option else 1 :]
    if number is None and shape and not whole:
        example = f"{field}[0]" if is_option else f"{field}[0].{pattern}"
        raise ValueError(f"{field} has {shape[0]} numbers each: say which, such as {example!r}")
    if number is not None and (not shape or int(number) >= shape[0]):
        raise ValueError(f"{field} has {f'the numbers 0 to {shape[0] - 1}' if shape else 'one number'} each")
    rows = ... if is_option else _rows(model, field, pattern)
    if number is None:
        return field, rows
    return field, int(number) if is_option else (rows, int(number))


def _rows(model: Any, field: str, pattern: Any) -> Any:
    prefix = field.partition("_")[0]
    thing, count = _THINGS[prefix]
    names = [getattr(model, thing)(i).name or str(i) for i in range(getattr(model, count))]
    found = matching(thing, names, pattern)
    return np.isin(model.dof_jntid, found) if prefix == "dof" else found
