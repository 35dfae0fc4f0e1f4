"""What a file in ``envs/`` says, read and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hyperrl.contexts import ContextSpace, Feature, Interval
from hyperrl.families.attributes import AttributePath
from hyperrl.families.base import GymnasiumBase, Value
from hyperrl.families.expressions import Expression
from hyperrl.utils.definitions import build, read

MUJOCO: Final = "mujoco"
"""The ``physics`` of a family that MuJoCo steps."""


@dataclass(frozen=True)
class FamilyDefinition:
    """What a file in ``envs/`` says.

    :param id: the Gymnasium id of the family.
    :param features: one table a feature.
    :param plane: the two features over which a picture of the returns is drawn; the first two by default.
    :param base: the Gymnasium id of the environment that the family varies, or ``"module:Id"``.
    :param base_kwargs: keyword arguments of the base.
    :param wrappers: wrappers of the base, the innermost first: ``"module:Class"``, or a table of ``wrapper =
        "module:Class"`` and its keyword arguments.
    :param physics: the name of the same dynamics in :mod:`hyperrl.physics`, or of the only ones, without a base;
        ``"mujoco"`` where the base is one of Gymnasium's MuJoCo environments, or of :mod:`hyperrl.physics.tasks`.
    :param max_episode_steps: the time limit; that of the base by default.
    :param attributes: path of an attribute of the base (``"gravity"``, ``"model.opt.gravity"``, ``"bodies[0].mass"``) =
        expression (or list of expressions) in the features.
    :param action_scale: the feature that multiplies a continuous action of the base, once clipped to the action space.
    :param model: of a base that MuJoCo simulates: tables of what changes in its model (``"opt.gravity"``,
        ``"body_mass.torso"``, ``"actuator_gear.*"``) = expression in the features: ``scale`` for factors on the
        compiled values, ``set`` for values, ``length`` for factors on the lengths of bodies.
    """

    id: str
    features: dict
    plane: list | None = None
    base: str | None = None
    base_kwargs: dict = field(default_factory=dict)
    wrappers: list = field(default_factory=list)
    physics: str | None = None
    max_episode_steps: int | None = None
    attributes: dict = field(default_factory=dict)
    action_scale: str | None = None
    model: dict = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The SHA-256 of what it says of the dynamics and the features. The plane does not count.

        Of the id only the version counts. When the code of a family's physics changes, the version of its id is raised,
        as Gymnasium does, so that references and results of the old physics are refused.
        """
        unsaid = {key for key in ("base_kwargs", "wrappers", "model") if not getattr(self, key)}
        said = {key: value for key, value in asdict(self).items() if key not in ({"id", "plane"} | unsaid)}
        version = re.search(r"-v([1-9]\d*)$", self.id)
        if version is not None:
            said["version"] = int(version[1])
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class FamilySpec:
    """A family's file, checked, and what it means."""

    name: str
    source: Path
    definition: FamilyDefinition
    context_space: ContextSpace
    base: GymnasiumBase | None


@dataclass(frozen=True)
class _ModelTable:
    scale: dict = field(default_factory=dict)
    set: dict = field(default_factory=dict)
    length: dict = field(default_factory=dict)


@dataclass(frozen=True)
class _FeatureTable:
    unit: str
    default: float
    train: list | None = None
    bounds: list | None = None
    choices: list | None = None


