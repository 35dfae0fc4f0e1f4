"""Encoders: how a context becomes the embedding that a head reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


def mlp(widths: Sequence[int], activation: Callable[[], nn.Module], last: nn.Module | None = None) -> nn.Sequential:
    """Make a perceptron with an activation between layers, and ``last`` behind the last one.

    >>> mlp([3, 8, 2], nn.Tanh)
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [activation()] * (i > 0) + [nn.Linear(n_in, n_out)]
    return nn.Sequential(*layers, *([last] if last is not None else []))
