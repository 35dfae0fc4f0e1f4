"""The last transitions of each of many environments, as rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hyperrl.utils.rows import encode

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class History:
    """The last K transitions of the running episode of each of ``n`` environments.

    :param transitions: shape ``(n, K, m)``, in no particular order.
    :param counts: how many transitions each episode has had, shape ``(n,)``: the first ``min(count, K)`` rows are set.
    """

    transitions: Rows
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, n: int, length: int, m: int) -> History:
        """Return histories of episodes that have just begun."""
        return cls(np.zeros((n, length, m), dtype=np.float32), np.zeros(n, dtype=np.int64))

    @property
    def present(self) -> Rows:
        """1 where there is a transition, 0 where there is none, shape ``(n, K)``."""
        return (np.arange(self.transitions.shape[1]) < self.counts[:, None]).astype(np.float32)

    def with_transitions(self, rows: Rows) -> History:
        """Return the histories with one transition more each, shape ``(n, m)``; the oldest of K goes."""
        transitions = self.transitions.copy()
        transitions[np.arange(len(rows)), self.counts % transitions.shape[1]] = rows
        return History(transitions, self.counts + 1)

    def without(self, ended: NDArray[np.bool_]) -> History:
        """Return the histories, empty where an episode ended, shape ``(n,)``."""
        return History(self.transitions, np.where(ended, 0, self.counts))


class Rower:
    """Lays observations and actions out as rows of numbers.

    :param observation_space: a flat ``Box``, or a Dict of such; an entry ``context_key`` is left out.
    :param action_space: any that Stable-Baselines3 serves.
    :param context_key: the entry of the context.
    :raises ValueError: for other observations, such as images.
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], context_key: str) -> None:
        self.key: Final = context_key
        self.is_dict: Final = isinstance(observation_space, spaces.Dict)
        named = dict(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else {}
        entries = named if self.is_dict else {"observation": observation_space}
        self.others: Final = {name: entry for name, entry in entries.items() if name != context_key}
        for name, entry in self.others.items():
            if not isinstance(entry, spaces.Box) or len(entry.shape) != 1:
                raise ValueError(
                    f"the encoder of transitions reads rows of numbers: expected {name!r} to be a one-dimensional Box, "
                    f"got {entry}"
                )
        if not self.others:
            raise ValueError(f"the observation has no entry besides the context {context_key!r}: nothing to predict")
        self.actions: Final = action_space
        self.observation_size: Final = sum(int(np.prod(entry.shape or ())) for entry in self.others.values())
        self.action_size: Final = spaces.flatdim(action_space)

    def named(self, observation: Any) -> dict[str, Any]:
        """Return the entries besides the context, by name."""
        if not isinstance(observation, Mapping):
            return {next(iter(self.others)): observation}
        return {name: observation[name] for name in self.others}

    def observation(self, observation: Any) -> Rows:
        """Lay out ``n`` observations, ``(n, o)``; the context is not looked at."""
        parts = [np.asarray(part, dtype=np.float32) for part in self.named(observation).values()]
        return np.concatenate(parts, axis=1)

    def action(self, actions: NDArray[Any]) -> Rows:
        """Lay out ``n`` actions, ``(n, a)``; discrete ones become one-hot."""
        return encode(self.actions, actions)
