"""The simulator: many environments of one family, stepped together as rows of tensors.

What it does is the same for every client; :mod:`hyperrl.simulation.vec_env` offers it to Stable-Baselines3 and
:mod:`hyperrl.simulation.vector_env` to Gymnasium.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hyperrl.contexts import ContextBox, ContextSpace, Vector
from hyperrl.physics.base import Physics
from hyperrl.utils.devices import find_device

Observation = dict[str, np.ndarray]


class Ended(NamedTuple):
    """The ``r`` episodes that one step ended."""

    rows: NDArray[np.int64]
    """Indices of their environments, shape (r,)."""
    observation: Observation
    """The last observations, with the contexts they belong to: (r, o) and (r, d)."""
    returns: Vector
    """Undiscounted returns, shape (r,)."""
    lengths: NDArray[np.int64]
    """Numbers of steps, shape (r,)."""


class Step(NamedTuple):
    """What one step of ``n`` environments gave."""

    observation: Observation
    """``observation`` (n, o) and ``context`` (n, d), float32: of the new episode where one ended."""
    reward: Vector
    """Shape (n,)."""
    terminated: NDArray[np.bool_]
    """Shape (n,)."""
    truncated: NDArray[np.bool_]
    """Shape (n,): the time limit is reached, whether terminated or not."""
    ended: Ended | None
    """The episodes that ended, if any did."""


class Simulator:
    """``n`` environments of one family, each with its own context; an episode that ends is followed by the next.

    The random numbers of environment ``i`` depend on nothing but its seed and how many episodes it has begun since.

    :param physics: the dynamics.
    :param context_space: the features.
    :param n: how many environments.
    :param max_episode_steps: the time limit, ``None`` for none.
    :param contexts: shape ``(m, d)``: environment ``i`` starts with context ``i % m`` and goes on in steps of ``n``;
        ``None`` draws one from the training range for each episode.
    :param device: where the tensors are: ``"cpu"``, ``"cuda"``, ``"auto"`` for cuda where there is one.
    :raises ValueError: for contexts out of bounds, a device that is not there, and where the physics needs a feature
        that there is not.
    """

    def __init__(
        self,
        physics: Physics,
        context_space: ContextSpace,
        n: int,
        max_episode_steps: int | None,
        contexts: ArrayLike | None = None,
        device: str = "cpu",
    ) -> None:
        if n < 1:
            raise ValueError(f"expected at least one environment, got {n}")
        check_features(physics, context_space)
        self.physics = physics
        self.context_space = context_space
        self.n = n
        self.max_episode_steps = max_episode_steps
        self.device = find_device(device)
        box = ContextBox(context_space)
        self.observation_space = spaces.Dict(observation=physics.observation_space, context=box)
        self.action_space = physics.action_space
        self.contexts: Vector = np.tile(context_space.default, (n, 1))
        """The contexts of the episodes under way, shape ``(n, d)``."""
        self._fixed = None if contexts is None else context_space.matrix(contexts)
        self._keys = np.random.default_rng().integers(2**64, size=n, dtype=np.uint64)
        self._begun = np.zeros(n, dtype=np.int64)
        self._drawn_from = np.full(n, -_AHEAD, dtype=np.int64)  # the first episode of those drawn ahead
        self._drawn = np.empty((n, _AHEAD, len(context_space) + physics.uniforms))
        self._elapsed = np.zeros(n, dtype=np.int64)
        self._returns = np.zeros(n)
        self._observed_contexts = self.contexts.astype(np.float32)
        self._columns = torch.zeros(len(context_space.relevant), n, dtype=torch.float64, device=self.device)
        self._c = self._by_name(self._columns)
        self.state: Tensor | None = None
        """The states of the physics, shape ``(n, s)``; ``None`` before the first :meth:`reset`."""

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Seed each environment and count its episodes from 0 again; ``None`` leaves it as it is; shape ``(n,)``."""
        rows = [i for i, seed in enumerate(seeds) if seed is not None]
        self._keys[rows] = _splitmix64(np.array([seed % 2**64 for seed in seeds if seed is not None], dtype=np.uint64))
        self._begun[rows] = 0
        self._drawn_from[rows] = -_AHEAD

    @torch.inference_mode()
    def reset(self, contexts: Sequence[Mapping[str, float] | ArrayLike | None] | None = None) -> Observation:
        """Begin an episode in every environment and return the first observations.

        :param contexts: the context of each environment's episode, shape ``(n,)``; ``None`` for its next.
        :raises ValueError: for a context out of bounds, before anything has changed.
        """
        given = {i: self.context_space.vector(c) for i, c in enumerate(contexts or ()) if c is not None}
        self.state = self._begin(np.arange(self.n), given)
        return self._observe(self.state, self._observed_contexts)

    @torch.inference_mode()  # a fifth faster than recording what gradients would need
    def step(self, actions: np.ndarray) -> Step:
        """Take one step in every environment.

        :param actions: shape ``(n,)`` where the action space is discrete, else ``(n, a)``.
        :raises ValueError: for an action that is NaN or of a wrong shape or choice, and for a state that diverges,
            naming the environment and its context.
        """
        if self.state is None:
            raise RuntimeError("reset() must be called before step()")
        action = self._action(actions)
        state, reward, terminated = self.physics.step(self.state, action, self._c)
        if not math.isfinite(state.sum().item()):  # the sum is: finite only if each is, and one pass over them
            self._raise_not_finite(self.state, action, state)
        self.state = state
        rewards = reward.double().cpu().numpy()
        terminations = terminated.cpu().numpy()
        self._returns += rewards
        self._elapsed += 1
        limit = math.inf if self.max_episode_steps is None else self.max_episode_steps
        truncations = self._elapsed >= limit
        rows = (terminations | truncations).nonzero()[0]
        ended = None
        if len(rows):
            index = torch.from_numpy(rows).to(self.device)
            last = self._observe(state[index], self._observed_contexts[rows])
            ended = Ended(rows, last, self._returns[rows], self._elapsed[rows])
            state[index] = self._begin(rows)
        observation = self._observe(state, self._observed_contexts)
        return Step(observation, rewards, terminations, truncations, ended)

    def _begin(self, rows: NDArray[np.int64], given: Mapping[int, Vector] | None = None) -> Tensor:
        """Begin the next episode of ``r`` environments and return their states, shape ``(r, s)``."""
        d, k = len(self.context_space), len(self.context_space.relevant)
        ahead = self._begun[rows] - self._drawn_from[rows]
        if ahead.max() >= _AHEAD:
            self._draw()
            ahead[:] = 0
        drawn = self._drawn[rows, ahead]  # (r, d + u)
        if self._fixed is None:
            contexts = drawn[:, :d]
        else:
            contexts = self._fixed[(rows + self._begun[rows] * self.n) % len(self._fixed)]
        for i, context in (given or {}).items():
            contexts[i] = context
        self._begun[rows] += 1
        self._elapsed[rows] = 0
        self._returns[rows] = 0.0
        self.contexts[rows] = contexts
        self._observed_contexts[rows] = contexts
        columns = torch.from_numpy(contexts[:, :k].T).to(self.device)  # (k, r)
        self._columns[:, torch.from_numpy(rows).to(self.device)] = columns
        start = torch.from_numpy(drawn[:, d:]).to(self.device)
        return self.physics.initial(start, self._by_name(columns))

    def _by_name(self, columns: Tensor) -> dict[str, Tensor]:
        """Return the features that have an effect as views of the rows of ``columns``, shape ``(k, n)``."""
        return dict(zip(self.context_space.relevant.names, columns, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._c = self._by_name(self._columns)  # a copy's views would be tensors of their own

    def _draw(self) -> None:
        """Draw contexts and starts of every environment's next episodes: all at once is far cheaper than as they end.

        A counter-based generator, so that no row has a state that another row, or how many there are, could move:
        number ``j`` of episode ``e`` is number ``2**16 * e + j`` of the environment's SplitMix64 sequence (Steele et
        al. 2014), which starts at a hash of its seed.
        """
        d, k, u = len(self.context_space), len(self.context_space.relevant), self.physics.uniforms
        episodes = self._begun[:, None, None] + np.arange(_AHEAD)[:, None]  # (n, _AHEAD, 1)
        counter = ((episodes << 16) + np.arange(1, d + u + 1)).astype(np.uint64)  # (n, _AHEAD, d + u)
        bits = _splitmix64(self._keys[:, None, None] + counter * _GOLDEN)
        uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
        # Irrelevant features take the last numbers, so that all else is as without them.
        relevant, start, irrelevant = np.split(uniform, [k, k + u], axis=2)
        contexts = self.context_space.from_uniform(np.concatenate([relevant, irrelevant], axis=2).reshape(-1, d))
        self._drawn = np.concatenate([contexts.reshape(self.n, _AHEAD, d), start], axis=2)
        self._drawn_from = self._begun.copy()

    def _observe(self, state: Tensor, contexts: NDArray[np.float32]) -> Observation:
        observation = self.physics.observe(state).to(torch.float32, copy=True)
        return {"observation": observation.cpu().numpy(), "context": contexts.copy()}

    def _action(self, actions: Any) -> Tensor:
        """Check actions and move them to the device."""
        actions = np.asarray(actions)
        shape = (self.n, *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"expected actions of shape {shape}, got shape {actions.shape}")
        if isinstance(self.action_space, spaces.Box):
            return torch.as_tensor(actions, dtype=torch.float64, device=self.device)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"expected whole numbers for actions in {self.action_space}, got {actions.dtype}")
        wrong = (actions < 0) | (actions >= self.action_space.n)
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(f"environment {i}: expected an action in {self.action_space}, got {actions[i]}")
        return torch.as_tensor(actions, dtype=torch.int64, device=self.device)

    def _raise_not_finite(self, before: Tensor, action: Tensor, after: Tensor) -> None:
        i = int(after.abs().amax(dim=1).argmax())  # NaN counts as the largest
        raise ValueError(
            f"environment {i}: the state is no longer finite: action {action[i].tolist()} took it from "
            f"{before[i].tolist()} to {after[i].tolist()} in the context {self.context_space.as_dict(self.contexts[i])}"
        )


def check_features(physics: Physics, context_space: ContextSpace) -> None:
    """Refuse a context space without the features that the physics needs."""
    missing = [name for name in physics.features if name not in context_space.names]
    if missing:
        raise ValueError(
            f"{type(physics).__name__} needs the features {list(physics.features)}: {missing} are not among "
            f"{list(context_space.names)}"
        )


_AHEAD = 16
"""How many episodes are drawn at once for each environment."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64 bits to 64 bits, the finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
