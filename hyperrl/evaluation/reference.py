"""References: the returns of random actions and of a specialist in contexts of a family.

A score is a return on the scale between the two: 0 is random, 1 as good as a specialist. Specialists are trained with
one seed per context, or are the best of several, so a score may exceed 1. Only the contexts of the reference have
scores; nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.contexts import Vector
from hyperrl.families.family import Family
from hyperrl.utils.definitions import folder
from hyperrl.utils.files import refuse_existing
from hyperrl.utils.records import read, write


@dataclass(frozen=True)
class ReferenceSettings:
    """How a reference was made; the arguments of :func:`hyperrl.experiments.make_reference`, which says what they are.

    :param best: ``"specialist"`` or ``"optimum"``; an optimum has no agent, steps and seeds.
    """

    best: str
    seed: int
    splits: tuple[str, ...]
    contexts: int
    episodes: int
    agent: str | None = None
    steps: int | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Reference:
    """Random and best returns in some contexts of a family.

    :param family: name of the family.
    :param features: names of its features.
    :param definition: digest of the family's definition, :attr:`Family.digest <hyperrl.Family.digest>`.
    :param contexts: shape ``(n, d)``, physical units.
    :param random: mean return of uniformly random actions in each, shape ``(n,)``.
    :param best: mean return of the specialist in each, or the optimum, shape ``(n,)``; above ``random``.
    :param settings: how it was made.
    :param versions: of the libraries.
    """

    SCHEMA: ClassVar[str] = "reference-1"

    family: str
    features: tuple[str, ...]
    definition: str
    contexts: Vector
    random: Vector
    best: Vector
    settings: ReferenceSettings
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        n, d = len(self.contexts), len(self.features)
        shapes = self.contexts.shape, self.random.shape, self.best.shape
        if shapes != ((n, d), (n,), (n,)):
            raise ValueError(f"expected contexts, random, best of shapes (n, {d}), (n,), (n,), got {shapes}")

    def scores(self, contexts: ArrayLike, returns: ArrayLike) -> Vector:
        """Return scores, 0 for random and 1 for the best, shape ``(..., n, episodes)``; NaN without a reference.

        :param contexts: shape ``(n, d)``, further columns are ignored.
        :param returns: shape ``(..., n, episodes)``.
        """
        random, best = self.at(contexts)
        return (np.asarray(returns, dtype=np.float64) - random[:, None]) / (best - random)[:, None]

    def at(self, contexts: ArrayLike) -> tuple[Vector, Vector]:
        """Return random and best mean returns in contexts as for :meth:`scores`, each ``(n,)``; NaN where unknown."""
        known = {_key(context): i for i, context in enumerate(self.contexts)}
        rows = [known.get(_key(context)) for context in np.asarray(contexts)[:, : len(self.features)]]
        random, best = (
            np.array([np.nan if row is None else values[row] for row in rows]) for values in (self.random, self.best)
        )
        return random, best

    def save(self, path: str | Path) -> None:
        """Write a new JSON file.

        :raises ValueError: if the file exists.
        """
        refuse_existing(path, "remove it first, or give another file")
        write(self, path)

    @classmethod
    def load(cls, path: str | Path, family: Family) -> Reference:
        """Read the reference of a family.

        :raises ValueError: if the file is damaged, or has another schema, family or definition.
        """
        found = read(cls, path)
        if not _fits(found, family):
            raise ValueError(f"{path} was made for another definition of {found.family} than {family.place}")
        return found


def find_reference(family: Family, file: str | Path | None = None) -> Reference | None:
    """Load a family's reference: the file given, else that beside the family's file, else the packaged one of its name.

    :return: ``None`` where no file is given, and there is none or only one of another definition.
    :raises ValueError: where the file is no reference, or the one given is of another definition.
    """
    if file is not None:
        return Reference.load(file, family)
    for path in (reference_path(family), folder("envs") / f"{family.name}.reference.json"):
        if path is not None and path.is_file() and _fits(found := read(Reference, path), family):
            return found
    return None


def known_scores(reference: Reference | None, contexts: Vector, returns: ArrayLike) -> Vector:
    """Return the scores in those ``k`` of the contexts that have a reference, shape ``(..., k, episodes)``.

    :param reference: ``None`` for no reference: then ``k`` is 0.
    :param contexts: shape ``(n, d)``.
    :param returns: shape ``(..., n, episodes)``.
    """
    if reference is None:
        return np.asarray(returns, dtype=np.float64)[..., :0, :]
    scores = reference.scores(contexts, returns)
    return scores[..., np.isfinite(scores).all(axis=(*range(scores.ndim - 2), -1)), :]


def reference_path(family: Family) -> Path | None:
    """Return where the reference of a family belongs: beside its file; one made in Python has none."""
    return family.source.with_suffix(".reference.json") if isinstance(family.source, Path) else None


def _fits(reference: Reference, family: Family) -> bool:
    return reference.definition == family.digest


def _key(context: Vector) -> tuple[str, ...]:
    """Return what tells contexts apart: twelve digits, so that a last bit that another machine rounds does not."""
    return tuple(f"{value:.11e}" for value in context)
