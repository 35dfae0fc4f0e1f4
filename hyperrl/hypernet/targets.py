"""Targets: apply the target network to each row of a batch with the weights of the row's context."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from hyperrl.hypernet.grouping import Groups, is_static

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def is_perceptron(target: nn.Module) -> bool:
    """Return whether the target is an ``nn.Sequential`` of ``nn.Linear`` and stateless layers; these have a fast path.

    >>> is_perceptron(nn.Sequential(nn.Linear(3, 4), nn.ReLU())), is_perceptron(nn.Sequential(nn.LayerNorm(3)))
    (True, False)
    """
    # Compare exact types: a subclass, or a parametrised layer such as spectral_norm's, computes something else.
    # This runs in each call. named_parameters() would take longer than a layer.
    return type(target) is nn.Sequential and all(_is_linear_or_stateless(layer) for _, layer in layers(target))


def _is_linear_or_stateless(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return not layer._modules and layer._parameters.keys() | layer._buffers.keys() <= {"weight", "bias"}
    if isinstance(layer, _BATCH_NORM):  # it mixes rows, even without state
        return False
    states = (state for module in layer.modules() for state in (module._parameters, module._buffers))
    return all(tensor is None for state in states for tensor in state.values())


def layers(target: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Return the layers with names, in the order of application; ``named_children`` would list a reused layer once."""
    return [(name, layer) for name, layer in target._modules.items() if layer is not None]


def apply(
    target: nn.Module, weights: Mapping[str, Tensor], index: Tensor, x: Tensor, groups: Groups | None = None
) -> Tensor:
    """Apply to each row the target with its context's weights: ``{name: (K, *shape)}, (B,), (B, *n) -> (B, *m)``.

    Rows are grouped by context, but each is a group of its own while a graph is recorded by ``torch.jit.trace`` or an
    exporter. A perceptron runs as one ``bmm`` a layer; any other module by ``functional_call``
    under ``vmap``, or in a loop over contexts where ``vmap`` does not know it (``nn.GRU``, ``nn.LSTM``).

    :param target: takes rows and returns rows, each independently of the others.
    :param weights: the generated parameters; the target's own serve where a name is missing.
    :param groups: of ``index``, where they are made already.
    :raises ValueError: for batch normalisation by the statistics of the batch, which mixes rows.
    """
    if is_static() and groups is None:
        spread = {name: w.index_select(0, index) for name, w in weights.items()}
        return _apply_to_chunks(target, spread, x.unsqueeze(1)).squeeze(1)
    if len(index) == 0:
        return target(x)
    groups = groups or Groups(index, len(next(iter(weights.values()))))
    spread = {name: groups.spread(w) for name, w in weights.items()}
    return groups.unpad(_apply_to_chunks(target, spread, groups.pad(x)))


def _apply_to_chunks(target: nn.Module, spread: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """Apply the target to chunks of rows: ``{name: (C, *shape)}, (C, size, *n) -> (C, size, *m)``."""
    if is_perceptron(target) and h.ndim == 3:
        return _perceptron(target, spread, h)  # pyright: ignore[reportArgumentType]
    modules = list(target.modules())
    if any(isinstance(m, _BATCH_NORM) and (m.training or not m.track_running_stats) for m in modules):
        raise ValueError(
            "batch normalisation by the statistics of the batch mixes the rows of different contexts: "
            "call eval() on the target, or use nn.LayerNorm or nn.GroupNorm"
        )
    if any(isinstance(m, nn.RNNBase) for m in modules):
        rows = [functional_call(target, {n: w[i] for n, w in spread.items()}, (h[i],)) for i in range(len(h))]
        return torch.stack(rows)
    return vmap(lambda w, r: functional_call(target, w, (r,)), randomness="different")(spread, h)


def _perceptron(target: nn.Sequential, weights: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """Apply a perceptron to chunks of rows: ``{name: (C, *shape)}, (C, size, n) -> (C, size, m)``."""
    for name, layer in layers(target):
        if isinstance(layer, nn.Linear):
            weight = weights.get(f"{name}.weight", layer.weight)  # (C, out, in) or (out, in)
            bias = weights.get(f"{name}.bias")  # (C, out)
            if weight.ndim == 2:
                h = functional.linear(h, weight, layer.bias if bias is None else None)
                h = h if bias is None else h + bias.unsqueeze(1)
            elif bias is None and layer.bias is None:
                h = torch.bmm(h, weight.transpose(1, 2))
            else:
                h = torch.baddbmm(layer.bias if bias is None else bias.unsqueeze(1), h, weight.transpose(1, 2))
        else:
            h = layer(h.flatten(0, 1)).unflatten(0, h.shape[:2])  # as rows, which is what the layer expects
    return h
