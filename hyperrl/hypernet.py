"""Hypernetworks in pure torch: networks that produce the weights of a target network from a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from hyperrl.contexts import nearest


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of a matrix.

    Rows are hashed to one number each, since sorting numbers is far cheaper than sorting rows; should two
    different rows share a hash, the rows themselves are sorted. Rows that require a gradient stay as they are.

    :param rows: shape ``(B, d)``.
    :return: the distinct rows, shape ``(K, d)``, and for each row its place among them, shape ``(B,)``.

    >>> unique, index = distinct(torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]]))
    >>> torch.equal(unique[index], torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])), len(unique)
    (True, 2)
    """
    batch, d = rows.shape
    if batch <= 1 or d == 0 or rows.requires_grad:  # a gradient with respect to rows is each row's own
        return rows, torch.arange(batch, device=rows.device)
    generator = torch.Generator().manual_seed(d)
    weights = torch.rand(d, generator=generator, dtype=torch.float64).to(rows.device) + 0.5
    hashes, index = torch.unique(rows.double() @ weights, return_inverse=True)  # (K,), (B,)
    first = index.new_empty(len(hashes)).scatter_(0, index, torch.arange(batch, device=rows.device))
    unique = rows[first]
    if not torch.equal(unique[index], rows):
        return torch.unique(rows, dim=0, return_inverse=True)
    return unique, index


class Groups:
    """The rows of a batch sorted by context into chunks of equal size, so that one ``bmm`` serves them all.

    A context with many rows fills several chunks; the padding is bounded by twice the batch, whatever the
    distribution of rows over contexts.

    :param index: the context of each row, shape ``(B,)``, values below ``contexts``.
    :param contexts: the number of contexts K.
    """

    def __init__(self, index: Tensor, contexts: int) -> None:
        batch = len(index)
        self.size = max(1, -(-batch // max(contexts, 1)))  # rows of a chunk
        counts = torch.bincount(index, minlength=contexts)  # (K,)
        chunks = -(counts // -self.size)  # (K,) chunks that each context fills
        order = torch.argsort(index, stable=True)  # (B,)
        first_row = torch.cumsum(counts, 0) - counts  # (K,)
        first_chunk = torch.cumsum(chunks, 0) - chunks  # (K,)
        rank = torch.arange(batch, device=index.device) - first_row[index[order]]  # (B,) place within its context
        self.slot = torch.empty_like(order)
        self.slot[order] = first_chunk[index[order]] * self.size + rank  # (B,)
        self.context = torch.repeat_interleave(torch.arange(contexts, device=index.device), chunks)  # (C,)

    def pad(self, x: Tensor) -> Tensor:
        """Lay rows ``(B, n)`` out as chunks ``(C, size, n)``, empty places zero."""
        padded = x.new_zeros(len(self.context) * self.size, x.shape[1])
        return padded.index_copy(0, self.slot, x).view(len(self.context), self.size, x.shape[1])

    def unpad(self, x: Tensor) -> Tensor:
        """Undo :meth:`pad`: chunks ``(C, size, m)`` back to rows ``(B, m)``."""
        return x.flatten(0, 1).index_select(0, self.slot)


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


class HyperNetwork(nn.Module):
    """A network whose weights depend on a context, the weights being generated once per distinct context.

    A context ``c`` of shape ``(d,)`` is embedded, ``z = encoder(c)``, and a head turns ``z`` into the weights of
    the target. At initialisation every context has the target's own weights (bias-HyperInit, Beck et al. 2022).
    A batch of B rows holds K ≤ B distinct contexts; outputs and gradients are exactly those of B separate networks.

    :param context_dim: the number of features d. Contexts should be of order one: normalise them.
    :param target: a multi-layer perceptron, ``nn.Sequential`` of ``nn.Linear`` and element-wise layers. It
        becomes part of this module, as the weights common to all contexts.
    :param head: ``"low_rank"`` or ``"full"``; see :class:`LowRankHead`, :class:`FullHead`.
    :param rank: directions per layer of the low-rank head.
    :param embedding: widths of the encoder's layers, the last being the length h of z.
    :param activation: activation of the encoder.
    :param encoder: an encoder to share with another hypernetwork, ``(K, d) -> (K, h)``; it replaces
        ``embedding`` and ``activation``.
    :raises ValueError: for an unknown head, or a target that is no such perceptron.

    ``encoder`` and ``head`` may be called apart: ``z = hyper.encoder(unique)``, ``y = hyper.head(z, index, x)``.

    >>> target = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> hyper = HyperNetwork(context_dim=4, target=target)
    >>> hyper(torch.randn(32, 4), torch.randn(32, 3)).shape
    torch.Size([32, 2])
    >>> sorted(hyper.weights(torch.randn(4)))
    ['0.bias', '0.weight', '2.bias', '2.weight']
    """

    def __init__(
        self,
        context_dim: int,
        target: nn.Sequential,
        head: str = "low_rank",
        rank: int = 8,
        embedding: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] = nn.Tanh,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}: the heads are {list(HEADS)}.{nearest(head, HEADS)}")
        if rank < 1 or not embedding or min(embedding) < 1:
            raise ValueError(f"expected rank ≥ 1 and widths ≥ 1, got rank={rank}, embedding={list(embedding)}")
        if not isinstance(target, nn.Sequential) or any(
            next(layer.parameters(), None) is not None for layer in target if not isinstance(layer, nn.Linear)
        ):
            raise ValueError(
                "expected as target an nn.Sequential of nn.Linear and layers without parameters, got "
                f"{type(target).__name__}({', '.join(type(layer).__name__ for layer in target.children())})"
            )
        self.encoder = encoder or mlp([context_dim, *embedding], activation, activation())
        self.head = LowRankHead(target, embedding[-1], rank) if head == "low_rank" else FullHead(target, embedding[-1])

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Apply to each row the network of its context: ``(B, d), (B, n) -> (B, m)``."""
        unique, index = distinct(context)
        return self.head(self.encoder(unique), index, x)

    def weights(self, context: Tensor) -> dict[str, Tensor]:
        """Return one context's network as a state dict of the target.

        :param context: shape ``(d,)``.
        :return: ``{name: tensor}`` for ``target.load_state_dict``.
        """
        batched = self.head.weights(self.encoder(context.unsqueeze(0)))
        return {name: tensor.squeeze(0) for name, tensor in batched.items()}


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
