"""The hypernetwork: an encoder, a head, and a target network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import Tensor, nn

from hyperrl.hypernet.encoders import mlp
from hyperrl.hypernet.grouping import distinct
from hyperrl.hypernet.heads import HEADS, AdapterHead, Head
from hyperrl.hypernet.measures import diagnostics
from hyperrl.utils.errors import nearest

INITS: Final = ("bias", "hyperfan_in", "hyperfan_out", "naive")


class HyperNetwork(nn.Module):
    """A network whose weights depend on a context. The weights are generated once per distinct context.

    The encoder maps a context ``c`` of shape ``(d,)`` to an embedding ``z = encoder(c)``, and the head maps ``z`` to
    the weights of the target. At initialisation every context has the target's own weights (bias-HyperInit, Beck et al.
    2022). A batch of B rows holds K ≤ B distinct contexts; outputs and gradients equal those of B separate networks.

    :param context_dim: the number of features d. Contexts should be of order one: normalise them.
    :param target: any module that takes rows ``(B, *n)`` and returns rows ``(B, *m)``, each independently of the
        others. An ``nn.Sequential`` of ``nn.Linear`` and layers without parameters is fastest. The target becomes part
        of this module; its weights are common to all contexts.
    :param head: how weights are generated, one of :data:`~hyperrl.hypernet.HEADS`.
    :param embedding: widths of the encoder's layers; the last one is the length h of z.
    :param activation: activation of the encoder.
    :param encoder: your own encoder, ``(K, d) -> (K, h)``, instead of ``embedding`` and ``activation``; see
        :mod:`hyperrl.hypernet.encoders`. Several hypernetworks may share one encoder.
    :param init: ``"bias"``: every context starts from the target's initialisation. ``"hyperfan_in"``,
        ``"hyperfan_out"`` (Chang et al. 2020): weights generated from z alone have the variance of an ordinary
        initialisation. ``"naive"``: the generator is initialised like any linear layer, which distorts the target's
        activations. All but the first are for the heads ``"full"`` and ``"chunked"``.
    :param generated: pattern (:mod:`fnmatch`) of the names of the parameters to generate, or several patterns. All
        other parameters are learnt once for all contexts.
    :param base: learn the target's own weights θ₀ too. If false, weights are generated from z alone, and θ₀ = 0 is
        neither learnt nor stored; with ``head="chunked"`` there are then fewer parameters than the target has. This
        needs another ``init`` than ``"bias"``, which would start all weights at zero.
    :param sample: contexts ``(N, d)`` on which hyperfan measures the size of z, by default uniform in [-1, 1]. Give the
        ids if contexts are task ids.
    :param options: of the head: ``rank`` (low_rank), ``chunk_size`` and ``chunk_embedding`` (chunked), ``bottleneck``
        (adapter).
    :raises ValueError: for invalid arguments, with the valid ones.

    ``encoder`` and ``head`` may be called separately: ``z = hyper.encoder(unique)``, ``y = hyper.head(z, index, x)``.

    >>> target = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> hyper = HyperNetwork(context_dim=4, target=target)
    >>> hyper(torch.randn(32, 4), torch.randn(32, 3)).shape
    torch.Size([32, 2])
    >>> list(hyper.weights(torch.randn(4)))
    ['0.weight', '0.bias', '2.weight', '2.bias']

    A generator of 15,840 parameters for a network of 67,586 weights:

    >>> small = HyperNetwork(4, mlp([4, 256, 256, 2], nn.ReLU), head="chunked", init="hyperfan_in", base=False)
    >>> sum(p.numel() for p in small.parameters()), sum(w.numel() for w in small.weights(torch.randn(4)).values())
    (15840, 67586)
    """

    def __init__(
        self,
        context_dim: int,
        target: nn.Module,
        head: str = "low_rank",
        *,
        embedding: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] = nn.Tanh,
        encoder: nn.Module | None = None,
        init: str = "bias",
        generated: str | Sequence[str] = "*",
        base: bool = True,
        sample: Tensor | None = None,
        **options: int,
    ) -> None:
        super().__init__()
        _check(head, init, base, embedding, options)
        if sample is not None and sample.shape[1:] != (context_dim,):
            raise ValueError(f"expected a sample of contexts of shape (N, {context_dim}), got {tuple(sample.shape)}")
        names = _select(target, generated)
        self.encoder = mlp([context_dim, *embedding], activation, activation()) if encoder is None else encoder
        parameter = next(self.encoder.parameters(), torch.empty(0))
        with torch.no_grad():
            h = self.encoder(parameter.new_zeros(1, context_dim)).shape[1]
            self.head: Head = HEADS[head](target, names, h, **options)  # pyright: ignore[reportCallIssue]
            if init != "bias":
                sample = 2 * torch.rand(1024, context_dim) - 1 if sample is None else sample
                self.head.initialise(init, self.encoder(sample.to(parameter)))
        self._state_names: Final = tuple(target.state_dict())
        if not base:
            _remove_base(target, names)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Apply to each row the network of its context: ``(B, d), (B, *n) -> (B, *m)``."""
        unique, index = distinct(context)
        return self.head(self.encoder(unique), index, x)

    def weights(self, context: Tensor) -> dict[str, Tensor]:
        """Return one context's network as a complete state dict of the target.

        :param context: shape ``(d,)``.
        :return: ``{name: tensor}`` for ``target.load_state_dict``. Parameters that are not generated, and buffers,
            are the target's own.
        :raises ValueError: for the adapter head, which adds a layer: no weights of the target alone do the same.
        """
        if isinstance(self.head, AdapterHead):
            raise ValueError(
                "head='adapter' adds a layer to the target, so no weights of the target alone are the network of a "
                "context; head.weights gives the adapter's parameters"
            )
        own = dict(self.head.base.named_parameters()) | dict(self.head.base.named_buffers())
        batched = self.head.weights(self.encoder(context.unsqueeze(0)))
        generated = {name: tensor.squeeze(0) for name, tensor in batched.items()}
        return {name: generated[name] if name in generated else own[name] for name in self._state_names}

    def generate(self, contexts: Tensor) -> Tensor:
        """Return all generated weights as one row for each context: ``(K, d) -> (K, P)``."""
        return torch.cat([w.flatten(1) for w in self.head.weights(self.encoder(contexts)).values()], dim=1)

    def base_parameters(self) -> list[nn.Parameter]:
        """Return the target's own parameters: θ₀, and those that are not generated."""
        return list(self.head.base.parameters())

    def hyper_parameters(self) -> list[nn.Parameter]:
        """Return all other parameters: the encoder's and the head's; see :mod:`hyperrl.hypernet.schedules`."""
        base = {id(parameter) for parameter in self.base_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in base]

    @torch.no_grad()
    def diagnostics(self, contexts: Tensor) -> dict[str, float]:
        """Measure how the weights depend on the context, see :func:`hyperrl.hypernet.measures.diagnostics`.

        :param contexts: shape ``(K, d)``.
        """
        return diagnostics(self.encoder(contexts), self.generate(contexts))


