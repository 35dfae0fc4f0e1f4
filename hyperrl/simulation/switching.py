"""When environments change to another context within an episode, and to which: tensors, one row per environment."""

from __future__ import annotations

import torch
from torch import Tensor

from hyperrl.contexts import ContextSpace
from hyperrl.simulation.draws import signed, splitmix64, training_contexts, uniform


class Switching:
    """The switches of ``n`` environments to other contexts.

    The random numbers of a switch depend on the environment's key, the episode and the number of the switch alone. They
    are drawn apart from those with which episodes begin: without switches, episodes begin the same.

    :param steps: the least and the greatest number of steps between two switches.
    :param context_space: the features, whose training range the contexts are drawn from.
    :param contexts: contexts to draw from instead, each as often as another, shape ``(m, d)``.

    >>> from hyperrl import load_family
    >>> switching = Switching((2, 2), load_family("pendulum").context_space)
    >>> keys, episodes = torch.tensor([1, 2]), torch.tensor([0, 0])
    >>> switching.begin(keys, episodes)
    >>> switched, contexts = switching.draw(keys, episodes, lengths=torch.tensor([1, 2]))
    >>> switched, contexts.shape
    (tensor([False,  True]), torch.Size([2, 4]))
    """

    def __init__(self, steps: tuple[int, int], context_space: ContextSpace, contexts: Tensor | None = None) -> None:
        self.steps = steps
        self.context_space = context_space
        self.contexts = contexts
        self.count = self.due = torch.empty(0, dtype=torch.int64)
        """How many switches each episode has had, and the length that it has at its next, both int64 ``(n,)``."""

    def begin(self, keys: Tensor, episodes: Tensor, begun: Tensor | None = None) -> None:
        """Begin an episode in every environment.

        :param keys: where each environment's sequence of random numbers starts, int64 of shape ``(n,)``.
        :param episodes: the numbers of the episodes, int64 of shape ``(n,)``.
        :param begun: where one begins, bool of shape ``(n,)``, if not everywhere.
        """
        count = torch.zeros_like(episodes)
        due = self._between(_numbers(keys, episodes, count, 1)[:, 0])
        if begun is not None:
            count, due = torch.where(begun, count, self.count), torch.where(begun, due, self.due)
        self.count, self.due = count, due

    def draw(self, keys: Tensor, episodes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the context switches, bool ``(n,)``, and to which, ``(n, d)`` float64, of use only there.

        :param lengths: how many steps each episode has had, int64 of shape ``(n,)``.
        """
        switched = lengths >= self.due
        self.count = self.count + switched
        length, numbers = _numbers(keys, episodes, self.count, 1 + len(self.context_space)).tensor_split([1], dim=1)
        self.due = torch.where(switched, self.due + self._between(length[:, 0]), self.due)
        if self.contexts is None:
            return switched, training_contexts(self.context_space, numbers)
        return switched, self.contexts[(numbers[:, 0] * len(self.contexts)).long()]

    def _between(self, numbers: Tensor) -> Tensor:
        """Map numbers in [0, 1) to numbers of steps."""
        low, high = self.steps
        return low + (numbers * (high - low + 1)).long()


def _numbers(keys: Tensor, episodes: Tensor, count: Tensor, size: int) -> Tensor:
    """Return the random numbers of one switch of each episode, shape ``(n, size)``."""
    return uniform(splitmix64(keys ^ _APART), (episodes << 20)[:, None] + count[:, None], size)[:, 0]


_APART = signed(0xD1B54A32D192ED03)
"""Makes of an environment's key that of another sequence."""
