"""The hypernetwork: an encoder, a head, and the target network between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hyperrl.contexts import nearest
from hyperrl.hypernet.encoders import mlp
from hyperrl.hypernet.grouping import distinct
from hyperrl.hypernet.heads import HEADS, FullHead, LowRankHead


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

    >>> import torch
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
