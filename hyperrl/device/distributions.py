"""Distributions of actions in few operations, each of which takes as long as a small network's layer.

Where ``noise`` is set, actions are sampled from it: what Stable-Baselines3's would draw themselves.
"""

from __future__ import annotations

import math
from typing import Final, Self, final

import torch
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution, Distribution
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

    noise: Tensor | None = None
    """Standard normal, ``(B, m)``."""

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

    def sample(self) -> Tensor:
        """Return actions ``(B, m)``."""
        return super().sample() if self.noise is None else self.mean + self.noise * self.log_std.exp()

    @staticmethod
    def draw(n: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of ``n`` actions of so many dimensions."""
        return torch.randn(n, size, generator=generator, device=generator.device)


@final
class Choice(CategoricalDistribution):
    """Stable-Baselines3's distribution of discrete actions, whose noise can be given."""

    noise: Tensor | None = None
    """Exponential, ``(B, k)``."""

    def sample(self) -> Tensor:
        """Return actions ``(B,)``, as ``torch.multinomial`` finds one of them."""
        return super().sample() if self.noise is None else (self.distribution.probs / self.noise).argmax(1)

    @staticmethod
    def draw(n: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of ``n`` choices out of so many."""
        return torch.empty(n, size, device=generator.device).exponential_(generator=generator)


def simplified(distribution: Distribution) -> Distribution:
    """Return the one above that does what a distribution of Stable-Baselines3's does, or this itself."""
    if type(distribution) is DiagGaussianDistribution:
        return Gaussian(distribution.action_dim)
    return Choice(distribution.action_dim) if type(distribution) is CategoricalDistribution else distribution
