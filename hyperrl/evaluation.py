"""Evaluation: the returns of an agent over the contexts of a family."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.contexts import SPLITS, Vector
from hyperrl.episodes import ValueAccuracy, play
from hyperrl.families import Family
from hyperrl.files import write_text
from hyperrl.misreports import misreport
from hyperrl.provenance import describe_model, family_digest, versions
from hyperrl.statistics import Estimate, bootstrap_iqm

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Split:
    """The returns on one split.

    :param contexts: shape ``(n, d)``, physical units.
    :param returns: undiscounted return of each episode, shape ``(n, episodes)``.
    :param values: how accurate the critic was in each context, where there is one.
    """

    contexts: Vector
    returns: Vector
    values: ValueAccuracy | None = None

    @property
    def mean(self) -> float:
        """The mean return over contexts and episodes."""
        return float(self.returns.mean())

    @property
    def iqm(self) -> Estimate:
        """The interquartile mean over contexts; its interval speaks of episodes, not of training seeds."""
        return bootstrap_iqm(self.returns[None])


@dataclass(frozen=True)
class Plane:
    """Mean returns over a grid of two features, the others at their default.

    :param features: the names of the two features, x and y.
    :param x: values of the first, shape ``(nx,)``.
    :param y: values of the second, shape ``(ny,)``.
    :param returns: shape ``(ny, nx)``, NaN where the context is out of bounds.
    """

    features: tuple[str, str]
    x: Vector
    y: Vector
    returns: Vector


@dataclass(frozen=True)
class Sweep:
    """Returns along one quantity that is varied.

    :param values: its ``k`` values.
    :param returns: shape ``(k, contexts, episodes)``.
    """

    values: Vector
    returns: Vector


@dataclass(frozen=True)
class Report:
    """What :func:`evaluate` measured, and how.

    :param family: the name of the family.
    :param settings: the arguments of :func:`evaluate`.
    :param provenance: versions of the libraries, SHA-256 of the family's definition, number of irrelevant features, and
        which model it was.
    :param splits: the returns by split.
    :param plane: the returns over the context plane, if asked for.
    :param sweeps: the returns along each feature with the others at their default, one context a value.
    :param misreports: by kind of misreport, the returns in the contexts of ``interpolation`` along its level.
    """

    family: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    splits: dict[str, Split]
    plane: Plane | None = None
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    misreports: dict[str, Sweep] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the report as one JSON file, whole or not at all; NaN becomes null."""
        data: dict[str, Any] = {
            "family": self.family,
            "settings": self.settings,
            "provenance": self.provenance,
            "splits": {
                name: {"contexts": split.contexts.tolist(), "returns": split.returns.tolist()}
                | ({} if split.values is None else {"values": _listed(split.values._asdict())})
                for name, split in self.splits.items()
            },
            "plane": None if self.plane is None else _listed(vars(self.plane)),
            "sweeps": {name: _listed(vars(sweep)) for name, sweep in self.sweeps.items()},
            "misreports": {name: _listed(vars(sweep)) for name, sweep in self.misreports.items()},
        }
        write_text(path, json.dumps(data, allow_nan=False))

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that :meth:`save` wrote.

        :raises ValueError: where the file is no such report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            splits = {
                name: Split(
                    _array(split["contexts"]),
                    _array(split["returns"]),
                    ValueAccuracy(**_arrays(split["values"])) if "values" in split else None,
                )
                for name, split in data["splits"].items()
            }
            plane = data["plane"]
            if plane is not None:
                x, y = plane.pop("features")
                plane = Plane((x, y), **_arrays(plane))
            sweeps, misreports = (
                {name: Sweep(**_arrays(sweep)) for name, sweep in data[key].items()} for key in ("sweeps", "misreports")
            )
            return cls(data["family"], data["settings"], data["provenance"], splits, plane, sweeps, misreports)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not an evaluation written by this version of hyperrl: {error!r}") from None


