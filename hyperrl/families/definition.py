"""What a file in ``envs/`` says, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperrl.contexts import ContextSpace, Feature, Interval
from hyperrl.families.expressions import Expression
from hyperrl.utils.definitions import build, read


@dataclass(frozen=True)
class FamilyDefinition:
    """What a file in ``envs/`` says.

    :param id: the Gymnasium id of the family.
    :param plane: the two features over which a picture of the returns is drawn.
    :param features: one table a feature.
    :param base: the Gymnasium id of the environment that the family varies.
    :param physics: the name of the same dynamics in :mod:`hyperrl.physics`, or of the only ones, without a base.
    :param max_episode_steps: the time limit; that of the base by default.
    :param attributes: attribute of the base environment = expression (or list of expressions) in the features.
    :param action_scale: the feature that multiplies a continuous action of the base, once clipped to the action space.
    """

    id: str
    plane: list
    features: dict
    base: str | None = None
    physics: str | None = None
    max_episode_steps: int | None = None
    attributes: dict = field(default_factory=dict)
    action_scale: str | None = None


@dataclass(frozen=True)
class FamilySpec:
    """A family, checked: its file, and what the file means."""

    name: str
    source: Path
    definition: FamilyDefinition
    context_space: ContextSpace
    attributes: Mapping[str, Expression | tuple[Expression, ...]]


@dataclass(frozen=True)
class _FeatureTable:
    unit: str
    default: float
    train: list | None = None
    bounds: list | None = None
    choices: list | None = None


def family_spec(name: str | Path) -> FamilySpec:
    """Read a family by name, or from a path that ends in ``.toml``.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = read("envs", name)
    try:
        definition = build(FamilyDefinition, table)
        _check_dynamics(definition)
        space = ContextSpace(tuple(_feature(key, value) for key, value in definition.features.items()))
        attributes = {key: _expressions(value, space) for key, value in definition.attributes.items()}
        if len(definition.plane) != 2:
            raise ValueError(f"'plane' must name two features, got {definition.plane}")
        for feature in definition.plane:
            space.index(feature)
        if definition.action_scale is not None:
            space.index(definition.action_scale)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return FamilySpec(source.stem, source, definition, space, attributes)


def _check_dynamics(definition: FamilyDefinition) -> None:
    """Refuse a family that has no dynamics, or no environment for what it says of one."""
    if definition.base is None and definition.physics is None:
        raise ValueError("give 'base', the Gymnasium id of the environment to vary, or 'physics', or both")
    if definition.max_episode_steps is not None and definition.max_episode_steps < 1:
        raise ValueError(f"'max_episode_steps' must be at least 1, got {definition.max_episode_steps}")
    if definition.base is None:
        if definition.max_episode_steps is None:
            raise ValueError("the key 'max_episode_steps' is missing: there is no 'base' to take it from")
        for key in ("attributes", "action_scale"):
            if getattr(definition, key):
                raise ValueError(f"{key!r} is about the environment of 'base', and there is none")


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


def _expressions(value: Any, space: ContextSpace) -> Expression | tuple[Expression, ...]:
    """Read one expression, or a list of them for an attribute that is a list."""
    if isinstance(value, str):
        return Expression(value, space.names)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(Expression(text, space.names) for text in value)
    raise ValueError(f"[attributes] expected an expression in quotes, or a list of such, got {value!r}")
