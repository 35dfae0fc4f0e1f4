"""Perturbations: what an agent is given when the context of its environment is measured wrongly."""

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
    """Add the same to every feature, as an uncalibrated sensor does; the level counts half training ranges."""
    return contexts + level * space.center_and_half_width[1]


def other(contexts: Vector, level: float, space: ContextSpace, rng: np.random.Generator) -> Vector:
    """Name another one of the contexts; the level is the probability that an episode's is the wrong one."""
    wrong = rng.random(contexts.shape[:2]) < level  # (n, episodes)
    return np.where(wrong[:, :, None], np.roll(contexts, 1, axis=0), contexts)


PERTURBATIONS: dict[str, Perturbation] = {"noise": noise, "offset": offset, "other": other}


def perturb(kind: str, level: float, contexts: Vector, episodes: int, space: ContextSpace, seed: int = 0) -> Vector:
    """Return the context that the agent is given in each episode, shape ``(n, episodes, d)``; level 0 is the truth.

    :param kind: one of :data:`PERTURBATIONS`.
    :param level: how wrong, not negative; each kind says in what.
    :param contexts: the true contexts, shape ``(n, d)``.
    :raises ValueError: for an unknown kind, or a level that makes no sense.

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
