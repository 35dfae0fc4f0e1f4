"""Heads: maps from the embedding of a context to the weights of the target network.

Every head starts from the target's ordinary initialisation θ₀. The generated part is zero at first and is added to θ₀
(bias-HyperInit, Beck et al. 2022).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn import functional

from hyperrl.hypernet.grouping import Groups
from hyperrl.hypernet.targets import apply, is_perceptron, layers

Shapes = Mapping[str, torch.Size]


class Head(nn.Module, ABC):
    """The interface of all heads. Their constructors are ``Head(target, names, embedding_dim, **options)``.

    :param target: the network whose weights are generated; it becomes part of the head, as ``base``.
    :param names: the names of the parameters to generate; the others are common to all contexts.
    """

    def __init__(self, target: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        self.base = target
        self.shapes: Final[Shapes] = {name: p.shape for name, p in target.named_parameters() if name in names}

    def forward(self, embedding: Tensor, index: Tensor, x: Tensor) -> Tensor:
        """Apply the network of each row's context: ``(K, h), (B,), (B, *n) -> (B, *m)``."""
        return self.apply_generated(self.generate(embedding), index, x)

    def generate(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return what :meth:`apply_generated` needs for each embedding: ``(K, h) -> {name: (K, *)}``."""
        return self.weights(embedding)

    def apply_generated(
        self, generated: Mapping[str, Tensor], index: Tensor, x: Tensor, groups: Callable[[], Groups] | None = None
    ) -> Tensor:
        """Compute :meth:`forward` from the result of :meth:`generate`: ``(B,), (B, *n) -> (B, *m)``.

        :param groups: gives the groups of ``index``, where they are made already; a head may do without them.
        """
        return apply(self.base, generated, index, x, groups and groups())

    @abstractmethod
    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the generated parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""

    @staticmethod
    @abstractmethod
    def parameter_count(shapes: Shapes, embedding_dim: int) -> int:
        """Return how many parameters the head has besides the target's own.

        :param shapes: shapes of the generated parameters.
        :param embedding_dim: length h of the embedding.
        """

    def initialise(self, init: str, embedding: Tensor) -> None:
        """Initialise by another scheme than bias-HyperInit; see :class:`~hyperrl.hypernet.HyperNetwork`.

        :param init: ``"hyperfan_in"``, ``"hyperfan_out"`` or ``"naive"``.
        :param embedding: embeddings of a sample of contexts, shape ``(N, h)``.
        :raises ValueError: if the head does not generate whole weights.
        """
        raise ValueError(
            f"init={init!r} is for heads that generate whole weights, 'full' and 'chunked'; "
            f"{type(self).__name__} moves the target's own: leave init='bias'"
        )

    def _base(self) -> dict[str, Tensor]:
        """Return θ₀, the target's own tensors by name: parameters, or buffers if the base is not learnt."""
        return dict(self.base.named_parameters()) | dict(self.base.named_buffers())


@final
class FullHead(Head):
    """All weights generated: ``θ = θ₀ + H·z/√h`` (Ha et al. 2016).

    With P generated weights, H has ``h·P`` parameters, more than any other head. Adam changes each entry of H by about
    the learning rate η, and so a weight by up to ``η·Σ|z|``. For the 64 outputs of the default encoder this is 11η,
    while a weight that is learnt directly changes by η; PPO would leave its trust region after a few minibatches. With
    the division by √h, as in the neural tangent parametrisation (Jacot et al. 2018), it is 1.3η.
    """

    def __init__(self, target: nn.Module, names: Collection[str], embedding_dim: int) -> None:
        super().__init__(target, names)
        self.generator = nn.Linear(embedding_dim, self.parameter_count(self.shapes, 1), bias=False)
        nn.init.zeros_(self.generator.weight)
        self.scale = embedding_dim**-0.5

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the generated parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        base, embedding = self._base(), embedding * self.scale
        rows = self.generator.weight.split([shape.numel() for shape in self.shapes.values()])  # of (numel, h)
        result = {}
        for (name, shape), h in zip(self.shapes.items(), rows, strict=True):
            part = functional.linear(embedding, h, _flatten(base[name]))  # (K, numel)
            result[name] = _unflatten(part.to(base[name].dtype), shape)  # autocast would make it bfloat16
        return result

    @staticmethod
    def parameter_count(shapes: Shapes, embedding_dim: int) -> int:
        """Return ``h·P``."""
        return embedding_dim * sum(shape.numel() for shape in shapes.values())

    def initialise(self, init: str, embedding: Tensor) -> None:
        """Set H and θ₀. Hyperfan sets θ₀ = 0, so that the weights come from z alone."""
        self.scale = 1.0  # these initialisations set the size of H itself
        if init == "naive":
            _initialise_naively(self.generator, self)
            return
        scale = _hyperfan(init, self.base, self.shapes)
        second_moment = embedding.square().mean().item()  # of z; Var(z) in the paper, where z has mean zero
        for name, rows in _split(self.generator.weight.mT, self.shapes).items():  # (h, numel), views
            nn.init.normal_(rows, std=scale[name] / math.sqrt(embedding.shape[1] * second_moment))
            nn.init.zeros_(self.base.get_parameter(name))


@final
class ChunkedHead(Head):
    """Weights generated in chunks by one shared generator: ``θ_j = θ₀_j + H·tanh(A·z + e_j)`` (von Oswald et al. 2020).

    The flat vector of P weights is cut into ``n = ⌈P/s⌉`` chunks of s weights. Each chunk has a learnt embedding
    ``e_j``. This equals ``h([z; e_j])`` for a network h with one hidden layer; the part of its first matrix that acts
    on ``e_j`` is folded into ``e_j``. Parameters: ``n·e`` for the embeddings, ``(h + 1)·e`` for A and its bias, ``e·s``
    for H. Without a learnt base (``HyperNetwork(base=False)``) their number can be a fraction of P.

    :param chunk_size: weights of a chunk, s.
    :param chunk_embedding: length e of a chunk's embedding.
    """

    def __init__(
        self,
        target: nn.Module,
        names: Collection[str],
        embedding_dim: int,
        *,
        chunk_size: int = 512,
        chunk_embedding: int = 16,
    ) -> None:
        super().__init__(target, names)
        size = sum(shape.numel() for shape in self.shapes.values())
        self.chunks = nn.Parameter(torch.randn(-(size // -chunk_size), chunk_embedding))  # (n, e)
        self.hidden = nn.Linear(embedding_dim, chunk_embedding)
        self.generator = nn.Linear(chunk_embedding, chunk_size, bias=False)
        nn.init.zeros_(self.generator.weight)
        # A chunk may span layers of different width, so hyperfan's variances are constants outside the generator.
        self.scale: dict[str, float] = dict.fromkeys(self.shapes, 1.0)

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the generated parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        base = self._base()
        flat = self.generator(self._features(embedding)).flatten(1)  # (K, n, s) -> (K, n·s)
        # Add before reshaping: the gradient of θ₀ is a sum over contexts, which is fast in this layout only.
        return {
            name: _unflatten(torch.add(_flatten(base[name]), part, alpha=self.scale[name]), self.shapes[name])
            for name, part in _split(flat, self.shapes).items()
        }

    @staticmethod
    def parameter_count(shapes: Shapes, embedding_dim: int, *, chunk_size: int = 512, chunk_embedding: int = 16) -> int:
        """Return ``n·e + (h + 1)·e + e·s``."""
        chunks = -(sum(shape.numel() for shape in shapes.values()) // -chunk_size)
        return chunk_embedding * (chunks + embedding_dim + 1 + chunk_size)

    def initialise(self, init: str, embedding: Tensor) -> None:
        """Set H and θ₀. Hyperfan sets θ₀ = 0 and gives H outputs of variance one, scaled layer by layer."""
        if init == "naive":
            _initialise_naively(self.generator, self)
            return
        self.scale = _hyperfan(init, self.base, self.shapes)
        features = self._features(embedding)  # (N, n, e)
        nn.init.normal_(self.generator.weight, std=1 / math.sqrt(features.square().sum(-1).mean().item()))
        for name in self.shapes:
            nn.init.zeros_(self.base.get_parameter(name))

    def _features(self, embedding: Tensor) -> Tensor:
        return torch.tanh(self.hidden(embedding).unsqueeze(1) + self.chunks)  # (K, h) -> (K, n, e)


class FactoredHead(Head):
    """Weights changed by a few generated factors: the base of the low-rank and the modulated head.

    Matrices have factors; to vectors a generated one is added, ``b = b₀ + β(z)``. A parameter of three or more
    dimensions, such as a convolution's, is treated as the matrix ``(shape[0], rest)``. A row of a batch needs the
    factors of its context only, not a weight matrix of its own, so the cost hardly depends on the number of contexts.
    All that is generated is linear in z/√h, for the reason that :class:`FullHead` gives.

    :param embedding_dim: length h of the embedding z.
    :param factors: number of factors of a matrix, as a function of its numbers of rows and columns.
    """

    _version = 2  # of the state dict; in version 1 all that was generated was linear in z itself

    def __init__(
        self, target: nn.Module, names: Collection[str], embedding_dim: int, factors: Callable[[int, int], int]
    ) -> None:
        super().__init__(target, names)
        self.matrices: Final = _matrices(self.shapes)
        # A ParameterList keeps its entries as attributes with these names. Attributes are faster than indices.
        self.place: Final = {name: str(i) for i, name in enumerate(self.matrices)}
        self.sizes: Final = {
            name: factors(*self.matrices[name]) if name in self.matrices else shape.numel()
            for name, shape in self.shapes.items()
        }
        self.generator = nn.Linear(embedding_dim, sum(self.sizes.values()), bias=False)
        nn.init.zeros_(self.generator.weight)
        self.scale = embedding_dim**-0.5
        self.register_load_state_dict_pre_hook(_convert_from_version_1)

    def generate(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the factors of each parameter for each embedding: ``(K, h) -> {name: (K, size)}``."""
        parts = self.generator(embedding * self.scale).split(list(self.sizes.values()), dim=1)
        return dict(zip(self.sizes, parts, strict=True))

    def apply_generated(
        self, generated: Mapping[str, Tensor], index: Tensor, x: Tensor, groups: Callable[[], Groups] | None = None
    ) -> Tensor:
        """Apply the network of each row's context, given its factors: ``(B,), (B, *n) -> (B, *m)``."""
        if not is_perceptron(self.base) or x.ndim != 2:
            return super().apply_generated(self._move(generated), index, x, groups)
        for name, layer in layers(self.base):  # pyright: ignore[reportArgumentType]
            if not isinstance(layer, nn.Linear):
                x = layer(x)
                continue
            weight, bias = generated.get(f"{name}.weight"), generated.get(f"{name}.bias")
            if bias is None:
                y = layer(x)  # (B, in) -> (B, out)
            else:
                y = _accumulate((layer.bias + bias).index_select(0, index), x, layer.weight.t())
            if weight is not None:
                y = self._add_product(f"{name}.weight", weight.index_select(0, index), x, y)
            x = y
        return x

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the generated parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        return self._move(self.generate(embedding))

    @abstractmethod
    def _add_product(self, name: str, factor: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Add to y the product of each row with the matrix that its factors make.

        Shapes are ``(B, size), (B, in), (B, out) -> (B, out)``.
        """

    @abstractmethod
    def _matrix(self, name: str, factor: Tensor) -> Tensor:
        """Return the matrix that the factors make: ``(K, size) -> (K, out, in)``."""

    def _move(self, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn factors into parameters: ``{name: (K, size)} -> {name: (K, *shape)}``."""
        base = self._base()
        result = {}
        for name, factor in factors.items():
            shape = self.shapes[name]
            moved = factor if len(shape) < 2 else self._matrix(name, factor)
            result[name] = base[name] + moved.view(factor.shape[0], *shape)
        return result


@final
class LowRankHead(FactoredHead):
    """Weights changed along few directions: ``W = W₀ + U·diag(g(z))·Vᵀ``, ``b = b₀ + β(z)``.

    g and β are linear in z/√h; U and V do not depend on the context. The shape is that of LoRA (Hu et al. 2021) with a
    generated diagonal. Parameters: ``r·(out + in)`` a matrix for U and V, ``h·r`` for g, ``h`` a bias for β.

    :param rank: the number of directions r in each matrix.
    """

    def __init__(self, target: nn.Module, names: Collection[str], embedding_dim: int, *, rank: int = 8) -> None:
        super().__init__(target, names, embedding_dim, lambda rows, columns: rank)
        sizes = self.matrices.values()
        # The scale of U and V makes U·diag(g)·Vᵀ as large as an ordinary W₀ if g is of order one. They are stored
        # transposed, (r, out) and (r, in): products with such narrow matrices are then up to four times as fast.
        self.u = nn.ParameterList(torch.randn(rank, rows) * rank**-0.5 for rows, _ in sizes)
        self.v = nn.ParameterList(torch.randn(rank, columns) * columns**-0.5 for _, columns in sizes)

    @staticmethod
    def parameter_count(shapes: Shapes, embedding_dim: int, *, rank: int = 8) -> int:
        """Return ``Σ r·(out + in + h)`` over matrices ``+ Σ h·out`` over vectors."""
        matrices = sum(rank * (rows + columns + embedding_dim) for rows, columns in _matrices(shapes).values())
        return matrices + embedding_dim * _vector_size(shapes)

    def _add_product(self, name: str, factor: Tensor, x: Tensor, y: Tensor) -> Tensor:
        u, v = getattr(self.u, self.place[name]), getattr(self.v, self.place[name])
        return _accumulate(y, x @ v.t() * factor, u)  # (B, in) -> (B, r) -> (B, out)

    def _matrix(self, name: str, factor: Tensor) -> Tensor:
        u, v = getattr(self.u, self.place[name]), getattr(self.v, self.place[name])
        return torch.einsum("ro,kr,ri->koi", u, factor, v)


@final
class ModulatedHead(FactoredHead):
    """Weights adjusted element by element: ``W = W₀ + W₁ ⊙ h(c)``, ``b = b₀ + β(z)``, with W₁ learnt.

    An h(c) with an entry for each weight would be as large as full generation. Here it has rank one,
    ``h(c) = a(z)·(1 + b(z))ᵀ`` with a and b linear in z/√h, so ``(W₁ ⊙ h(c))·x = a ⊙ W₁·((1 + b) ⊙ x)`` costs as much
    as the target. Parameters: ``out·in`` a matrix for W₁, ``h·(out + in)`` for a and b, ``h`` a bias for β.
    """

    def __init__(self, target: nn.Module, names: Collection[str], embedding_dim: int) -> None:
        super().__init__(target, names, embedding_dim, lambda rows, columns: rows + columns)
        # W₁ has the scale of an ordinary W₀.
        self.w1 = nn.ParameterList(torch.randn(size) * size[1] ** -0.5 for size in self.matrices.values())

    @staticmethod
    def parameter_count(shapes: Shapes, embedding_dim: int) -> int:
        """Return ``Σ (out·in + h·(out + in))`` over matrices ``+ Σ h·out`` over vectors."""
        sizes = _matrices(shapes).values()
        matrices = sum(rows * columns + embedding_dim * (rows + columns) for rows, columns in sizes)
        return matrices + embedding_dim * _vector_size(shapes)

    def _add_product(self, name: str, factor: Tensor, x: Tensor, y: Tensor) -> Tensor:
        w1 = getattr(self.w1, self.place[name])  # (out, in)
        a, b = factor.split(list(w1.shape), dim=1)  # (B, out), (B, in)
        return torch.addcmul(y, a, torch.addcmul(x, b, x) @ w1.t())

    def _matrix(self, name: str, factor: Tensor) -> Tensor:
        w1 = getattr(self.w1, self.place[name])
        a, b = factor.split(list(w1.shape), dim=1)
        return w1 * (a.unsqueeze(2) * (1 + b).unsqueeze(1))


@final
class AdapterHead(Head):
    """A generated bottleneck before the output layer, ``y = x + W₂·ReLU(W₁·x + b₁) + b₂`` (Decision Adapter).

    It follows Beukman et al. (2023) in place, residual connection, bottleneck and generated biases. The target's own
    weights are common to all contexts. It differs in two points. Their second ReLU, around the bottleneck's output, is
    left out: all contexts start with ``W₂ = 0``, where its gradient is zero, so nothing would be learnt. The weights
    are generated as by :class:`FullHead`, not in chunks. Parameters, for n inputs of the output layer and a bottleneck
    of b: ``(2·n·b + n + b)·(1 + h)``.

    :param bottleneck: width b.
    :raises ValueError: if the target is not an ``nn.Sequential`` that ends in an ``nn.Linear``, or if ``names`` leaves
        some parameter out; the adapter generates none of them.
    """

    def __init__(self, target: nn.Module, names: Collection[str], embedding_dim: int, *, bottleneck: int = 32) -> None:
        super().__init__(target, names)
        output = target[-1] if isinstance(target, nn.Sequential) and len(target) else None
        if not isinstance(output, nn.Linear):
            raise ValueError(
                "head='adapter' needs as target an nn.Sequential that ends in an nn.Linear, before which the adapter "
                f"goes; got {type(target).__name__}"
            )
        if len(self.shapes) < len(list(target.parameters())):
            raise ValueError("head='adapter' generates none of the target's parameters: leave generated='*'")
        n = output.in_features
        down, up = nn.Linear(n, bottleneck), nn.Linear(bottleneck, n)
        for parameter in up.parameters():
            nn.init.zeros_(parameter)
        adapter = nn.Sequential(down, nn.ReLU(), up)
        self.adapter = FullHead(adapter, [name for name, _ in adapter.named_parameters()], embedding_dim)

    def generate(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the adapter's parameters for each embedding: ``(K, h) -> {name: (K, *shape)}``."""
        return self.adapter.generate(embedding)

    def apply_generated(
        self, generated: Mapping[str, Tensor], index: Tensor, x: Tensor, groups: Callable[[], Groups] | None = None
    ) -> Tensor:
        """Apply the network of each row's context, given its adapter: ``(B,), (B, *n) -> (B, *m)``."""
        trunk, output = self.base[:-1], self.base[-1]  # pyright: ignore[reportIndexIssue]
        features = trunk(x)
        return output(features + self.adapter.apply_generated(generated, index, features, groups))

    def weights(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the adapter's parameters, ``"adapter.0.weight"`` to ``"adapter.2.bias"``, for each embedding."""
        return {f"adapter.{name}": weight for name, weight in self.adapter.weights(embedding).items()}

    @staticmethod
    def parameter_count(shapes: Shapes, embedding_dim: int, *, bottleneck: int = 32) -> int:
        """Return ``(2·n·b + n + b)·(1 + h)``, n being the inputs of the last matrix."""
        _, n = list(_matrices(shapes).values())[-1]
        return (2 * n * bottleneck + n + bottleneck) * (1 + embedding_dim)


HEADS: Final[dict[str, type[Head]]] = {
    "low_rank": LowRankHead,
    "full": FullHead,
    "chunked": ChunkedHead,
    "modulated": ModulatedHead,
    "adapter": AdapterHead,
}


def _convert_from_version_1(
    head: FactoredHead, state: dict[str, Tensor], prefix: str, metadata: Mapping[str, Any], *_: object
) -> None:
    """Make a state dict of version 1 one of version 2."""
    name = f"{prefix}generator.weight"
    if metadata.get("version") == 1 and name in state:
        state[name] = state[name] / head.scale


def _split(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Cut rows of numbers into one part for each parameter, without the rest: ``(K, ≥P) -> {name: (K, numel)}``."""
    sizes = [shape.numel() for shape in shapes.values()]
    parts = flat.split([*sizes, flat.shape[1] - sum(sizes)], dim=1)
    return dict(zip(shapes, parts[:-1], strict=True))


def _accumulate(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return ``y + a·b`` and overwrite y, ``(B, out), (B, n), (n, out)``; otherwise y would be copied first."""
    # Autocast does not choose dtypes for operations in place, and vmap computes this one in a loop.
    if torch.is_autocast_enabled(y.device.type) or is_batchedtensor(y):
        return torch.addmm(y, a, b)
    return y.addmm_(a, b)


def _flatten(parameter: Tensor) -> Tensor:
    """Flatten a parameter in the layout of :func:`_unflatten`: ``(*shape) -> (numel,)``."""
    return (parameter.t() if parameter.ndim == 2 else parameter).flatten()


def _unflatten(flat: Tensor, shape: torch.Size) -> Tensor:
    """Give rows of numbers the shape of a parameter: ``(K, numel) -> (K, *shape)``.

    Matrices are stored transposed: then neither ``bmm`` by a transposed weight nor its gradient needs a copy.
    """
    if len(shape) == 2:
        return flat.view(flat.shape[0], shape[1], shape[0]).transpose(1, 2)
    return flat.view(flat.shape[0], *shape)


def _matrices(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Return rows and columns of the parameters of two and more dimensions."""
    return {name: (shape[0], shape[1:].numel()) for name, shape in shapes.items() if len(shape) > 1}


def _vector_size(shapes: Shapes) -> int:
    """Count the entries of the parameters of less than two dimensions."""
    return sum(shape.numel() for shape in shapes.values() if len(shape) < 2)


def _hyperfan(init: str, target: nn.Module, shapes: Shapes) -> dict[str, float]:
    """Return the standard deviation of each generated parameter (Chang et al. 2020, table 1).

    With c = 2 for a target with ReLU, else 1: hyperfan-in gives a weight c/(k·fan_in), k = 2 where the bias is
    generated too, and a bias c/2; hyperfan-out gives a weight c/fan_out and a bias max(0, c·(1 − fan_in/fan_out)).
    """
    c = 2.0 if any(isinstance(module, nn.ReLU) for module in target.modules()) else 1.0
    all_shapes = {name: p.shape for name, p in target.named_parameters()}
    result = {}
    for name in shapes:
        layer = name.rpartition(".")[0]
        weight = all_shapes.get(f"{layer}.weight" if layer else "weight", torch.Size())
        if len(weight) < 2:
            raise ValueError(f"init={init!r} is for linear and convolutional layers; it does not say what {name!r} is")
        fan_in, fan_out = weight[1:].numel(), weight[0] * weight[2:].numel()
        is_bias = name.rpartition(".")[2] == "bias"
        if init == "hyperfan_in":
            k = 2 if f"{layer}.bias" in shapes else 1
            variance = c / 2 if is_bias else c / (k * fan_in)
        else:
            variance = max(0.0, c * (1 - fan_in / fan_out)) if is_bias else c / fan_out
        result[name] = math.sqrt(variance)
    return result


def _initialise_naively(generator: nn.Linear, head: Head) -> None:
    """Initialise as an ordinary output layer with θ₀ as its bias."""
    generator.reset_parameters()
    for name in head.shapes:
        nn.init.uniform_(head.base.get_parameter(name), -(generator.in_features**-0.5), generator.in_features**-0.5)
