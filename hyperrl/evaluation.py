"""Evaluation: the returns of an agent over the contexts of a family."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from hyperrl.contexts import SPLITS, Vector
from hyperrl.families import Family
from hyperrl.files import write_text
from hyperrl.statistics import Estimate, bootstrap_iqm

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Split:
    """The returns on one split.

    :param contexts: shape ``(n, d)``, physical units.
    :param returns: undiscounted return of each episode, shape ``(n, episodes)``.
    """

    contexts: Vector
    returns: Vector

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
class Report:
    """What :func:`evaluate` measured, and how.

    :param family: the name of the family.
    :param settings: contexts per split, episodes per context, seed, whether actions were deterministic.
    :param splits: the returns by split.
    :param plane: the returns over the context plane, if asked for.
    """

    family: str
    settings: dict[str, Any]
    splits: dict[str, Split]
    plane: Plane | None = None

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        data: dict[str, Any] = {
            "family": self.family,
            "settings": self.settings,
            "splits": {
                name: {"contexts": split.contexts.tolist(), "returns": split.returns.tolist()}
                for name, split in self.splits.items()
            },
        }
        if self.plane is not None:
            returns = [[None if np.isnan(value) else value for value in row] for row in self.plane.returns.tolist()]
            data["plane"] = {
                "features": self.plane.features,
                "x": self.plane.x.tolist(),
                "y": self.plane.y.tolist(),
                "returns": returns,
            }
        write_text(path, json.dumps(data, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that :meth:`save` wrote.

        :raises ValueError: where the file is no such report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            splits = {
                name: Split(np.array(split["contexts"]), np.array(split["returns"]))
                for name, split in data["splits"].items()
            }
            plane = data.get("plane")
            if plane is not None:
                x, y = plane["features"]
                returns = np.array(plane["returns"], dtype=np.float64)
                plane = Plane((x, y), np.array(plane["x"]), np.array(plane["y"]), returns)
            return cls(data["family"], data["settings"], splits, plane)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not an evaluation written by hyperrl: {error!r}") from None


def evaluate(
    model: BaseAlgorithm,
    family: Family,
    splits: Sequence[str] = SPLITS,
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    plane: int = 0,
    progress: bool = False,
) -> Report:
    """Measure a model's returns on the contexts of each split.

    Every episode is played in an environment of its own, all of them together. Two models evaluated with the same
    seed meet the same contexts and the same initial states.

    :param model: any Stable-Baselines3 model that acts on the family's observations, or on those of its base
        environment. Statistics of a ``VecNormalize`` that it was trained in are applied.
    :param family: the family.
    :param splits: see :meth:`ContextSpace.sample`.
    :param contexts: contexts per split.
    :param episodes: episodes per context.
    :param seed: seed of contexts and initial states.
    :param deterministic: take the most likely action rather than a sample.
    :param plane: points a feature of a grid over the family's context plane; 0 for no grid.
    :param progress: show a progress bar.
    :raises ValueError: for an unknown split, or a model of other observations.

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
    grid, mask, axes = _grid(family, plane) if plane else (None, None, None)

    from tqdm import tqdm

    total = len(chosen) + (grid is not None)
    with tqdm(total=total, disable=not progress, desc="evaluate", unit="split") as bar:

        def measure(points: Vector) -> Vector:
            result = episode_returns(model, family, points, episodes, seed, deterministic)
            bar.update()
            return result

        measured = {split: Split(points, measure(points)) for split, points in chosen.items()}
        pictured = None
        if grid is not None and mask is not None and axes is not None:
            returns = np.full(mask.shape, np.nan)
            returns[mask] = measure(grid).mean(axis=1)
            pictured = Plane(family.plane, *axes, returns)
    settings = dict(contexts=contexts, episodes=episodes, seed=seed, deterministic=deterministic, plane=plane)
    return Report(family.name, settings, measured, pictured)


def episode_returns(
    model: BaseAlgorithm,
    family: Family,
    contexts: ArrayLike,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
) -> Vector:
    """Return the undiscounted return of each episode in each context, shape ``(n, episodes)``.

    :param contexts: shape ``(n, d)``, physical units; see :func:`evaluate` for the other parameters.
    """
    contexts = family.context_space.matrix(contexts)
    n = len(contexts) * episodes
    vec_env = family.vec_env(n, contexts=np.repeat(contexts, episodes, axis=0), seed=seed)
    observe = _adapter(model, vec_env.observation_space)
    returns, playing, starts, state = np.zeros(n), np.ones(n, dtype=bool), np.ones(n, dtype=bool), None
    observation = vec_env.reset()
    while playing.any():
        action, state = model.predict(observe(observation), state, starts, deterministic)
        observation, rewards, starts, _ = vec_env.step(action)
        returns += rewards * playing
        playing &= ~starts
    vec_env.close()
    return returns.reshape(len(contexts), episodes)


def _adapter(model: BaseAlgorithm, space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """Say how a model's observation is made from the family's."""
    normalizer = model.get_vec_normalize_env()
    if model.observation_space == space:
        return normalizer.normalize_obs if normalizer is not None else lambda observation: observation
    if isinstance(space, spaces.Dict) and model.observation_space == space["observation"]:
        if normalizer is not None:
            return lambda observation: normalizer.normalize_obs(observation["observation"])
        return lambda observation: observation["observation"]
    raise ValueError(f"the model acts on observations of {model.observation_space}, the family gives {space}")


def _grid(family: Family, n: int) -> tuple[Vector, NDArray[np.bool_], tuple[Vector, Vector]]:
    """Lay a grid over the family's context plane: its contexts in bounds, where they are in it, and its axes."""
    space = family.context_space
    ix, iy = (space.index(name) for name in family.plane)
    x, y = (np.linspace(space.low[i], space.high[i], n) for i in (ix, iy))
    contexts = np.tile(space.default, (n, n, 1))  # (ny, nx, d)
    contexts[:, :, ix], contexts[:, :, iy] = np.meshgrid(x, y)
    mask = space.in_bounds(contexts.reshape(n * n, -1)).reshape(n, n)
    return contexts[mask], mask, (x, y)
