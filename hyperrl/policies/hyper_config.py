"""How a policy's networks are generated: the options that all hypernetwork policies share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor, nn

from hyperrl.contexts import ContextBox
from hyperrl.hypernet import (
    CosSin,
    HyperNetwork,
    NormBound,
    SecantExtrapolation,
    TaskEmbedding,
    mlp,
    similarity,
    squared_norm,
)
from hyperrl.policies.context import ContextPolicy, ContextReader
from hyperrl.utils.errors import nearest

if TYPE_CHECKING:
    from hyperrl.policies.off_policy import GeneratedNetwork

ENCODERS: Final = ("mlp", "cos_sin", "task_embedding", "none")


@dataclass(frozen=True)
class HyperConfig:
    """Keyword arguments of every hypernetwork policy: how weights are generated from the context.

    :param head: how weights are generated, one of :data:`~hyperrl.hypernet.HEADS`.
    :param rank: directions per layer, of the head ``"low_rank"``.
    :param chunk_size: weights of a chunk, of the head ``"chunked"``.
    :param chunk_embedding: length of a chunk's embedding, of the head ``"chunked"``.
    :param bottleneck: width of the adapter, of the head ``"adapter"``.
    :param embedding: widths of the context encoder's layers; a short last one generalises better beyond the training
        range (docs/hypernetworks.md).
    :param encoder: ``"mlp"``; ``"cos_sin"``, which puts the features' cosines and sines before the perceptron;
        ``"task_embedding"``, a learnt vector for each whole number in the bounds of a context of one feature, as
        long as the last width; ``"none"``: weights are linear in the context itself. Perceptrons begin as SB3's do,
        orthogonal and with biases of zero: opposite contexts have opposite embeddings at first.
    :param extrapolate: continue the embedding of a context outside the training range by the slopes inside it, see
        :class:`~hyperrl.hypernet.SecantExtrapolation`; without, the encoder is evaluated there. It matters for the
        encoders ``"mlp"`` and ``"cos_sin"``, where the observation space carries a training range.
    :param layer_norm: layer normalisation behind the encoder.
    :param norm_bound: the largest norm of the embedding, see :class:`~hyperrl.hypernet.NormBound`.
    :param init: ``"bias"``, ``"hyperfan_in"``, ``"hyperfan_out"`` or ``"naive"``.
    :param generated: pattern of the names of the parameters to generate, or several, such as ``"*.bias"``.
    :param base: learn weights common to all contexts too; ``init`` and ``base`` are those of
        :class:`~hyperrl.hypernet.HyperNetwork`.
    :param squared_norm: weight in the loss of the generated weights' mean squared norm over contexts.
    :param similarity: weight in the loss of how alike the weights of different contexts are. Both are of the contexts
        of a minibatch, added up over the networks that its loss is of: see :mod:`hyperrl.hypernet.measures`.
    """

    head: str = "low_rank"
    rank: int | None = None
    chunk_size: int | None = None
    chunk_embedding: int | None = None
    bottleneck: int | None = None
    embedding: Sequence[int] = (64, 16)
    encoder: str = "mlp"
    extrapolate: bool = True
    layer_norm: bool = False
    norm_bound: float | None = None
    init: str = "bias"
    generated: str | Sequence[str] = "*"
    base: bool = True
    squared_norm: float = 0.0
    similarity: float = 0.0

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ValueError(
                f"unknown encoder {self.encoder!r}: the encoders are {list(ENCODERS)}.{nearest(self.encoder, ENCODERS)}"
            )
        for name in ("squared_norm", "similarity"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} ≥ 0, got {name}={getattr(self, name)}")
        if self.norm_bound is not None and self.norm_bound <= 0:
            raise ValueError(f"expected norm_bound > 0, got norm_bound={self.norm_bound}")

    @property
    def is_penalised(self) -> bool:
        """Whether the loss has further terms."""
        return self.squared_norm > 0 or self.similarity > 0

    def network(self, target: nn.Sequential, reader: ContextReader, encoder: nn.Module | None = None) -> HyperNetwork:
        """Make the hypernetwork of a target.

        :param target: the network whose weights are generated; it becomes part of the hypernetwork.
        :param reader: says what contexts are.
        :param encoder: one to share; a new one by default.
        """
        names = ("rank", "chunk_size", "chunk_embedding", "bottleneck")
        given: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return HyperNetwork(
            reader.dim,
            target,
            self.head,
            embedding=self.embedding,
            encoder=encoder or self._encoder(reader),
            init=self.init,
            generated=self.generated,
            base=self.base,
            **given,
        )

    def penalty(self, network: HyperNetwork, contexts: Tensor) -> Tensor:
        """Return what a network adds to the loss, given the distinct contexts ``(K, d)`` of a minibatch."""
        theta = network.generate(contexts)
        penalty = self.squared_norm * squared_norm(theta)
        if self.similarity > 0 and len(theta) > 1:
            penalty = penalty + self.similarity * similarity(theta)
        return penalty

    def _encoder(self, reader: ContextReader) -> nn.Module:
        check_widths(self.embedding)
        width = self.embedding[-1]
        ranges, features = _ranges(reader) if self.extrapolate else ([], [])
        if self.encoder == "task_embedding":
            ids = _TaskId(reader)
            modules, features = [ids, TaskEmbedding(ids.tasks, width)], []
        elif self.encoder == "none":
            modules, width, features = [], reader.dim, []
        elif self.encoder == "cos_sin":
            modules = [CosSin(), perceptron(2 * reader.dim, self.embedding)]
        else:
            modules = [*perceptron(reader.dim, self.embedding)]
        if self.layer_norm:
            modules.append(nn.LayerNorm(width))
        if features:
            encoder = SecantExtrapolation(*modules, ranges=ranges, features=features)
        else:
            encoder = nn.Sequential(*modules)
        return encoder if self.norm_bound is None else nn.Sequential(encoder, NormBound(self.norm_bound))


def _ranges(reader: ContextReader) -> tuple[list[list[tuple[float, float]]], list[int]]:
    """Return the training range of each feature, normalised, and the features whose bounds lie farther out."""
    if not isinstance(reader.box, ContextBox):
        return [], []
    space = reader.box.context_space
    center, half_width = space.center_and_half_width
    ranges = [
        [tuple(((np.array(interval) - center[i]) / half_width[i]).tolist()) for interval in feature.train]
        for i, feature in enumerate(space.features)
    ]
    low, high = space.train_range
    return ranges, np.flatnonzero(((space.low < low) | (high < space.high)) & (low < high)).tolist()


def check_widths(embedding: Sequence[int]) -> None:
    """Refuse an encoder without layers, or with a layer of no width."""
    if not embedding or min(embedding) < 1:
        raise ValueError(f"expected widths ≥ 1, got embedding={list(embedding)}")


def perceptron(n: int, embedding: Sequence[int]) -> nn.Sequential:
    """Make an encoder of ``n`` numbers, whose weights begin as SB3's do: orthogonal, with biases of zero.

    :param embedding: the widths of its layers.
    """
    check_widths(embedding)
    encoder = mlp([n, *embedding], nn.Tanh, nn.Tanh())
    for layer in encoder:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            nn.init.zeros_(layer.bias)
    return encoder


class GeneratedPolicy(ContextPolicy):
    """What hypernetwork policies have in common.

    :param kwargs: all options of :class:`HyperConfig`, and what :class:`~hyperrl.policies.context.ContextPolicy` takes.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.hyper_config: Final = HyperConfig(
            **{option.name: kwargs.pop(option.name) for option in fields(HyperConfig)}
        )
        super().__init__(**kwargs)

    def generated_networks(self) -> Mapping[str, HyperNetwork | GeneratedNetwork]:
        """Return the generated networks that learn, by name: what acts, then each critic."""
        raise NotImplementedError

    def plain_state(self, context: Tensor) -> dict[str, Tensor]:
        """Return the state dict of SB3's own policy with the weights generated for one context.

        :param context: normalised, shape ``(d,)``.
        :raises ValueError: for the head ``"adapter"``.
        """
        if self.hyper_config.head == "adapter":
            raise ValueError(
                "head='adapter' adds a layer of another kind before the last one, which no plain policy of SB3 has; "
                "all other heads can be specialised, and hyperrl.export.save writes the whole policy with its context "
                "left open"
            )
        return self._generated_state(super().plain_state(context), context)

    def _generated_state(self, state: dict[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        """Replace what belongs to generated networks in a state dict by the weights of one context."""
        raise NotImplementedError

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | asdict(self.hyper_config)


def without(state: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """Return a state dict without the entries of a module."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(f"{module}.")}


def by_layer(state: Mapping[str, Tensor]) -> list[list[tuple[str, Tensor]]]:
    """Group the state dict of an ``nn.Sequential`` by its layers, in their order."""
    return [list(layer) for _, layer in groupby(state.items(), key=lambda item: item[0].partition(".")[0])]


class _TaskId(nn.Module):
    """Turns a normalised context of one feature back into a whole number from 0 on."""

    def __init__(self, reader: ContextReader) -> None:
        super().__init__()
        low, high = reader.box.low, reader.box.high
        if reader.dim != 1 or not (abs(low[0]) < 1e6 and abs(high[0]) < 1e6):
            raise ValueError(
                "encoder='task_embedding' needs a context of one feature, a whole number between finite bounds; got "
                f"one of {reader.dim} between {low} and {high}"
            )
        self.tasks: Final = int(high[0]) - int(low[0]) + 1
        self.scale: Final = reader.half_width.item()
        self.shift: Final = reader.center.item() - int(low[0])

    def forward(self, context: Tensor) -> Tensor:
        """Return ids: ``(K, 1) -> (K, 1)``."""
        return (context * self.scale + self.shift).round().clamp(0, self.tasks - 1)
