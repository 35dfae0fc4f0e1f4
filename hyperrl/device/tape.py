"""A computation on tensors of fixed shapes, recorded once and replayed in the same memory.

A minibatch of reinforcement learning is a few hundred small operations. Each asks for new memory, which the operating
system clears, and autograd builds its graph anew; together they take longer than the arithmetic. A tape has neither. On
a CUDA device the replay itself is captured as a CUDA graph, so that the host launches all operations at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hyperrl.device.kernels import called, faster

aten: Final = torch.ops.aten
ZEROS: Final = (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)
DYNAMIC: Final = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
CONSTANT: Final = (
    *ZEROS,
    *(aten.ones.default, aten.ones_like.default, aten.full.default, aten.full_like.default),
    *(aten.arange.default, aten.arange.start, aten.scalar_tensor.default),
)
FAULTY: Final = (aten.mse_loss.out,)  # it takes the memory of its result for that of the squares
EMPTY: Final = (aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default)
COPIES: Final = (aten.clone.default, aten._to_copy.default)


class NotStaticError(ValueError):
    """A computation whose shapes, or whose course, depend on the values of tensors: no tape can hold it."""


@final
class Tape:
    """A computation without arguments: it reads tensors that lie in fixed places and returns others that do.

    :param function: what to record. It runs once, at once, with gradients if it asks for them. Its operations are
        recorded with the tensors they read, so to replay it is to compute it with the values that these have then.
        What Python computes besides, such as numbers and choices between operations, stays as it was.
    :raises NotStaticError: where an operation returns a number to Python, or its result's shape depends on values.

    >>> x = torch.ones(3)
    >>> tape = Tape(lambda: (x.exp().sum(),))
    >>> _ = x.zero_()
    >>> tape.replay()
    >>> tape.outputs
    (tensor(3.),)
    """

    def __init__(self, function: Callable[[], tuple[Tensor, ...]]) -> None:
        with _Recorder() as recorder:
            outputs = function()
        self.outputs: Final = tuple(output.detach() for output in outputs)
        """What the function returned; each replay overwrites it."""
        needed = _needed(recorder.calls, self.outputs)
        self._calls: Final = list(_planned(needed, self.outputs))
        # A graph leaves out what the CPU computes.
        on_cuda = {t.is_cuda for call in needed for t in _tensors(call.result)} == {True}
        self._graph: Final = _captured(self._compute) if on_cuda else None

    def replay(self) -> None:
        """Compute the outputs again."""
        if self._graph is None:
            self._compute()
        else:
            self._graph.replay()

    @torch.no_grad()
    def _compute(self) -> None:
        for function, args, kwargs in self._calls:
            function(*args, **kwargs)


def _captured(compute: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
    """Capture a computation as a CUDA graph, which does not run it; ``None``, with a warning, where CUDA refuses."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            compute()
    except RuntimeError as error:
        warnings.warn(f"no CUDA graph, so operations are launched one by one: {error}", stacklevel=2)
        return None
    return graph


