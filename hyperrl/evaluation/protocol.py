"""Evaluation: the returns of an agent over the contexts of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperrl.contexts import SPLITS, Vector
from hyperrl.evaluation.perturbations import perturb
from hyperrl.evaluation.switches import after_switch, count_intervals
from hyperrl.families.family import Family
from hyperrl.inference import InferringAgent
from hyperrl.rollouts.agent import Predictor
from hyperrl.rollouts.episodes import play, time_limit
from hyperrl.utils.provenance import describe_model, versions

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
from hyperrl.evaluation.report import Plane, Report, Series, Settings, Split


def evaluate(
    model: BaseAlgorithm | Predictor,
    family: Family,
    splits: Sequence[str] = SPLITS,
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    plane: int = 0,
    sensitivity: int = 0,
    perturbations: Mapping[str, Sequence[float]] | None = None,
    progress: bool = False,
    switch: int = 0,
) -> Report:
    """Measure a model's returns on the contexts of each split.

    Every episode has its own environment; all episodes of a split are played together. Two models evaluated with the
    same seed meet the same contexts and initial states.

    :param model: any Stable-Baselines3 model, or any object with ``predict``; see :class:`hyperrl.rollouts.Agent`.
    :param family: the family.
    :param splits: see :meth:`ContextSpace.sample`.
    :param contexts: contexts per split.
    :param episodes: episodes per context.
    :param seed: seed of contexts and initial states.
    :param deterministic: take the most likely action rather than a sample.
    :param plane: points a feature of a grid over the family's context plane; 0 for no grid.
    :param sensitivity: values of each feature, over its bounds, to play with the others at their default; 0 for none.
    :param perturbations: kind = levels at which to play the contexts of ``interpolation`` again, beside level 0; see
        :data:`hyperrl.evaluation.perturbations.PERTURBATIONS`.
    :param progress: show a progress bar.
    :param switch: play each split again with a context that changes after so many steps, each time, and measure the
        rewards of the steps that follow; see :func:`hyperrl.evaluation.after_switch`. 0 for not.
    :raises ValueError: for an unknown split or perturbation, a model of other observations, or a family whose episodes
        have no time limit.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("cartpole")
    >>> report = evaluate(PPO(HyperPolicy, family.vec_env(2)), family, splits=("train",), contexts=3, episodes=2)
    >>> report.splits["train"].returns.shape
    (3, 2)
    """
    if episodes < 1:
        raise ValueError(f"expected at least one episode, got episodes={episodes}")
    if switch != 0:
        count_intervals(family, switch)  # before any work
    space = family.context_space
    chosen = {split: space.sample(split, contexts, seed) for split in splits}
    grid, mask, axes = _grid(family, plane)
    lines = _lines(family, sensitivity)
    levels_of = {kind: tuple(levels) for kind, levels in (perturbations or {}).items()}
    settings = Settings(contexts, episodes, seed, deterministic, plane, sensitivity, levels_of, switch)
    between = space.sample("interpolation", contexts, seed)
    reported = {
        kind: {level: perturb(kind, level, between, episodes, space, seed) for level in dict.fromkeys((0.0, *levels))}
        for kind, levels in levels_of.items()
    }

    from tqdm import tqdm

    played_points = [*chosen.values(), *([grid] * (plane > 0)), *lines.values()]
    played_points += [between] * sum(map(len, reported.values()))
    played_points += [*chosen.values()] * (switch != 0)
    total = sum(map(len, played_points)) * episodes * time_limit(family)
    with tqdm(total=total, disable=not progress, desc="evaluate", unit="step", unit_scale=True) as bar:

        def measure(points: Vector, **kwargs: Any) -> Split:
            played = play(model, family, points, episodes, seed, deterministic, progress=bar.update, **kwargs)
            return Split(points, played.returns, played.values, space.beyond(points).max(axis=1))

        measured = {split: measure(points, values=True) for split, points in chosen.items()}
        pictured = None
        if plane > 0:
            returns = np.full(mask.shape, np.nan)
            returns[mask] = measure(grid).returns.mean(axis=1)
            pictured = Plane(family.plane, *axes, returns)
        curves = {
            name: Series(points[:, space.index(name)], measure(points).returns[:, None])
            for name, points in lines.items()
        }
        perturbed = {
            kind: Series(
                np.array(list(levels)), np.array([measure(between, reported=t).returns for t in levels.values()])
            )
            for kind, levels in reported.items()
        }
        switched = {
            split: after_switch(model, family, switch, split, contexts, episodes, seed, deterministic, bar.update)
            for split in chosen
            if switch != 0
        }
    return Report(
        family.name,
        measured,
        definition=family.digest,
        irrelevant=family.irrelevant,
        settings=settings,
        model=describe_model(model),
        versions=versions(),
        plane=pictured,
        sensitivity=curves,
        perturbations=perturbed,
        after_switch=switched,
        inference=model.learning if isinstance(model, InferringAgent) else None,
    )


def _grid(family: Family, n: int) -> tuple[Vector, NDArray[np.bool_], tuple[Vector, Vector]]:
    """Make a grid over the family's context plane: its contexts in bounds, their places in it, and its axes."""
    space = family.context_space
    ix, iy = (space.index(name) for name in family.plane)
    x, y = (np.linspace(space.low[i], space.high[i], n) for i in (ix, iy))
    contexts = np.tile(space.default, (n, n, 1))  # (ny, nx, d)
    contexts[:, :, ix], contexts[:, :, iy] = np.meshgrid(x, y)
    mask = space.in_bounds(contexts.reshape(n * n, len(space))).reshape(n, n)
    return contexts[mask], mask, (x, y)


def _lines(family: Family, n: int) -> dict[str, Vector]:
    """Vary each relevant feature over its bounds, the others at their default: contexts in bounds, by name."""
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
