"""What computes a policy's deterministic actions, as torch modules of contexts and features alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ActingNetwork:
    """What a policy computes its deterministic actions by.

    :param network: called with normalised contexts ``(B, d)`` and features ``(B, n)``, it returns what parametrises the
        actions ``(B, m)``: means, or for discrete actions logits or values.
    :param layers: the layers that features pass through, in their order.
    :param squash: whether continuous actions are then squashed by ``tanh`` and scaled to the space, or clipped to it.
    """

    network: nn.Module
    layers: tuple[nn.Module, ...]
    squash: bool


class OnColumns(nn.Module):
    """Gives a network features and contexts as columns of one matrix: ``(B, d), (B, n) -> (B, m)``.

    :param layers: the first takes ``(B, n + d)``.
    :param includes_context: whether there are columns of the context.
    """

    def __init__(self, *layers: nn.Module, includes_context: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.includes_context: Final = includes_context

    def forward(self, context: Tensor, features: Tensor) -> Tensor:
        """Return what the layers return."""
        return self.layers(torch.cat([features, context], dim=1) if self.includes_context else features)


class FirstColumns(nn.Module):
    """Keeps the first m columns: ``(B, n) -> (B, m)``."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.m: Final = m

    def forward(self, x: Tensor) -> Tensor:
        """Return the first columns."""
        return x[:, : self.m]


class QuantileMean(nn.Module):
    """Averages q quantiles of m values: ``(B, q·m) -> (B, m)``."""

    def __init__(self, quantiles: int) -> None:
        super().__init__()
        self.quantiles: Final = quantiles

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        return x.unflatten(1, (self.quantiles, -1)).mean(1)


class Method(nn.Module):
    """A method of a module as a module.

    :param module: has the method.
    :param name: of the method.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name: Final = name

    def forward(self, x: Tensor) -> Any:
        """Call the method."""
        return getattr(self.module, self.name)(x)