class _Call(NamedTuple):
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class _Recorder(TorchDispatchMode):
    """Notes every operation below autograd, those of the backward pass too, with the tensors that it took and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_indexed = func is aten.index.Tensor and not any(t.dtype == torch.bool for t in _tensors(args[1]))
        if not is_indexed and any(tag in func.tags for tag in DYNAMIC):
            raise NotStaticError(f"{func} depends on the values of tensors: no tape can hold it")
        result = func(*args, **(kwargs or {}))
        self.calls.append(_Call(func, args, kwargs or {}, result))
        return result


def _needed(calls: list[_Call], outputs: tuple[Tensor, ...]) -> list[_Call]:
    """Leave out what need not be computed again.

    That is what neither the outputs nor memory from outside the tape depend on, and constants that are not written to.
    """
    made: set[int] = set()  # what is not from outside
    for call in calls:
        made |= {_place(t) for t in _tensors(call.result)} - {_place(t) for t in _tensors((call.args, call.kwargs))}
    read = {_place(t) for t in outputs}
    written = set(read)
    needed = []
    for call in reversed(calls):
        results = {_place(t) for t in _tensors(call.result)}
        changed = _changed(call)
        written |= changed
        is_constant = call.function in CONSTANT and not results & written
        if not is_constant and (results & read or changed & read or not changed <= made):
            needed.append(call)
            read |= {_place(t) for t in _tensors((call.args, call.kwargs))}
    return needed[::-1]


def _planned(calls: list[_Call], outputs: tuple[Tensor, ...]) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Yield the calls of a replay: without views, and with results in memory that is used again and again.

    Tensors are told apart by their memory, since autograd makes new objects for what it keeps.
    """
    last_use = {_place(t): i for i, call in enumerate(calls) for t in _tensors((call.args, call.kwargs, call.result))}
    kept = {_place(t) for t in outputs}
    blocks: dict[int, Tensor] = {}  # where the memory of a recorded tensor lies in a replay
    free: dict[int, list[Tensor]] = {}  # by size in bytes

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        block = blocks.get(_place(value))
        if block is None:
            return value
        storage = block.untyped_storage()
        return value.new_empty(0).set_(storage, value.storage_offset(), value.shape, value.stride())

    seen: set[int] = set()
    for i, call in enumerate(calls):
        read = {_place(t) for t in _tensors((call.args, call.kwargs))}
        seen |= read
        results = list(_tensors(call.result))
        is_mutable = call.function._schema.is_mutable
        if is_mutable or any(_place(t) not in seen for t in results):
            for t in results:
                place = _place(t)
                if place not in seen and place not in kept:
                    size = t.untyped_storage().nbytes()
                    of_size = free.setdefault(size, [])
                    blocks[place] = of_size.pop() if of_size else torch.empty(size, dtype=torch.uint8, device=t.device)
            seen |= {_place(t) for t in results}
            args, kwargs = tree_map(moved, call.args), tree_map(moved, call.kwargs)
            if is_mutable:
                yield called(call.function), args, kwargs
            elif call.function not in EMPTY:
                yield _into(call.function, args, kwargs, tree_map(moved, call.result))
        for place in {_place(t) for t in results} | read:
            if last_use[place] == i and place in blocks:
                block = blocks[place]
                free.setdefault(block.numel(), []).append(block)


def _changed(call: _Call) -> set[int]:
    """Return what memory a call writes to."""
    arguments = call.function._schema.arguments
    given = [*zip(arguments, call.args, strict=False)]
    given += [(argument, call.kwargs[argument.name]) for argument in arguments if argument.name in call.kwargs]
    places: set[int] = set()
    for argument, value in given:
        if argument.alias_info is not None and argument.alias_info.is_write:
            places |= {_place(t) for t in _tensors(value)}
    return places


def _into(function: Any, args: Any, kwargs: Any, result: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the call that writes an operation's results where they are to be."""
    if function in ZEROS:
        return Tensor.zero_, (result,), {}
    if function in COPIES:
        return Tensor.copy_, (result, args[0]), {}
    quick = faster(function, args, result)
    if quick is not None:
        return quick, (*args, result), {}
    names, variant = _out_variant(function)
    if variant is not None:
        results = [result] if isinstance(result, Tensor) else result
        return called(variant), args, kwargs | dict(zip(names, results, strict=True))

    def compute_and_copy() -> None:
        for target, value in zip(_tensors(result), _tensors(function(*args, **kwargs)), strict=True):
            target.copy_(value)

    return compute_and_copy, (), {}


@cache
def _out_variant(function: Any) -> tuple[list[str], Any]:
    """Find the form of an operation that writes into given tensors, and what it calls them."""
    wanted = [(a.name, str(a.type)) for a in function._schema.arguments]
    for name in function.overloadpacket.overloads():
        variant = getattr(function.overloadpacket, name)
        arguments = variant._schema.arguments
        outs = [a.name for a in arguments if a.is_out]
        given = [(a.name, str(a.type)) for a in arguments if not a.is_out]
        if given == wanted and len(outs) == len(function._schema.returns) > 0 and variant not in FAULTY:
            return outs, variant
    return [], None


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _place(tensor: Tensor) -> int:
    """Identify the memory of a tensor that is kept alive."""
    return tensor.untyped_storage()._cdata
