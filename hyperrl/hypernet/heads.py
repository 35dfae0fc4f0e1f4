"""Heads: how the embedding of a context becomes the weights of the target network."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from hyperrl.hypernet.grouping import Groups


class FullHead(nn.Module):
    """All weights and biases generated: ``θ = θ₀ + H·z`` (Ha et al. 2016), with H zero at initialisation.

    θ₀ is the target's ordinary initialisation (bias-HyperInit, Beck et al. 2022).

    :param target: the network whose weights are generated.
    :param embedding_dim: length h of the embedding z.
    """

    def __init__(self, target: nn.Sequential, embedding_dim: int) -> None:
        super().__init__()
        self.base = target
        self.shapes: Final = {name: parameter.shape for name, parameter in target.named_parameters()}
        self.generator = nn.Linear(embedding_dim, sum(s.numel() for s in self.shapes.values()), bias=False)
        nn.init.zeros_(self.generator.weight)

    def forward(self, embedding: Tensor, index: Tensor, x: Tensor) -> Tensor:
        """Apply the network of each row's context: ``(K, h), (B,), (B, n) -> (B, m)``."""
        groups = Groups(index, len(embedding))
        weights = self.weights(embedding)
        h = groups.pad(x)  # (C, size, n)
        for name, layer in self.base.named_children():
            if isinstance(layer, nn.Linear):
                w = weights[f"{name}.weight"][groups.context]  # (C, out, in)
                if layer.bias is None:
                    h = torch.bmm(h, w.mT)
                else:
                    h = torch.baddbmm(weights[f"{name}.bias"][groups.context].unsqueeze(1), h, w.mT)
            else:
                h = layer(h)
        return groups.unpad(h)

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the target's parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        parts = self.generator(embedding).split([shape.numel() for shape in self.shapes.values()], dim=1)
        base = dict(self.base.named_parameters())
        return {
            name: base[name] + part.view(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


class LowRankHead(nn.Module):
    """Weights moved along few directions: ``W = W₀ + U·diag(g(z))·Vᵀ``, ``b = b₀ + β(z)``.

    g and β are linear in z and zero at initialisation; U and V do not depend on the context, so a row of a
    batch needs its ``g`` and ``β`` only, never a weight matrix of its own. The shape is that of LoRA
    (Hu et al. 2021) with a generated diagonal.

    :param target: the network whose weights are generated.
    :param embedding_dim: length h of the embedding z.
    :param rank: the number of directions in each layer.
    """

    def __init__(self, target: nn.Sequential, embedding_dim: int, rank: int) -> None:
        super().__init__()
        self.base = target
        self.rank: Final = rank
        self.linears: Final = {name: layer for name, layer in target.named_children() if isinstance(layer, nn.Linear)}
        # U and V at the scale at which U·diag(g)·Vᵀ with g of order one is as large as an ordinary W₀.
        self.u = nn.ParameterList(torch.randn(layer.out_features, rank) * rank**-0.5 for layer in self.linears.values())
        self.v = nn.ParameterList(
            torch.randn(layer.in_features, rank) * layer.in_features**-0.5 for layer in self.linears.values()
        )
        self.sizes: Final = [
            size for layer in self.linears.values() for size in (rank, 0 if layer.bias is None else layer.out_features)
        ]
        self.generator = nn.Linear(embedding_dim, sum(self.sizes), bias=False)
        nn.init.zeros_(self.generator.weight)

    def forward(self, embedding: Tensor, index: Tensor, x: Tensor) -> Tensor:
        """Apply the network of each row's context: ``(K, h), (B,), (B, n) -> (B, m)``."""
        factors = self.generator(embedding).index_select(0, index).split(self.sizes, dim=1)  # of (B, r) and (B, out)
        linears = 0
        for layer in self.base:
            if isinstance(layer, nn.Linear):
                g, beta = factors[2 * linears : 2 * linears + 2]
                u, v = self.u[linears], self.v[linears]
                moved = (x @ v * g) @ u.mT  # (B, in) -> (B, r) -> (B, out)
                x = layer(x) + moved + (0.0 if layer.bias is None else beta)
                linears += 1
            else:
                x = layer(x)
        return x

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the target's parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        factors = self.generator(embedding).split(self.sizes, dim=1)
        result = {}
        for i, (name, layer) in enumerate(self.linears.items()):
            g, beta = factors[2 * i : 2 * i + 2]
            result[f"{name}.weight"] = layer.weight + torch.einsum("or,kr,ir->koi", self.u[i], g, self.v[i])
            if layer.bias is not None:
                result[f"{name}.bias"] = layer.bias + beta
        return result


HEADS: Final = ("low_rank", "full")