def _check(head: str, init: str, base: bool, embedding: Sequence[int], options: dict[str, int]) -> None:
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}: the heads are {list(HEADS)}.{nearest(head, HEADS)}")
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}: the initialisations are {list(INITS)}.{nearest(init, INITS)}")
    if not base and init == "bias":
        raise ValueError("base=False with init='bias' starts with all weights zero: give another init")
    if not embedding or min(embedding) < 1:
        raise ValueError(f"expected widths ≥ 1, got embedding={list(embedding)}")
    parameters = inspect.signature(HEADS[head]).parameters.values()
    valid = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in valid:
            raise ValueError(f"head {head!r} has no option {name!r}: its options are {valid}.{nearest(name, valid)}")
        if value < 1:
            raise ValueError(f"expected {name} ≥ 1, got {name}={value}")


def _select(target: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """Return the names of the parameters to generate."""
    names = [name for name, _ in target.named_parameters()]
    tied = [name for name, _ in target.named_parameters(remove_duplicate=False) if name not in names]
    if tied:
        raise ValueError(f"the target uses parameters twice, which is not supported: {tied} are tied to others")
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"generated={pattern!r} matches no parameter of the target: they are {names}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _remove_base(target: nn.Module, names: Sequence[str]) -> None:
    """Replace parameters by zeros that are neither learnt nor stored: expanded buffers of one number each."""
    for path in names:
        layer, _, name = path.rpartition(".")
        module = target.get_submodule(layer)
        parameter = getattr(module, name)
        delattr(module, name)
        module.register_buffer(name, parameter.new_zeros(()).expand(parameter.shape), persistent=False)
