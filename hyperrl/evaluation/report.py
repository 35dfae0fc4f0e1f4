"""The record of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.contexts import Vector
from hyperrl.evaluation.statistics import Estimate, bootstrap_iqm
from hyperrl.rollouts.episodes import ValueAccuracy
from hyperrl.utils.files import write_text

if TYPE_CHECKING:
    pass


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
class Series:
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
    :param sensitivity: the returns along each feature with the others at their default, one context a value.
    :param perturbations: by kind of perturbation, the returns in the contexts of ``interpolation`` along its level.
    """

    family: str
    settings: dict[str, Any]
    provenance: dict[str, Any]
    splits: dict[str, Split]
    plane: Plane | None = None
    sensitivity: dict[str, Series] = field(default_factory=dict)
    perturbations: dict[str, Series] = field(default_factory=dict)

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
            "sensitivity": {name: _listed(vars(sensitivity)) for name, sensitivity in self.sensitivity.items()},
            "perturbations": {name: _listed(vars(sensitivity)) for name, sensitivity in self.perturbations.items()},
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
            sensitivity, perturbations = (
                {name: Series(**_arrays(sensitivity)) for name, sensitivity in data[key].items()}
                for key in ("sensitivity", "perturbations")
            )
            return cls(data["family"], data["settings"], data["provenance"], splits, plane, sensitivity, perturbations)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not an evaluation written by this version of hyperrl: {error!r}") from None


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
