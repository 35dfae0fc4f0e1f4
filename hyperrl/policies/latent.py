"""Perceptrons that return their last hidden layer too: the features of gSDE's noise (Raffin et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def with_latent(target: nn.Sequential, head: str) -> nn.Sequential:
    """Return a perceptron's layers as one whose output, of m columns, is followed by its last hidden layer's.

    The two layers put around the output layer have no parameters, so that heads treat it as any other perceptron.

    :param target: ends in an ``nn.Linear``.
    :param head: the head that is to generate it.
    :raises ValueError: for the head ``"adapter"``, whose bottleneck would lie between hidden layer and output.

    >>> both = with_latent(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), "full")
    >>> both(torch.randn(5, 3)).shape
    torch.Size([5, 10])
    """
    if head == "adapter":
        raise ValueError(
            "use_sde=True with head='adapter': the adapter lies behind the hidden layer whose features gSDE's noise is "
            "linear in; take another head"
        )
    keep = _Keep()
    return nn.Sequential(*list(target)[:-1], keep, target[-1], _Append(keep))


class _Keep(nn.Module):
    """Passes rows on, and keeps them until they are taken."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x
        return x

    def take(self) -> Tensor:
        kept, self.kept = self.kept, None  # no graph outlives the forward pass
        if kept is None:
            raise RuntimeError("the layer that keeps rows has not been called before the one that takes them")
        return kept


class _Append(nn.Module):
    """Appends kept columns: ``(B, m) -> (B, m + h)``."""

    def __init__(self, keep: _Keep) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.keep.take()], dim=1)
