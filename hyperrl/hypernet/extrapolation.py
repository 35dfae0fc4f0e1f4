"""The continuation of an encoder beyond the range of contexts that it learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Final, final

import torch
from torch import Tensor, nn

from hyperrl.hypernet.grouping import is_static
from hyperrl.utils.flags import raised

Range = Sequence[tuple[float, float]]
"""A union of closed intervals in increasing order."""


@final
class SecantExtrapolation(nn.Sequential):
    """An encoder that goes on beyond its training range by slopes that it has all over the range.

    Inside the training range it is the sequence of its layers, f. A context c outside is first clipped to the range,
    b = clip(c). The embedding goes on from there, along each feature that is outside::

        z(c) = f(b) + Σᵢ sign(xᵢ)·sᵢ·hᵢ·log(1 + |xᵢ|),   xᵢ = (cᵢ - bᵢ)/hᵢ,   hᵢ half the width of the range

    The slope sᵢ compares the embeddings at the two ends and in the middle of feature i's training range, the other
    features as in b. It is the smaller one of the slopes on the two halves where they have the same sign, else zero,
    for each entry of z by itself (the minmod limiter of finite volume methods, Roe 1986). So an entry that rises
    steadily over the range goes on rising, ever more slowly. One that saturates or turns stays where it is. If the
    training range has several intervals, such as that of a motor that may be inverted, the slope is that on the
    interval next to the context.

    :param layers: of the encoder, which together map ``(K, d) -> (K, h)``.
    :param ranges: the training range of each feature, as the encoder's input has it.
    :param features: indices of the features that may lie outside; all by default. The others are never clipped.

    >>> encoder = nn.Linear(1, 2, bias=False)
    >>> _ = encoder.weight.data.copy_(torch.tensor([[2.0], [0.0]]))
    >>> SecantExtrapolation(encoder, ranges=[[(-1, 1)]])(torch.tensor([[0.5], [1.0], [2.0]])).detach()
    tensor([[1.0000, 0.0000],
            [2.0000, 0.0000],
            [3.3863, 0.0000]])
    """

    low: Tensor  # (d,)
    high: Tensor  # (d,)
    inner: Tensor  # (2, d)
    chosen: Tensor  # (n, d)

    def __init__(self, *layers: nn.Module, ranges: Sequence[Range], features: Sequence[int] | None = None) -> None:
        super().__init__(*layers)
        for i, intervals in enumerate(ranges):
            ends = [end for interval in intervals for end in interval]
            if not ends or ends != sorted(ends):
                raise ValueError(f"expected intervals in increasing order as range {i}, got {list(intervals)}")
        self.features: Final = [*range(len(ranges))] if features is None else [*features]
        infinite = float("inf")
        low = [of[0][0] if i in self.features else -infinite for i, of in enumerate(ranges)]
        high = [of[-1][1] if i in self.features else infinite for i, of in enumerate(ranges)]
        # They follow from the training range, and have no part in the state dict.
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32), persistent=False)
        inner = [[of[0][1] for of in ranges], [of[-1][0] for of in ranges]]
        self.register_buffer("inner", torch.tensor(inner, dtype=torch.float32), persistent=False)
        self.register_buffer("chosen", torch.eye(len(ranges))[self.features], persistent=False)

    def forward(self, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Encode contexts: ``(K, d) -> (K, h)``."""
        if _INSIDE.get():
            return super().forward(context)
        inside = torch.minimum(torch.maximum(context, self.low), self.high)
        z = super().forward(inside)
        beyond = (context - inside)[:, self.features]  # (K, n)
        if not (is_static() or bool(beyond.any())):
            return z
        low, high, (first_high, last_low) = self.low, self.high, self.inner
        is_above = beyond > 0
        start = torch.where(is_above, last_low[self.features], low[self.features])  # (K, n)
        end = torch.where(is_above, high[self.features], first_high[self.features])
        ends = torch.stack([start, (start + end) / 2, end])  # (3, K, n)
        moves = (ends - inside[:, self.features]).unsqueeze(-1) * self.chosen  # (3, K, n, d)
        points = (inside.unsqueeze(1) + moves).flatten(0, 2)
        encoded = super().forward(points).unflatten(0, moves.shape[:3])  # (3, K, n, h)
        left, right = encoded[1] - encoded[0], encoded[2] - encoded[1]  # (K, n, h), over half of the interval
        steady = torch.where(left * right > 0, torch.where(left.abs() < right.abs(), left, right), 0.0)
        half_width = ((high - low) / 2)[self.features]  # (n,)
        step = beyond.sign() * half_width * torch.log1p(beyond.abs() / half_width)
        slope = steady / ((end - start) / 2).unsqueeze(-1)
        return z + (slope * step.unsqueeze(-1)).sum(dim=1)

    def contains(self, context: Tensor) -> bool:
        """Return whether contexts ``(K, d)`` are all inside the training range."""
        return bool(((self.low <= context) & (context <= self.high)).all())


def inside_range() -> AbstractContextManager[None]:
    """Encode, within, contexts that are known to be inside the training range: nothing goes on beyond it."""
    return raised(_INSIDE)


_INSIDE: Final = ContextVar("inside", default=False)
