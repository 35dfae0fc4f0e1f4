"""Encoders: maps from a context to the embedding z, the input of a head.

Any module ``(K, d) -> (K, h)`` can be an encoder. Examples::

    nn.Identity()                                               # no encoder: weights are linear in the context
    mlp([4, 64, 64], nn.Tanh, nn.Tanh())                        # the default
    nn.Sequential(CosSin(), mlp([8, 64, 64], nn.Tanh, nn.Tanh()))
    nn.Sequential(mlp([4, 64], nn.ReLU), nn.LayerNorm(64))      # ‖z‖ the same in every context
    TaskEmbedding(tasks=10, dim=16)                             # the context is a task id
    nn.Sequential(mlp([4, 64], nn.ReLU), NormBound(8.0))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn


@final
class CosSin(nn.Module):
    """Encode each feature as an angle, so that all contexts have inputs of the same norm.

    A feature c normalised to [-1, 1] becomes ``t = (c + 1)/2`` in [0, 1], then ``(cos πt/2, sin πt/2)``, which has
    norm one (Ortiz et al. 2023). With plain inputs, generated weights grow with the magnitude of the context.

    >>> CosSin()(torch.tensor([[-1.0, 0.0]]))
    tensor([[1.0000, 0.7071, 0.0000, 0.7071]])
    """

    def forward(self, context: Tensor) -> Tensor:
        """Encode contexts: ``(K, d) -> (K, 2d)``, all cosines before all sines."""
        angle = (context + 1) * (math.pi / 4)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


@final
class TaskEmbedding(nn.Module):
    """Look up a learnt embedding of a discrete context.

    :param tasks: the number of tasks.
    :param dim: length of an embedding.

    >>> TaskEmbedding(tasks=10, dim=16)(torch.tensor([[3.0], [0.0]])).shape
    torch.Size([2, 16])
    """

    def __init__(self, tasks: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tasks, dim)

    def forward(self, context: Tensor) -> Tensor:
        """Return the embeddings of ids: ``(K, 1) -> (K, dim)``. They are whole numbers below ``tasks``, any dtype."""
        return self.embedding(context[:, 0].long())


@final
class NormBound(nn.Module):
    """Bound the norm of the embedding, and so the size of generated weights: ``z·min(1, bound/‖z‖)``.

    :param bound: the largest norm.

    >>> NormBound(1.0)(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound: Final = bound

    def forward(self, z: Tensor) -> Tensor:
        """Scale embeddings above the bound down: ``(K, h) -> (K, h)``."""
        # The maximum keeps the gradient finite at z = 0.
        return z * (self.bound / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp(min=self.bound))


def mlp(widths: Sequence[int], activation: Callable[[], nn.Module], last: nn.Module | None = None) -> nn.Sequential:
    """Make a perceptron with an activation between layers, and the module ``last`` after the last layer.

    >>> mlp([3, 8, 2], nn.Tanh)
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    modules: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        modules += [activation()] * (i > 0) + [nn.Linear(n_in, n_out)]
    return nn.Sequential(*modules, *([last] if last is not None else []))
