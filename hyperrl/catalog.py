"""The definitions of families and agents: TOML files read into frozen dataclasses."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from hyperrl.contexts import ContextSpace, Feature, Interval, nearest
from hyperrl.expressions import Expression

T = TypeVar("T")


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
class AgentDefinition:
    """What a file in ``agents/`` says.

    :param algorithm: a class of Stable-Baselines3 or sb3-contrib, such as ``"PPO"``.
    :param policy: ``"hyper"``, ``"film"``, ``"concat"`` or ``"unaware"``.
    :param n_envs: how many environments are stepped together.
    :param hyperparameters: keyword arguments of the algorithm; ``learning_rate = "lin_1e-3"`` falls linearly,
        ``action_noise = 0.1`` is normal with that standard deviation.
    :param policy_kwargs: keyword arguments of the policy.
    :param normalize_reward: divide rewards by a running estimate of the return's standard deviation.
    :param match_parameters: the recipe whose number of parameters this one is given, by its layers' width.
    """

    algorithm: str
    policy: str
    n_envs: int
    hyperparameters: dict
    policy_kwargs: dict
    normalize_reward: bool = False
    match_parameters: str | None = None


@dataclass(frozen=True)
class AgentSpec:
    """A recipe, checked: its file, and what the file says."""

    name: str
    source: Path
    definition: AgentDefinition


@dataclass(frozen=True)
class _FeatureTable:
    unit: str
    default: float
    train: list | None = None
    bounds: list | None = None
    choices: list | None = None


def names(kind: str) -> list[str]:
    """Return the names of all definitions of a kind, ``"envs"`` or ``"agents"``.

    >>> "pendulum" in names("envs")
    True
    """
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def family_spec(name: str | Path) -> FamilySpec:
    """Read a family by name, or from a path that ends in ``.toml``.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = _read("envs", name)
    try:
        definition = _build(FamilyDefinition, table)
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


def agent_spec(name: str | Path) -> AgentSpec:
    """Read a recipe by name, or from a path that ends in ``.toml``.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = _read("agents", name)
    try:
        return AgentSpec(source.stem, source, _build(AgentDefinition, table))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def folder(kind: str) -> Path:
    """Find the definitions of a kind: packaged data of an installed hyperrl, else beside the package in a checkout."""
    package = Path(__file__).parent
    packaged = package / kind
    return packaged if packaged.is_dir() else package.parent / kind


def _read(kind: str, name: str | Path) -> tuple[Path, dict[str, Any]]:
    if Path(name).suffix == ".toml":
        source = Path(name)
        if not source.is_file():
            raise ValueError(f"no such file: {source}")
    else:
        valid = names(kind)
        if str(name) not in valid:
            noun = {"envs": "family", "agents": "agent"}[kind]
            raise ValueError(
                f"unknown {noun} {str(name)!r}: known are {valid}, or give the path of a .toml file."
                f"{nearest(str(name), valid)}"
            )
        source = folder(kind) / f"{name}.toml"
    try:
        return source, tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source}: not valid TOML: {error}") from None


def _build(cls: type[T], table: Any, where: str = "") -> T:
    """Make a dataclass of a TOML table, checking its keys and the types of its values."""
    if not isinstance(table, dict):
        raise ValueError(f"{where}expected a table, got {table!r}")
    known = {declared.name: declared for declared in fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            raise ValueError(f"{where}unknown key {key!r}: the keys are {list(known)}.{nearest(key, known)}")
    for key, declared in known.items():
        if key not in table and declared.default is MISSING and declared.default_factory is MISSING:
            raise ValueError(f"{where}the key {key!r} is missing")
    hints = get_type_hints(cls)
    for key, value in table.items():
        kinds = get_args(hints[key]) or (hints[key],)
        integer_for_float = float in kinds and type(value) is int
        if type(value) not in kinds and not integer_for_float:
            raise ValueError(
                f"{where}{key!r} must be of type {kinds[0].__name__}, got {type(value).__name__} {value!r}"
            )
    return cls(**table)


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
    read = _build(_FeatureTable, table, where)
    if (read.choices is None) == (read.train is None):
        raise ValueError(f"{where}give either 'train' (with 'bounds') or 'choices'")
    if read.choices is not None:
        train = bounds = _intervals([[value, value] for value in read.choices], f"{where}'choices'")
    elif read.bounds is None:
        raise ValueError(f"{where}the key 'bounds' is missing")
    else:
        train = _intervals(read.train, f"{where}'train'")
        bounds = _intervals(read.bounds, f"{where}'bounds'")
    return Feature(name, read.unit, float(read.default), train, bounds)


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
