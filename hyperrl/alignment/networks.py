"""The networks: an encoder of transitions, and a model of the dynamics whose weights depend on the embedding."""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyperrl.hypernet import HyperNetwork, mlp

CLIP: Final = 10.0
"""The largest standardised input, in standard deviations."""


@final
class AverageL1(nn.Module):
    """Divide each row by the mean of its absolute values (Fujimoto et al. 2023): ``(..., n) -> (..., n)``.

    >>> AverageL1()(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([[ 0.5000, -1.5000],
            [ 0.0000,  0.0000]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows; a row of zeros stays as it is."""
        return x / x.abs().mean(dim=-1, keepdim=True).clamp(min=1e-8)


@final
class SimNorm(nn.Module):
    """Apply a softmax to each group of numbers (Hansen et al. 2024): ``(B, n) -> (B, n)``.

    Every number of the result lies in [0, 1], and the numbers of a group add up to 1.

    :param group: how many numbers form a group; it divides n.

    >>> SimNorm(2)(torch.tensor([[0.0, 0.0, 9.0, 9.0]]))
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group: Final = group

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of each row."""
        return x.unflatten(-1, (-1, self.group)).softmax(dim=-1).flatten(-2)


@final
class AlignedDynamics(nn.Module):
    """Predict the change of the observation from observation, action and an embedding of the transitions before.

    A transition is one row: observation ``(o,)``, action ``(a,)`` and change of the observation ``(o,)``. The encoder
    maps each transition of a history by one perceptron, averages over the history, and maps the average to an
    embedding of the length ``embedding``. A hypernetwork with a low-rank head generates from the embedding the weights
    of the model that predicts: the way in which a policy of :mod:`hyperrl.policies` uses a context. Inputs and outputs
    are standardised by running statistics of the transitions seen.

    :param observation: length o of the observation.
    :param action: length a of the action.
    :param history: how many transitions K the encoder sees.
    :param embedding: length e of the embedding.
    :param group: see :class:`SimNorm`.
    :param width: width of all hidden layers.

    >>> dynamics = AlignedDynamics(observation=3, action=1, history=8)
    >>> dynamics.embed(torch.randn(5, 8, 7), torch.ones(5, 8)).shape
    torch.Size([5, 16])
    """

    mean: Tensor  # (2o + a,)
    variance: Tensor  # (2o + a,)
    count: Tensor  # ()

    def __init__(
        self, observation: int, action: int, history: int, embedding: int = 16, group: int = 4, width: int = 64
    ) -> None:
        super().__init__()
        n = 2 * observation + action
        self.inputs: Final = observation + action
        self.history: Final = history
        self.each = nn.Sequential(nn.Linear(n, width), AverageL1(), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.all = nn.Sequential(mlp([width + 1, width, embedding], nn.ELU), SimNorm(group))
        target = mlp([self.inputs, width, width, observation], nn.ELU)
        self.prediction = HyperNetwork(embedding, target, "low_rank", embedding=(width, 16), rank=8)
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("variance", torch.ones(n))
        self.register_buffer("count", torch.zeros(()))

    def embed(self, transitions: Tensor, present: Tensor) -> Tensor:
        """Return the embedding of each history, ``(B, e)``. The order of its transitions does not matter.

        :param transitions: shape ``(B, K, 2o + a)``, in the environment's units.
        :param present: 1 where there is a transition, 0 where there is none, shape ``(B, K)``.
        """
        each = self.each(self._standardised(transitions)) * present.unsqueeze(-1)  # (B, K, width)
        n = present.sum(dim=1, keepdim=True)  # (B, 1)
        average = each.sum(dim=1) / n.clamp(min=1.0)
        return self.all(torch.cat([average, n / self.history], dim=1))

    def loss(self, transitions: Tensor, present: Tensor, following: Tensor) -> Tensor:
        """Return the mean squared error of the predicted changes, in variances of these.

        :param transitions: the histories, and ``present``: see :meth:`embed`.
        :param following: the transition after each history, shape ``(B, 2o + a)``: its change is predicted.
        """
        row = self._standardised(following)
        z = 2 * self.embed(transitions, present) - 1
        return functional.mse_loss(self.prediction(z, row[:, : self.inputs]), row[:, self.inputs :])

    @torch.no_grad()
    def observe(self, transitions: Tensor) -> None:
        """Update the running statistics by transitions ``(N, 2o + a)`` (Chan et al. 1979)."""
        n, total = len(transitions), len(transitions) + self.count
        variance, mean = torch.var_mean(transitions, dim=0, correction=0)
        difference = mean - self.mean
        moments = self.variance * self.count + variance * n + difference.square() * self.count * n / total
        self.mean += difference * n / total
        self.variance.copy_(moments / total)
        self.count.copy_(total)

    def _standardised(self, transitions: Tensor) -> Tensor:
        return ((transitions - self.mean) / self.variance.sqrt().clamp(min=1e-6)).clamp(-CLIP, CLIP)
