"""Perturbations: errors of the context that is reported to an agent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.utils.errors import nearest

Perturbation = Callable[[Vector, float, ContextSpace, np.random.Generator], Vector]


def noise(contexts: Vector, level: float, space: ContextSpace, rng: np.random.Generator) -> Vector:
    """Add Gaussian noise, drawn once an episode; the level is its standard deviation in half training ranges."""
    return contexts + level * space.center_and_half_width[1] * rng.standard_normal(contexts.shape)


def offset(contexts: Vector, level: float, space: ContextSpace, rng: np.random.Generator) -> Vector:
    """Add the same offset to every feature, as an uncalibrated sensor does; the level is in half training ranges."""
    return contexts + level * space.center_and_half_width[1]


def other(contexts: Vector, level: float, space: ContextSpace, rng: np.random.Generator) -> Vector:
    """Report another one of the contexts; the level is the probability of this in an episode."""
    wrong = rng.random(contexts.shape[:2]) < level  # (n, episodes)
    return np.where(wrong[:, :, None], np.roll(contexts, 1, axis=0), contexts)


PERTURBATIONS: dict[str, Perturbation] = {"noise": noise, "offset": offset, "other": other}


def perturb(kind: str, level: float, contexts: Vector, episodes: int, space: ContextSpace, seed: int = 0) -> Vector:
    """Return the reported context of each episode, shape ``(n, episodes, d)``; at level 0 it is the true one.

    :param kind: one of :data:`PERTURBATIONS`.
    :param level: size of the error, not negative, in the unit of the kind.
    :param contexts: the true contexts, shape ``(n, d)``.
    :raises ValueError: for an unknown kind, or an invalid level.

    >>> from hyperrl import load_family
    >>> space = load_family("double_integrator_friction").context_space
    >>> perturb("offset", 0.2, space.default[None], 1, space)
    array([[[1.1, 1.1]]])
    """
    if kind not in PERTURBATIONS:
        raise ValueError(
            f"unknown perturbation {kind!r}: known are {list(PERTURBATIONS)}.{nearest(kind, PERTURBATIONS)}"
        )
    if not np.isfinite(level) or level < 0 or (kind == "other" and level > 1):
        raise ValueError(
            f"expected a level of {kind!r} {'in [0, 1]' if kind == 'other' else 'of 0 or more'}, got {level}"
        )
    if kind == "other" and len(contexts) < 2:
        raise ValueError("naming another context needs at least two of them, got one")
    repeated = np.repeat(contexts[:, None], episodes, axis=1)  # (n, episodes, d)
    return PERTURBATIONS[kind](repeated, level, space, np.random.default_rng(seed))
