"""Measures of generated weights over contexts, to log or to add to a loss.

All take a matrix θ of shape ``(K, P)`` with one row of generated weights per context, as
:meth:`HyperNetwork.generate <hyperrl.hypernet.HyperNetwork.generate>` returns it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def diagnostics(embedding: Tensor, theta: Tensor) -> dict[str, float]:
    """Measure how weights depend on the context. A collapse shows here before it shows in the loss.

    :param embedding: the embeddings z of the contexts, shape ``(K, h)``.
    :param theta: shape ``(K, P)``.
    :return: ``embedding_norm`` and ``weight_norm``, the means of ‖z‖ and ‖θ(c)‖; ``weight_variance``, the variance
        over contexts of a weight, averaged over weights; ``effective_rank``, the number of directions in which
        the weights vary with the context.
    """
    return {
        "embedding_norm": embedding.norm(dim=1).mean().item(),
        "weight_norm": theta.norm(dim=1).mean().item(),
        "weight_variance": (theta - theta.mean(0)).square().mean().item(),
        "effective_rank": effective_rank(theta),
    }


def effective_rank(theta: Tensor) -> float:
    """Return the number of directions in which weights vary with the context (Roy & Vetterli 2007).

    It is ``exp(−Σ pᵢ·log pᵢ)``. Here p are the singular values of θ minus its mean over contexts, divided by their sum.
    A value that falls towards 1 indicates a collapse. 0 means that all contexts have the same weights, NaN that some
    weights are not finite.

    :param theta: shape ``(K, P)``.

    >>> effective_rank(torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [-1.0, 0.0, 5.0], [0.0, -1.0, 5.0]]))
    2.0...
    """
    centred = (theta - theta.mean(0)).double()
    # Use the small K × K matrix, because P may be large. Rounding errors are about 1e-16 of the largest eigenvalue.
    gram = centred @ centred.mT
    if not gram.isfinite().all():  # eigvalsh would raise
        return math.nan
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    if eigenvalues.sum() <= 1e-12 * theta.double().square().sum():  # rounding errors of float32
        return 0.0
    singular = torch.where(eigenvalues > 1e-12 * eigenvalues.max(), eigenvalues, 0).sqrt()
    return torch.special.entr(singular / singular.sum()).sum().exp().item()


def squared_norm(theta: Tensor) -> Tensor:
    """Return the mean of ``‖θ(c)‖²`` over contexts. Times a small λ, it is weight decay on generated weights.

    :param theta: shape ``(K, P)``.
    :return: a scalar.

    >>> squared_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor(13.)
    """
    return theta.square().sum(1).mean()


def similarity(theta: Tensor, scale: float = 0.1) -> Tensor:
    """Return how similar the weights of different contexts are, in (0, 1]; in a loss, it keeps them diverse.

    It is the mean of ``exp(−m²/scale²)`` over pairs of contexts; m² is the mean squared difference of a weight. It is
    bounded, so it does not drive weights apart without limit. If all weights are equal, its gradient is zero.

    :param theta: shape ``(K, P)``, K ≥ 2.
    :param scale: the difference of weights that counts as different.
    :return: a scalar.

    >>> similarity(torch.tensor([[1.0, 2.0], [1.0, 2.0]])), similarity(torch.tensor([[1.0, 2.0], [3.0, 1.0]]))
    (tensor(1.), tensor(0.))
    """
    first, second = torch.triu_indices(len(theta), len(theta), offset=1, device=theta.device)
    centred = theta - theta.mean(0)  # differences stay the same, and rounding errors below become smaller
    gram = centred @ centred.mT  # (K, K)
    squares = gram.diagonal()
    distance = (squares[first] + squares[second] - 2 * gram[first, second]).clamp(min=0) / theta.shape[1]
    return (-distance / scale**2).exp().mean()
