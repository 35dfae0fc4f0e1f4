"""Find the distinct contexts of a batch, and group its rows by context."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Final

import torch
from torch import Tensor

from hyperrl.utils.flags import raised


def is_static() -> bool:
    """Return whether ``torch.jit.trace`` or an exporter records a graph, or :func:`static` says so: then no shape, and
    no choice between operations, may depend on values.

    ``torch.compile`` does not need this: it breaks its graph where shapes depend on values.
    """
    return _STATIC.get() or torch.jit.is_tracing() or torch.compiler.is_exporting()  # pyright: ignore[reportPrivateImportUsage]


def static() -> AbstractContextManager[None]:
    """Compute, within, what is the same for all values of tensors of these shapes.

    >>> with static():
    ...     len(distinct(torch.zeros(3, 1))[0])
    3
    """
    return raised(_STATIC)


_STATIC: Final = ContextVar("static", default=False)


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of a matrix.

    Each row is hashed to one number, because sorting numbers is much cheaper than sorting rows. If two different rows
    have the same hash, the rows themselves are sorted. Rows that require a gradient are all treated as distinct. So are
    all rows while ``torch.jit.trace`` or an exporter records a graph.

    :param rows: shape ``(B, d)``.
    :return: the distinct rows, shape ``(K, d)``, and for each row its index among them, shape ``(B,)``.

    >>> unique, index = distinct(torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]]))
    >>> torch.equal(unique[index], torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])), len(unique)
    (True, 2)
    """
    batch, d = rows.shape
    # Each row needs its own gradient.
    if is_static() or batch <= 1 or d == 0 or rows.requires_grad:
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
    """The rows of a batch sorted by context into chunks of equal size, so that one ``bmm`` computes them all.

    If rows are spread evenly, each context is one chunk. A context with many more rows than the others fills several
    chunks. There are never more than twice as many places as rows.

    :param index: the context of each row, shape ``(B,)``, values below ``contexts``.
    :param contexts: the number of contexts K.
    :param static: as many chunks as there could be at most, so that no shape depends on values.
    """

    def __init__(self, index: Tensor, contexts: int, static: bool = False) -> None:
        batch = len(index)
        counts = index.new_zeros(contexts).scatter_add_(0, index, torch.ones_like(index))  # (K,)
        mean, largest = -(-batch // max(contexts, 1)), int(counts.max()) if batch and not static else 0
        fits = largest * contexts <= 2 * batch and not static
        self.size: Final = max(1, largest if fits else mean)  # rows of a chunk
        chunks = -(counts // -self.size)  # (K,) chunks of each context; 0 if it has no rows
        if static:
            most = (batch + contexts * (self.size - 1)) // self.size
            # Chunks beyond those that are needed belong to the last context, and no row is in them.
            ends = chunks.cumsum(0).clamp(max=most)  # (K,)
            ended = index.new_zeros(most + 1).scatter_add(0, ends, torch.ones_like(ends)).cumsum(0)  # before each place
            context = ended[:most].clamp(max=contexts - 1)
        else:
            context = torch.repeat_interleave(torch.arange(contexts, device=index.device), chunks)
        self.context: Final = context  # (C,)
        self.one_chunk_each: Final = fits and len(self.context) == contexts
        order = torch.argsort(index, stable=True)  # (B,)
        first_row = torch.cumsum(counts, 0) - counts  # (K,)
        first_chunk = torch.cumsum(chunks, 0) - chunks  # (K,)
        rank = torch.arange(batch, device=index.device) - first_row[index[order]]  # (B,) place within its context
        slot = first_chunk[index[order]] * self.size + rank  # (B,)
        self.slot: Final = torch.zeros_like(order).scatter(0, order, slot)
        # Fill an empty place with a row of its context: at another value, such as zero, the target may not be finite.
        row = order  # (C·size,)
        if len(self.context) * self.size > batch:
            row = (
                order[first_row[self.context].clamp(max=batch - 1)].repeat_interleave(self.size).scatter(0, slot, order)
            )
        self.row: Final = row

    def pad(self, x: Tensor) -> Tensor:
        """Arrange rows ``(B, *n)`` as chunks ``(C, size, *n)``. Empty places get a row of the same chunk."""
        return x.index_select(0, self.row).unflatten(0, (len(self.context), self.size))

    def unpad(self, x: Tensor) -> Tensor:
        """Undo :meth:`pad`: chunks ``(C, size, *m)`` back to rows ``(B, *m)``."""
        return x.flatten(0, 1).index_select(0, self.slot)

    def spread(self, weights: Tensor) -> Tensor:
        """Give each chunk the weights of its context: ``(K, *shape) -> (C, *shape)``."""
        return weights if self.one_chunk_each else weights.index_select(0, self.context)