def family_spec(name: str | Path) -> FamilySpec:
    """Read a family's file by name, or from a path that ends in ``.toml``; imports nothing that the file names.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = read("envs", name)
    return spec_of(source.stem, source, table)


def spec_of(name: str, source: Path, table: Mapping[str, Any]) -> FamilySpec:
    """Check what a family's file says; imports nothing that it names.

    :param name: the family's name.
    :param source: where it was read, for messages.
    :param table: what it says.
    :raises ValueError: where that is faulty, saying source, key and what is valid.
    """
    try:
        definition = build(FamilyDefinition, table)
        _check_dynamics(definition)
        space = ContextSpace(tuple(_feature(key, value) for key, value in definition.features.items()))
        attributes = tuple(_attribute(key, value, space) for key, value in definition.attributes.items())
        tables = asdict(build(_ModelTable, definition.model, "[model] "))
        model = {name: _changes(name, table, space) for name, table in tables.items() if table}
        if definition.plane is not None and len(definition.plane) != 2:
            raise ValueError(f"'plane' must name two features, got {definition.plane}")
        for feature in (*(definition.plane or ()), *filter(None, [definition.action_scale])):
            space.index(feature)
        base = None
        if definition.base is not None:
            wrappers = tuple(map(_wrapper, definition.wrappers))
            simulated = bool(model) or definition.physics == MUJOCO
            base = GymnasiumBase(
                source, definition.base, attributes, definition.base_kwargs, wrappers, model, simulated
            )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return FamilySpec(name, source, definition, space, base)


def _check_dynamics(definition: FamilyDefinition) -> None:
    """Refuse a family that has no dynamics, or no environment for what it says of one."""
    if definition.base is None and definition.physics is None:
        raise ValueError("give 'base', the Gymnasium id of the environment to vary, or 'physics', or both")
    if definition.max_episode_steps is not None and definition.max_episode_steps < 1:
        raise ValueError(f"'max_episode_steps' must be at least 1, got {definition.max_episode_steps}")
    if definition.base is None:
        if definition.max_episode_steps is None:
            raise ValueError("the key 'max_episode_steps' is missing: there is no 'base' to take it from")
        for key in ("attributes", "action_scale", "base_kwargs", "wrappers", "model"):
            if getattr(definition, key):
                raise ValueError(f"{key!r} is about the environment of 'base', and there is none")
    if definition.physics == MUJOCO:
        for key in ("action_scale", "wrappers"):
            if getattr(definition, key):
                raise ValueError(f"physics = 'mujoco' does not know of {key!r}: use [model], or leave physics out")
        for key, value in definition.attributes.items():
            if isinstance(value, list):
                raise ValueError(f"[attributes] {key!r}: with physics = 'mujoco' it takes one expression, got {value}")
        if definition.base is None:
            raise ValueError("physics = 'mujoco' needs 'base'")


def _feature(name: str, table: Any) -> Feature:
    where = f"[features.{name}] "
    entry = build(_FeatureTable, table, where)
    if (entry.choices is None) == (entry.train is None):
        raise ValueError(f"{where}give either 'train' (with 'bounds') or 'choices'")
    if entry.choices is not None:
        train = bounds = _intervals([[value, value] for value in entry.choices], f"{where}'choices'")
    elif entry.bounds is None:
        raise ValueError(f"{where}the key 'bounds' is missing")
    else:
        train = _intervals(entry.train, f"{where}'train'")
        bounds = _intervals(entry.bounds, f"{where}'bounds'")
    return Feature(name, entry.unit, float(entry.default), train, bounds)


def _intervals(value: Any, where: str) -> tuple[Interval, ...]:
    """Read ``[low, high]`` or ``[[low, high], …]``."""
    pairs = [value] if value and not isinstance(value[0], list) else value
    try:
        return tuple((float(low), float(high)) for low, high in pairs)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must be [low, high] or a list of such intervals, got {value!r}") from None


def _wrapper(value: Any) -> tuple[str, dict[str, Any]]:
    """Read a wrapper: its class, and its keyword arguments."""
    table = {"wrapper": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("wrapper"), str):
        raise ValueError(
            "'wrappers' must list such as 'gymnasium.wrappers:FlattenObservation', or tables of wrapper = "
            f"'module:Class' and its keyword arguments, got {value!r}"
        )
    return table["wrapper"], {key: argument for key, argument in table.items() if key != "wrapper"}


def _attribute(path: str, value: Any, space: ContextSpace) -> tuple[AttributePath, Value]:
    """Read one expression, or a list of them for an attribute that is a list; check them over the bounds."""
    try:
        if isinstance(value, dict):
            raise ValueError(f"write the attribute in quotes, such as '{path}.{next(iter(value), 'name')}'")
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected an expression in quotes, or a list of such, got {value!r}")
        expressions = tuple(Expression(text, space.names) for text in texts)
        for expression in expressions:
            expression.check_over(space)
        return AttributePath(path), expressions if isinstance(value, list) else expressions[0]
    except ValueError as error:
        raise ValueError(f"[attributes] {path!r}: {error}") from None


def _changes(name: str, table: dict[str, Any], space: ContextSpace, prefix: str = "") -> dict[str, Expression]:
    """Read what of a model changes, in quotes or in tables (``body_mass.torso``); check it over the bounds.

    :param name: ``scale``, ``set`` or ``length``.
    """
    changes: dict[str, Expression] = {}
    for key, value in table.items():
        target = prefix + key
        if isinstance(value, dict):
            changes |= _changes(name, value, space, f"{target}.")
            continue
        try:
            if not isinstance(value, str):
                raise ValueError(f"expected an expression in quotes, got {value!r}")
            expression = Expression(value, space.names)
            expression.check_over(space)
        except ValueError as error:
            raise ValueError(f"[model.{name}] {target!r}: {error}") from None
        changes[target] = expression
    return changes
