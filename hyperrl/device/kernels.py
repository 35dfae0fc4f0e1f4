"""Operations that a replay calls in another way than torch's registry does, because it takes less time.

Results are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

aten: Final = torch.ops.aten
METHODS: Final = (
    *(aten.copy_.default, aten.mul_.Tensor, aten.add_.Tensor, aten.addcmul_.default, aten.addmm_.default),
    *(aten.lerp_.Tensor, aten.masked_fill_.Scalar),
)
"""Operations in place whose method of a tensor takes the arguments of the registry's."""
NARROW: Final = range(2, 16)
"""Numbers of columns for which torch's product with a transposed matrix takes three times as long as need be."""

# fmt: off
BOUND: Final = (
    aten.abs, aten.add, aten.addcmul, aten.addmm, aten.baddbmm, aten.bitwise_and, aten.bitwise_not, aten.bitwise_or,
    aten.bmm, aten.cat, aten.clamp, aten.cos, aten.div, aten.eq, aten.exp, aten.ge, aten.gt, aten.index_add,
    aten.index_select, aten.le, aten.lerp, aten.log, aten.lt, aten.maximum, aten.mean, aten.minimum, aten.mm,
    aten.mul, aten.neg, aten.pow, aten.remainder, aten.rsqrt, aten.sin, aten.sqrt, aten.square, aten.stack, aten.sub,
    aten.sum, aten.tanh, aten.where,
)
# fmt: on
"""Operations whose function ``torch.<name>`` takes the arguments of the registry's, and ``out``."""
UNBOUND: Final = (
    *(aten.sum.out, aten.add.Scalar_out, aten.sub.Scalar_out, aten.remainder.Scalar_Tensor_out),
    *(aten.bitwise_and.Scalar_Tensor_out, aten.bitwise_or.Scalar_Tensor_out),
)
"""Their forms of which that is not so, nor is it of those that convert types."""


def called(function: Any) -> Any:
    """Return what calls an operation soonest: torch's functions read their arguments a microsecond faster.

    :param function: an operation of aten that writes into given memory.

    >>> x = torch.ones(2)
    >>> called(aten.add.out)(x, x, alpha=2.0, out=x)
    tensor([3., 3.])
    """
    if function in UNBOUND or "dtype" in function._overloadname:
        return function._op
    name = function.overloadpacket.__name__
    if function.overloadpacket in BOUND:
        return getattr(torch, name)
    if function in METHODS:
        return getattr(Tensor, name)
    return function._op


def faster(function: Any, args: tuple[Any, ...], result: Any) -> Callable[..., None] | None:
    """Return what computes an operation in less time, a function of ``(*args, result)``; ``None`` where nothing does.

    :param function: an operation of aten.
    :param args: what it is given.
    :param result: what it gives, in memory that shares nothing with ``args``.
    """
    if not isinstance(result, Tensor) or not result.is_cpu:
        return None
    if function is aten.masked_fill.Scalar:
        return filled
    if function is aten.rsub.Scalar and len(args) == 2 and result.is_floating_point():
        return reversed_difference
    if function is aten.tanh.default and result.is_floating_point():
        return tanh
    if function is aten.mm.default:
        a, b = args
        if b.shape[1] in NARROW and a.shape[0] >= NARROW.stop and a.stride(0) == 1:
            return narrow_product
    return None


def tanh(x: Tensor, out: Tensor) -> None:
    """Compute ``tanh x`` as ``2·σ(2x) - 1``, whose absolute error is below 2e-7 in float32.

    >>> x, out = torch.linspace(-3, 3, 7), torch.empty(7)
    >>> tanh(x, out)
    >>> torch.allclose(out, x.tanh(), rtol=0, atol=2e-7)
    True
    """
    torch.mul(x, 2.0, out=out)
    out.sigmoid_()
    torch.add(_number(-1.0, out.dtype), out, alpha=2.0, out=out)


def narrow_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Compute ``(m, k)·(k, n)`` as the transpose of ``bᵀ·aᵀ``.

    >>> a, b, out = torch.ones(2, 20).t(), torch.ones(2, 3), torch.empty(20, 3)
    >>> narrow_product(a, b, out)
    >>> out.unique()
    tensor([2.])
    """
    out.copy_((b.t() @ a.t()).t())


def filled(x: Tensor, mask: Tensor, value: float, out: Tensor) -> None:
    """Copy ``x`` but for a value where the mask is, without memory in between.

    >>> out = torch.empty(3)
    >>> filled(torch.ones(3), torch.tensor([True, False, False]), 5.0, out)
    >>> out
    tensor([5., 1., 1.])
    """
    out.copy_(x)
    out.masked_fill_(mask, value)


def reversed_difference(x: Tensor, number: float, out: Tensor) -> None:
    """Compute ``number - x`` without memory in between.

    >>> out = torch.empty(2)
    >>> reversed_difference(torch.ones(2), 5.0, out)
    >>> out
    tensor([4., 4.])
    """
    torch.sub(_number(number, out.dtype), x, out=out)


@cache
def _number(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)