def evaluate(
    model: BaseAlgorithm,
    family: Family,
    splits: Sequence[str] = SPLITS,
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    plane: int = 0,
    sweep: int = 0,
    misreports: Mapping[str, Sequence[float]] | None = None,
    progress: bool = False,
) -> Report:
    """Measure a model's returns on the contexts of each split.

    Every episode is played in an environment of its own, all of a split together. Two models evaluated with the same
    seed meet the same contexts and the same initial states.

    :param model: any Stable-Baselines3 model, see :func:`hyperrl.episodes.play`.
    :param family: the family.
    :param splits: see :meth:`ContextSpace.sample`.
    :param contexts: contexts per split.
    :param episodes: episodes per context.
    :param seed: seed of contexts and initial states.
    :param deterministic: take the most likely action rather than a sample.
    :param plane: points a feature of a grid over the family's context plane; 0 for no grid.
    :param sweep: values of each feature, over its bounds, to play with the others at their default; 0 for none.
    :param misreports: kind of misreport = levels to play the contexts of ``interpolation`` with, beside level 0; see
        :data:`hyperrl.misreports.MISREPORTS`.
    :param progress: show a progress bar.
    :raises ValueError: for an unknown split or misreport, or a model of other observations.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("cartpole")
    >>> report = evaluate(PPO(HyperPolicy, family.vec_env(2)), family, splits=("train",), contexts=3, episodes=2)
    >>> report.splits["train"].returns.shape
    (3, 2)
    """
    if episodes < 1:
        raise ValueError(f"expected at least one episode, got episodes={episodes}")
    space = family.context_space
    chosen = {split: space.sample(split, contexts, seed) for split in splits}
    grid, mask, axes = _grid(family, plane)
    lines = _lines(family, sweep)
    settings = dict(
        contexts=contexts, episodes=episodes, seed=seed, deterministic=deterministic, plane=plane, sweep=sweep
    ) | dict(misreports={kind: list(levels) for kind, levels in (misreports or {}).items()})
    between = space.sample("interpolation", contexts, seed)
    told = {
        kind: {level: misreport(kind, level, between, episodes, space, seed) for level in dict.fromkeys((0.0, *levels))}
        for kind, levels in (misreports or {}).items()
    }

    from tqdm import tqdm

    total = len(chosen) + (plane > 0) + len(lines) + sum(map(len, told.values()))
    with tqdm(total=total, disable=not progress, desc="evaluate", unit="split") as bar:

        def measure(points: Vector, **kwargs: Any) -> Split:
            played = play(model, family, points, episodes, seed, deterministic, **kwargs)
            bar.update()
            return Split(points, played.returns, played.values)

        measured = {split: measure(points, values=True) for split, points in chosen.items()}
        pictured = None
        if plane > 0:
            returns = np.full(mask.shape, np.nan)
            returns[mask] = measure(grid).returns.mean(axis=1)
            pictured = Plane(family.plane, *axes, returns)
        sweeps = {
            name: Sweep(points[:, space.index(name)], measure(points).returns[:, None])
            for name, points in lines.items()
        }
        misled = {
            kind: Sweep(np.array(list(levels)), np.array([measure(between, told=t).returns for t in levels.values()]))
            for kind, levels in told.items()
        }
    provenance = {
        "versions": versions(),
        "definition": family_digest(family),
        "irrelevant": family.irrelevant,
        "model": describe_model(model),
    }
    return Report(family.name, settings, provenance, measured, pictured, sweeps, misled)


def _grid(family: Family, n: int) -> tuple[Vector, NDArray[np.bool_], tuple[Vector, Vector]]:
    """Lay a grid over the family's context plane: its contexts in bounds, where they are in it, and its axes."""
    space = family.context_space
    ix, iy = (space.index(name) for name in family.plane)
    x, y = (np.linspace(space.low[i], space.high[i], n) for i in (ix, iy))
    contexts = np.tile(space.default, (n, n, 1))  # (ny, nx, d)
    contexts[:, :, ix], contexts[:, :, iy] = np.meshgrid(x, y)
    mask = space.in_bounds(contexts.reshape(n * n, len(space))).reshape(n, n)
    return contexts[mask], mask, (x, y)


def _lines(family: Family, n: int) -> dict[str, Vector]:
    """Vary one relevant feature at a time over its bounds, the others at their default: contexts in bounds, by name."""
    space = family.context_space
    lines = {}
    for i, feature in enumerate(space.relevant.features if n else ()):
        if feature.is_choice:
            values = np.array([low for low, _ in feature.bounds])
        else:
            values = np.linspace(space.low[i], space.high[i], n)
        contexts = np.tile(space.default, (len(values), 1))
        contexts[:, i] = values
        lines[feature.name] = contexts[space.in_bounds(contexts)]
    return lines


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn arrays into lists, NaN into ``None``."""
    return {
        name: np.where(np.isnan(value), None, value).tolist() if isinstance(value, np.ndarray) else value  # pyright: ignore
        for name, value in values.items()
    }


def _array(value: ArrayLike) -> Vector:
    return np.array(value, dtype=np.float64)


def _arrays(values: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    return {name: _array(value) for name, value in values.items()}
