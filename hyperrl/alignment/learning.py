"""Learning of the encoder and the dynamics from transitions as they come in."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyperrl.alignment.history import Rows
from hyperrl.alignment.networks import AlignedDynamics


class Learner:
    """Keeps the last transitions of ``n`` environments, and fits the dynamics to them.

    :param dynamics: what learns.
    :param n: how many environments.
    :param capacity: how many transitions to keep, of all environments together.
    :param batch_size: transitions of a gradient step.
    :param every: transitions that come in for each gradient step.
    :param learning_rate: Adam's, at the beginning of the training.
    :param masking: share of the transitions of a history that the encoder does not see while it learns.
    :param seed: seed of the minibatches.
    """

    def __init__(
        self,
        dynamics: AlignedDynamics,
        n: int,
        capacity: int,
        batch_size: int,
        every: int,
        learning_rate: float,
        masking: float,
        seed: int,
    ) -> None:
        m = len(dynamics.mean)
        steps = max(-(-capacity // n), dynamics.history + 1)
        self.dynamics: Final = dynamics
        self.batch_size: Final = batch_size
        self.every: Final = every
        self.learning_rate: Final = learning_rate
        self.masking: Final = masking
        self.optimizer = torch.optim.Adam(dynamics.parameters(), lr=learning_rate)
        self.rng = np.random.default_rng(seed)
        self.transitions: Rows = np.zeros((steps, n, m), dtype=np.float32)  # a ring
        self.episodes: NDArray[np.int32] = np.full((steps, n), -1, dtype=np.int32)
        self.episode: NDArray[np.int32] = np.zeros(n, dtype=np.int32)
        self.added = 0  # steps of all environments
        self.seen = 0  # of those, in the running statistics
        self.owed = 0  # transitions that no gradient step has paid for

    def add(self, rows: Rows, ended: NDArray[np.bool_]) -> None:
        """Take in one transition of each environment ``(n, m)``, and where an episode ended with it ``(n,)``."""
        place = self.added % len(self.transitions)
        self.transitions[place], self.episodes[place] = rows, self.episode
        self.episode = self.episode + ended.astype(np.int32)
        self.added += 1
        self.owed += len(rows)

    def interrupt(self) -> None:
        """Begin a new episode in every environment."""
        self.episode = self.episode + np.int32(1)

    def learn(self, progress: float) -> list[float]:
        """Take the gradient steps that are due; return the loss of each.

        :param progress: what remains of the training, from 1 to 0; the learning rate is in proportion.
        """
        new = min(self.added - self.seen, len(self.transitions))
        if new:
            places = np.arange(self.added - new, self.added) % len(self.transitions)
            self.dynamics.observe(self._tensor(self.transitions[places].reshape(-1, self.transitions.shape[2])))
            self.seen = self.added
        due, self.owed = divmod(self.owed, self.every)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * progress
        losses = []
        for _ in range(due):
            loss = self.dynamics.loss(*self.sample())
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.dynamics.parameters(), 1.0)
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw histories ``(B, K, m)``, what of them is present ``(B, K)``, and the transitions after ``(B, m)``."""
        size, steps = self.batch_size, len(self.transitions)
        oldest = max(self.added - steps, 0)
        time = self.rng.integers(oldest, self.added, size=size)
        row = self.rng.integers(self.transitions.shape[1], size=size)
        before = time[:, None] - 1 - np.arange(self.dynamics.history)  # (B, K)
        same = self.episodes[before % steps, row[:, None]] == self.episodes[time % steps, row][:, None]
        kept = self.rng.random(before.shape) >= self.masking
        present = (before >= oldest) & same & kept
        return (
            self._tensor(self.transitions[before % steps, row[:, None]]),
            self._tensor(present.astype(np.float32)),
            self._tensor(self.transitions[time % steps, row]),
        )

    def _tensor(self, array: Rows) -> Tensor:
        return torch.as_tensor(array, device=self.dynamics.mean.device)
