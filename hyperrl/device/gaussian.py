"""The distribution of continuous actions in few operations, each of which takes as long as a small network's layer."""

from __future__ import annotations

import math
from typing import Final, Self, final

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from torch import Tensor

HALF_LOG_TAU: Final = 0.5 * math.log(2 * math.pi)


@final
class Gaussian(DiagGaussianDistribution):
    """Stable-Baselines3's Gaussian with the same log-probabilities and entropies, and half as many operations.

    >>> mean, log_std = torch.zeros(3, 2), torch.tensor([0.0, 1.0])
    >>> one, other = (cls(2).proba_distribution(mean, log_std) for cls in (Gaussian, DiagGaussianDistribution))
    >>> torch.allclose(one.log_prob(mean + 1), other.log_prob(mean + 1))
    True
    """

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> Self:
        """Set the mean ``(B, m)`` and the log-std, ``(m,)`` or ``(B, m)``."""
        super().proba_distribution(mean_actions, log_std)
        self.mean, self.log_std = mean_actions, log_std
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities ``(B,)`` of actions ``(B, m)``."""
        z = (self.mean - actions) * (-self.log_std).exp()
        nats = torch.addcmul(self.log_std, z, z, value=0.5).sum(1)
        return -self.action_dim * HALF_LOG_TAU - nats

    def entropy(self) -> Tensor:
        """Return the entropies ``(B,)``."""
        nats = self.log_std.sum(-1) + self.action_dim * (0.5 + HALF_LOG_TAU)
        return nats.expand(len(self.mean))
