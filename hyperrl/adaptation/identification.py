"""System identification: the context that explains the transitions seen, fitted through a model of the dynamics."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hyperrl.contexts import ContextSpace, Feature, Interval, Vector, latin_hypercube
from hyperrl.families.family import Family
from hyperrl.physics.base import Physics
from hyperrl.simulation.simulator import check_features

STARTS = 16  # starting points of the fit
SEARCHED = 128  # transitions that the fits from all of them look at
REFINED = 2000  # transitions that the best of them look at
SHARP = 0.1  # a feature is identified where its standard deviation is below this much of the prior's ...
FLAT = 10.0  # ... and a direction of features that data make less than this many times sharper than the prior ...
SHARE = 0.03  # ... leads along it by less than this much

Predict = Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]
"""Observations ``(n, o)``, actions and contexts ``(n, d)`` to each observed number after the step, then the reward."""


class Transitions(NamedTuple):
    """``n`` steps of one environment, as it observed them."""

    observation: NDArray[np.floating[Any]]
    """Before the step, shape ``(n, o)``."""
    action: np.ndarray
    """As the environment takes them, shape ``(n,)`` or ``(n, a)``."""
    reward: Vector
    """Shape ``(n,)``."""
    following: NDArray[np.floating[Any]]
    """After the step, before any reset, shape ``(n, o)``."""

    @classmethod
    def from_arrays(
        cls,
        observation: ArrayLike,
        action: ArrayLike,
        following: ArrayLike | None = None,
        reward: ArrayLike | None = None,
    ) -> Transitions:
        """Make transitions of what was logged, in a simulation or on a rig.

        :param observation: before each of ``n`` steps, shape ``(n, o)``; or those of one episode, one after the other
            with the last, shape ``(n + 1, o)``, without ``following``.
        :param action: shape ``(n,)`` or ``(n, a)``.
        :param following: the observation after each step, shape ``(n, o)``.
        :param reward: shape ``(n,)``; where there is none, observations alone tell the context.
        :raises ValueError: for other shapes, and for numbers that are not finite.

        >>> Transitions.from_arrays([[0.0], [0.1], [0.3]], [[1.0], [2.0]]).following
        array([[0.1],
               [0.3]])
        """
        observed, actions = _numbers("observation", observation), _numbers("action", action)
        n = len(actions)
        if following is None:
            if observed.ndim != 2 or len(observed) != n + 1:
                raise ValueError(
                    f"expected 'observation' of shape ({n + 1}, o) for {n} actions of one episode, or "
                    f"'following' beside it, got shape {observed.shape}"
                )
            observed, after = observed[:-1], observed[1:]
        else:
            after = _numbers("following", following)
        rewards = np.zeros(n) if reward is None else _numbers("reward", reward)
        if observed.ndim != 2 or len(observed) != n or after.shape != observed.shape or rewards.shape != (n,):
            raise ValueError(
                f"expected 'observation' and 'following' of shape ({n}, o) and 'reward' of ({n},) for {n} actions, got "
                f"{observed.shape}, {after.shape} and {rewards.shape}"
            )
        return cls(observed, actions, rewards, after)

    @classmethod
    def from_npz(cls, path: str | Path) -> Transitions:
        """Read a log that ``numpy.savez`` wrote, with arrays called as in :meth:`from_arrays`. Nothing is unpickled.

        :raises ValueError: where the file is no such log, with its name.
        """
        names = ("observation", "action", "following", "reward")
        try:
            with Path(path).open("rb") as file:
                log = np.load(file, allow_pickle=False)
                if not isinstance(log, np.lib.npyio.NpzFile):
                    raise ValueError("expected an .npz file of several arrays, got one array")
                if not {"observation", "action"} <= set(log):
                    raise ValueError(f"expected arrays {list(names)}, the last two as needed, got {list(log)}")
                return cls.from_arrays(**{name: log[name] for name in names if name in log})
        except FileNotFoundError:
            raise ValueError(f"no such file: {path}") from None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: {error}") from None

    def rows(self, chosen: NDArray[Any]) -> Transitions:
        """Return some of the steps, chosen by index or by mask."""
        return Transitions(*(np.asarray(part)[chosen] for part in self))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Identified:
    """A context with its uncertainty: a Gaussian approximation of the posterior.

    :param names: the features.
    :param context: the most probable context, shape ``(d,)``, physical units.
    :param std: standard deviation of each feature, shape ``(d,)``.
    :param identified: whether the transitions say what the feature is, shape ``(d,)``. Where they do not, because it
        has no effect on them, or only one together with other features, it stays as near to the prior as it can.
    """

    names: tuple[str, ...]
    context: Vector
    std: Vector
    identified: NDArray[np.bool_]

    @property
    def interval(self) -> Vector:
        """Both ends of the 95 % interval of each feature, shape ``(2, d)``."""
        return self.context + 1.96 * np.array([[-1.0], [1.0]]) * self.std


def identify(
    dynamics: Family | Physics | Predict,
    transitions: Transitions,
    space: ContextSpace | None = None,
    seed: int = 0,
) -> Identified:
    """Find the context under which a model of the dynamics predicts transitions best, one step ahead.

    It maximises the posterior of independent Gaussian errors of each observed number and of the reward, their size
    estimated too, and of a Gaussian prior, half as wide as the outer bounds. The prior's centre is the default context;
    where the bounds are several intervals, it is in the others the middle of their training range. The search is
    Levenberg and Marquardt's, with exact derivatives, from many points of the bounds at once, since a feature that
    changes sign, or a choice, makes for several optima. The uncertainty is Laplace's: the Gauss-Newton Hessian at each
    optimum, optima weighed by their posterior. A number that does not depend smoothly on the context, such as a reward
    that counts steps, or the end of an episode, teaches nothing.

    :param dynamics: a family with physics, physics, or a function that predicts one step of the relevant features'
        contexts.
    :param transitions: what was seen in the context to be found, of any number of episodes, by a family's environments
        or by any others that follow its equations: see :meth:`Transitions.from_arrays`.
    :param space: the features; irrelevant ones stay at their default. Those of the family by default.
    :param seed: seed of the starting points, and of the choice among more than 2000 transitions.
    :raises ValueError: where there are no transitions, or of other shapes than the physics has, for a family without
        physics or with MuJoCo's, which have no gradients, and without ``space`` where no family tells it.

    A log of a motor that may turn either way: positions and velocities before and after pushes.

    >>> from hyperrl import load_family
    >>> rng = np.random.default_rng(0)
    >>> before, push = rng.uniform(-0.5, 0.5, (50, 4)), rng.uniform(-1, 1, (50, 2))
    >>> velocity = before[:, 2:]
    >>> after = np.hstack([before[:, :2] + 0.1 * velocity, velocity + 0.1 * -push / 0.7])
    >>> log = Transitions.from_arrays(before, push, after)
    >>> identify(load_family("double_integrator"), log).context.round(3)
    array([ 0.7, -1. ])
    """
    if len(transitions.reward) == 0:
        raise ValueError("expected transitions to identify the context from, got none")
    if isinstance(dynamics, Family):
        space = dynamics.context_space if space is None else space
        dynamics = dynamics.physics()
    if space is None:
        raise ValueError("expected the features to identify: give space=..., or a family, which has one")
    if isinstance(dynamics, Physics):
        check_gradients(dynamics)
        check_features(dynamics, space)
        transitions = _fitted(transitions, dynamics)
    rng = np.random.default_rng(seed)
    k = len(space.relevant)
    predict = by_physics(dynamics, space.relevant) if isinstance(dynamics, Physics) else dynamics
    problem = _Problem(predict, space.relevant)
    starts = space.relevant.from_uniform(latin_hypercube(STARTS, k, rng), bounds=True)

    few = _rows(transitions, _subset(len(transitions.reward), SEARCHED, rng))
    change = (few.target - few.start).std(0)
    theta, cost, cell = problem.fit(few, 1e-3 * change, problem.normalized(starts), iterations=40)
    best_of_cell = [min(np.flatnonzero(cell == i), key=lambda j: float(cost[j])) for i in np.unique(cell)]
    best_of_cell.sort(key=lambda j: float(cost[j]))
    theta = theta[torch.tensor(best_of_cell)]

    many = _rows(transitions, _subset(len(transitions.reward), REFINED, rng))
    rounding = 1e-7 * many.target.abs().amax(0)  # of single precision
    sigma = change
    for _ in range(3):
        residual, _ = problem.residuals(many, theta[:1])
        sigma = torch.where(change > 0, torch.maximum(residual[0].square().mean(0).sqrt(), rounding), 0.0)
        theta, cost, _ = problem.fit(many, sigma, theta, iterations=15)
    order = cost.argsort()
    theta, cost = theta[order], cost[order]
    variance, hidden = problem.uncertainty(many, sigma, theta)  # (modes, k)
    weight = torch.softmax(-cost, 0)[:, None]
    std = (weight * (variance + (theta - theta[0]).square())).sum(0).sqrt().numpy()

    context, every, known = space.default, np.ones(len(space)), np.zeros(len(space), dtype=np.bool_)
    context[:k] = problem.physical(theta[:1])[0]
    every[:k] = std
    known[:k] = (std < SHARP) & (hidden[0].numpy() < SHARE)
    return Identified(space.names, context, every * (space.high - space.low) / 2, known)


def check_gradients(physics: Physics) -> None:
    """Refuse physics that have no gradients.

    :raises ValueError: for MuJoCo's.
    """
    if physics.device is not None:
        raise ValueError(
            f"{type(physics).__name__} has no gradients, by which a context is identified: learn a model of the "
            "dynamics, dynamics=hyperrl.adaptation.dynamics.learn_dynamics(family), on the command line "
            "--learn-dynamics"
        )


def by_physics(physics: Physics, space: ContextSpace) -> Predict:
    """Predict by the physics of a family, in contexts of these features."""

    def predict(observation: Tensor, action: Tensor, context: Tensor) -> Sequence[Tensor]:
        c = dict(zip(space.names, context.unbind(1), strict=True))
        following, reward, _ = physics.step(physics.state_of(observation), action, c)
        return *physics.observe(following).unbind(1), reward

    return predict


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """Read an array of finite numbers, one row a step."""
    array = np.asarray(values)
    if array.dtype.kind not in "iufb" or array.ndim == 0:
        raise ValueError(f"expected numbers, one row a step, as {name!r}, got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))[0])
        raise ValueError(f"{name!r} has a number that is not finite, in row {row}: leave such steps out")
    return array


def _fitted(transitions: Transitions, physics: Physics) -> Transitions:
    """Return transitions as physics takes them.

    :raises ValueError: for observations and actions of other sizes than its own.
    """
    observation, action = physics.observation_space, physics.action_space
    if np.shape(transitions.observation)[1:] != observation.shape:
        raise ValueError(
            f"expected observations {observation}, as the physics has, got rows of shape "
            f"{np.shape(transitions.observation)[1:]}"
        )
    actions = np.asarray(transitions.action)
    if isinstance(action, spaces.Discrete):
        chosen = actions.reshape(len(actions), -1)
        if chosen.shape[1] != 1 or not np.isin(chosen, np.arange(action.n) + action.start).all():
            raise ValueError(f"expected actions of {action}, as the physics has, got {np.unique(chosen)[:5]}")
        return transitions._replace(action=chosen[:, 0].astype(np.int64))
    size = int(np.prod(action.shape or ()))
    if actions.size != len(actions) * size:
        raise ValueError(f"expected actions of {action}, as the physics has, got rows of shape {actions.shape[1:]}")
    return transitions._replace(action=actions.reshape(len(actions), *(action.shape or ())).astype(np.float64))


class _Rows(NamedTuple):
    """Transitions as tensors; ``start`` and ``target`` hold what is predicted, each ``(n, o + 1)``."""

    observation: Tensor
    action: Tensor
    start: Tensor
    target: Tensor


def _rows(transitions: Transitions, chosen: NDArray[np.int64]) -> _Rows:
    observation, action, reward, following = (torch.as_tensor(part) for part in transitions.rows(chosen))
    target = torch.cat([following.double(), reward.double()[:, None]], dim=1)
    start = torch.cat([observation.double(), torch.zeros(len(chosen), 1, dtype=torch.float64)], dim=1)
    return _Rows(observation.double(), action.double() if action.is_floating_point() else action.long(), start, target)


class _Problem:
    """The fit in normalised features θ: 0 is the default context, 1 half of the bounds' width away from it."""

    def __init__(self, predict: Predict, space: ContextSpace) -> None:
        self.predict = predict
        self.space = space
        self.centre = torch.as_tensor(space.default)
        self.width = torch.as_tensor((space.high - space.low) / 2)

    def normalized(self, contexts: ArrayLike) -> Tensor:
        """Return contexts ``(m, d)`` as θ."""
        return (torch.as_tensor(np.asarray(contexts, dtype=np.float64)) - self.centre) / self.width

    def physical(self, theta: Tensor) -> Vector:
        """Return θ ``(m, d)`` as contexts in bounds, which rounding might have left."""
        low, high = (self.centre + self.width * end for end in self._within(theta)[:2])
        return torch.clamp(self.centre + self.width * theta, low, high).numpy()

    def residuals(self, rows: _Rows, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is predicted less what was seen ``(m, n, o + 1)``, and its derivatives ``(m, n, o + 1, d)``.

        Where a number does not depend on θ in a way that has derivatives, both are zero.
        """
        (m, d), n = theta.shape, len(rows.target)
        leaf = theta.repeat_interleave(n, dim=0).requires_grad_()  # (m * n, d)
        action = rows.action.repeat(m, *[1] * (rows.action.ndim - 1))
        outputs = self.predict(rows.observation.repeat(m, 1), action, self.centre + self.width * leaf)
        residual = torch.zeros(m * n, len(outputs), dtype=torch.float64)
        jacobian = torch.zeros(m * n, len(outputs), d, dtype=torch.float64)
        for i, output in enumerate(outputs):
            if output.requires_grad:
                (jacobian[:, i],) = torch.autograd.grad(output.sum(), leaf, retain_graph=True)
                residual[:, i] = output.detach() - rows.target[:, i].repeat(m)
        return residual.reshape(m, n, -1), jacobian.reshape(m, n, -1, d)

    def fit(self, rows: _Rows, sigma: Tensor, theta: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
        """Minimise the negative log posterior from ``m`` points, each within the intervals that it starts in.

        :param sigma: standard deviations of the errors, shape ``(o + 1,)``; 0 leaves a number out.
        :return: θ ``(m, d)``, the costs ``(m,)``, and which combination of intervals each is in ``(m,)``.
        """
        low, high, prior, cell = self._within(theta)
        theta = theta.clamp(low, high)
        a, b = self._system(rows, sigma, theta, prior)
        cost = b.square().sum(1) / 2
        damping = torch.full_like(cost, 1e-2)
        for _ in range(iterations):
            gradient = (a.transpose(1, 2) @ b[..., None])[..., 0]  # (m, d)
            free = ~(((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0)))
            columns = a * free[:, None]
            scale = columns.square().sum(1).sqrt().clamp(min=1.0)  # (m, d)
            damped = torch.cat([columns, torch.diag_embed(damping.sqrt()[:, None] * scale)], dim=1)
            q, r = torch.linalg.qr(damped)
            right = q.transpose(1, 2) @ torch.cat([-b, torch.zeros_like(theta)], dim=1)[..., None]
            step = torch.linalg.solve_triangular(r, right, upper=True)[..., 0]
            candidate = (theta + step).clamp(low, high)
            new_a, new_b = self._system(rows, sigma, candidate, prior)
            new_cost = new_b.square().sum(1) / 2
            better = new_cost < cost
            if not (new_cost < (1 - 1e-6) * cost).any() and damping.min() > 1:
                break
            theta = torch.where(better[:, None], candidate, theta)
            a, b = torch.where(better[:, None, None], new_a, a), torch.where(better[:, None], new_b, b)
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, damping / 5, damping * 4).clamp(1e-12, 1e12)
        return theta, cost, cell

    def uncertainty(self, rows: _Rows, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return variances, and how much of each feature lies along directions of which data say nothing, ``(m, d)``.

        Both are of the Gauss-Newton Hessian, without features that are a choice.
        """
        low, high, prior, _ = self._within(theta)
        a, _ = self._system(rows, sigma, theta, prior)
        d = theta.shape[1]
        choice = torch.diag_embed((high == low).to(a.dtype) * 1e12)  # as if known exactly
        data = torch.cat([a[:, :-d] * (high > low)[:, None], choice], dim=1)
        _, r = torch.linalg.qr(data)
        _, singular, directions = torch.linalg.svd(r)  # (m, d), and (m, d, d) by rows
        curvature = singular.square()[:, :, None]
        variance = (directions.square() / (1 + curvature)).sum(1)
        hidden = (directions.square() * (curvature < FLAT)).sum(1).sqrt()
        return variance, hidden

    def _system(self, rows: _Rows, sigma: Tensor, theta: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least squares at θ, the prior's last: derivatives ``(m, N, d)`` and residuals ``(m, N)``."""
        weight = torch.where(sigma > 0, 1 / sigma, 0.0)
        residual, jacobian = self.residuals(rows, theta)
        eye = torch.eye(theta.shape[1], dtype=theta.dtype).expand(len(theta), -1, -1)
        a = torch.cat([(jacobian * weight[:, None]).flatten(1, 2), eye], dim=1)
        b = torch.cat([(residual * weight).flatten(1), theta - prior], dim=1)
        return a, b

    def _within(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both ends of the interval that each feature is in, or next to, and the prior's centre in it.

        They are ``(m, d)``; last comes a number for the combination of intervals, ``(m,)``.
        """
        lows, highs, priors, cell = [], [], [], torch.zeros(len(theta), dtype=torch.int64)
        for i, feature in enumerate(self.space.features):
            centres = torch.tensor([_centre(feature, interval) for interval in feature.bounds], dtype=torch.float64)
            ends = torch.tensor(feature.bounds, dtype=torch.float64)  # (intervals, 2)
            low, high, centre = ((x - self.centre[i]) / self.width[i] for x in (ends[:, 0], ends[:, 1], centres))
            nearest = torch.maximum(low - theta[:, i, None], theta[:, i, None] - high).argmin(1)
            for chosen, values in ((lows, low), (highs, high), (priors, centre)):
                chosen.append(values[nearest])
            cell = cell * len(ends) + nearest
        low, high, prior = (torch.stack(chosen, dim=1) for chosen in (lows, highs, priors))
        return low, high, prior, cell


def _centre(feature: Feature, interval: Interval) -> float:
    """Return the prior's centre in one interval of a feature's bounds."""
    low, high = interval
    if low <= feature.default <= high:
        return feature.default
    inside = [end for train in feature.train if low <= train[0] <= high for end in train]
    return (min(inside, default=low) + max(inside, default=high)) / 2


def _subset(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
