"""How the features of a context move the weights that a hypernetwork generates."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.export.specialization import refuse_normalized_context
from hyperrl.hypernet import HyperNetwork
from hyperrl.hypernet.heads import LowRankHead
from hyperrl.hypernet.measures import effective_rank
from hyperrl.policies.context import ContextReader, context_extractor
from hyperrl.policies.hyper_config import GeneratedPolicy

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.analysis.actions import Visited


@dataclass(frozen=True)
class LayerEffect:
    """What the context does to one layer.

    :param network: whose layer it is: ``"actor"``, ``"critic"`` …
    :param layer: the place among its layers that are generated, from 1.
    :param weights: how many of its numbers are generated, of weight and bias.
    :param sensitivity: for each feature, the norm of the Jacobian of these numbers, mean over contexts, in units of
        their norm for half a training range of the feature: shape ``(d,)``. Of a feature with choices, the difference
        between the ends in place of the derivative.
    :param rank: effective rank of the weights over contexts: the number of directions in which they vary.
    """

    network: str
    layer: int
    weights: int
    sensitivity: Vector
    rank: float


@dataclass(frozen=True)
class Direction:
    """One direction of a head ``"low_rank"`` in the network that acts: ``W = W₀ + Σ g·u·vᵀ``.

    :param layer: see :class:`LayerEffect`.
    :param direction: its place, from 1.
    :param size: standard deviation of ``g·‖u‖·‖v‖`` over contexts, in units of the mean norm of the layer's weights.
    :param correlation: of g with each feature over contexts, shape ``(d,)``; 0 where either does not vary.
    :param effect: mean difference of the actions, in units of their range, when g is held at its mean.
    """

    layer: int
    direction: int
    size: float
    correlation: Vector
    effect: float


@dataclass(frozen=True)
class WeightMap:
    """The weights of the network that acts, in two dimensions: their principal components over contexts.

    :param contexts: shape ``(m, d)``, physical units, over the bounds.
    :param points: shape ``(m, 2)``.
    :param explained: the share of the variance that each of the two has.
    """

    contexts: Vector
    points: Vector
    explained: tuple[float, float]


@dataclass(frozen=True)
class WeightEffects:
    """What the context does to generated weights.

    :param head: the head that generates them.
    :param layers: of all networks that learn.
    :param rank: effective rank over contexts of all weights of the network that acts.
    :param embedding_rank: that of the embedding.
    :param map: the weights of the network that acts.
    :param directions: of a head ``"low_rank"``, those with the largest effect first.
    """

    head: str
    layers: tuple[LayerEffect, ...]
    rank: float
    embedding_rank: float
    map: WeightMap
    directions: tuple[Direction, ...] = ()


def why_no_weights(model: Any) -> str | None:
    """Say why a model has no generated weights to explain; ``None`` where it has."""
    policy = getattr(model, "policy", None)
    extractor = context_extractor(policy) if isinstance(policy, torch.nn.Module) else None
    if not isinstance(policy, GeneratedPolicy) or extractor is None:
        return f"{type(policy or model).__name__} has the same weights in all contexts: none are generated"
    try:
        refuse_normalized_context(extractor.reader, model.get_vec_normalize_env())
    except ValueError:
        return "VecNormalize normalises the context, so that its weights in physical units are not known"
    return None


def weight_effects(model: BaseAlgorithm, space: ContextSpace, contexts: Vector, visited: Visited) -> WeightEffects:
    """Measure what the context does to generated weights.

    :param model: a model of which :func:`why_no_weights` says nothing.
    :param space: the features.
    :param contexts: of the training range, shape ``(n, d)``, physical units.
    :param visited: states for what directions do to actions.
    """
    policy: Any = model.policy
    reader: ContextReader = context_extractor(policy).reader  # pyright: ignore[reportOptionalMemberAccess]
    networks = hypernetworks(policy)
    acting = next(iter(networks.values()))
    normalized = reader.normalize(torch.as_tensor(contexts, device=reader.center.device))
    with torch.no_grad():
        whole = torch.cat([part.generate(normalized) for part in acting], dim=1)
        embedding = acting[0].encoder(normalized)
    return WeightEffects(
        policy.hyper_config.head,
        tuple(effect for name, parts in networks.items() for effect in _layer_effects(name, parts, normalized, space)),
        effective_rank(whole),
        effective_rank(embedding),
        _map(acting, reader, space, len(contexts)),
        tuple(sorted(_directions(acting, normalized, contexts, visited), key=lambda d: -d.effect)),
    )


def hypernetworks(policy: GeneratedPolicy) -> dict[str, list[HyperNetwork]]:
    """Return the hypernetworks of each network that learns, by its name: that of what acts first."""
    return {
        name: [network] if isinstance(network, HyperNetwork) else network.networks
        for name, network in policy.generated_networks().items()
    }


def generated_layers(parts: list[HyperNetwork], contexts: Tensor) -> list[list[Tensor]]:
    """Return the weight and the bias that are generated for each layer: normalised ``(K, d)`` to ``(K, *)`` each."""
    found: list[list[Tensor]] = []
    for part in parts:
        by_layer: dict[str, list[Tensor]] = {}
        for name, weight in part.head.weights(part.encoder(contexts)).items():
            by_layer.setdefault(name.rpartition(".")[0], []).append(weight)
        found += by_layer.values()
    return found


def _layers(parts: list[HyperNetwork], contexts: Tensor) -> list[Tensor]:
    """Return the generated numbers of each layer, weight and bias: normalised ``(K, d)`` to ``(K, p)`` each."""
    return [torch.cat([w.flatten(1) for w in layer], dim=1) for layer in generated_layers(parts, contexts)]


def _layer_effects(
    network: str, parts: list[HyperNetwork], contexts: Tensor, space: ContextSpace
) -> Iterator[LayerEffect]:
    with torch.no_grad():
        layers = _layers(parts, contexts)
    norms = [layer.norm(dim=1).mean().item() for layer in layers]
    sensitivity = np.zeros((len(layers), len(space)))
    for i, feature in enumerate(space.features):
        if feature.is_choice:
            changes = _between_ends(parts, contexts, i)
        else:
            along = torch.zeros_like(contexts)
            along[:, i] = 1.0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it first loads its rules
                changes = torch.func.jvp(lambda c: tuple(_layers(parts, c)), (contexts,), (along,))[1]
        for j, (change, norm) in enumerate(zip(changes, norms, strict=True)):
            sensitivity[j, i] = change.detach().norm(dim=1).mean().item() / norm if norm > 0 else 0.0
    for j, layer in enumerate(layers):
        yield LayerEffect(network, j + 1, layer.shape[1], sensitivity[j], effective_rank(layer))


@torch.no_grad()
def _between_ends(parts: list[HyperNetwork], contexts: Tensor, i: int) -> list[Tensor]:
    """Return the difference of the weights between the ends of a feature's training range, for half of it."""
    low, high = contexts.clone(), contexts.clone()
    low[:, i], high[:, i] = -1.0, 1.0
    return [(b - a) / 2 for a, b in zip(_layers(parts, low), _layers(parts, high), strict=True)]


@torch.no_grad()
def _map(acting: list[HyperNetwork], reader: ContextReader, space: ContextSpace, n: int) -> WeightMap:
    rng = np.random.default_rng(0)
    inside = space.from_uniform(rng.random((3 * n, len(space))))
    around = space.from_uniform(rng.random((3 * n, len(space))), bounds=True)
    contexts = np.concatenate([around[~space.in_training_range(around)], inside])
    normalized = reader.normalize(torch.as_tensor(contexts, device=reader.center.device))
    theta = torch.cat([part.generate(normalized) for part in acting], dim=1).double()
    centred = theta - theta[-len(inside) :].mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)  # K × K: there may be many weights
    values = values.clamp(min=0).flip(0)
    points = (vectors.flip(1) * values.sqrt())[:, :2]
    points = points * points.gather(0, points.abs().argmax(0, keepdim=True)).sign()  # either sign is as good
    if points.shape[1] < 2:
        points = torch.cat([points, torch.zeros_like(points)], dim=1)
    total = values.sum().item() or 1.0
    explained = [value / total for value in (*values[:2].tolist(), 0.0)]
    return WeightMap(contexts, points.cpu().numpy(), (explained[0], explained[1]))


def _directions(
    acting: list[HyperNetwork], normalized: Tensor, contexts: Vector, visited: Visited
) -> Iterator[Direction]:
    expected = visited.actions(visited.contexts)
    before = 0
    for part in acting:
        head = part.head
        if not isinstance(head, LowRankHead):
            return
        with torch.no_grad():
            z = part.encoder(normalized)
            generated, weights = head.generate(z), head.weights(z)
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in generated))
        for name, place in head.place.items():
            factors = generated[name]  # (K, r)
            u, v = head.u[int(place)].detach(), head.v[int(place)].detach()  # (r, out), (r, in)
            norm = weights[name].flatten(1).norm(dim=1).mean().item()
            sizes = factors.std(dim=0, correction=0) * u.norm(dim=1) * v.norm(dim=1) / (norm or 1.0)
            for k in range(factors.shape[1]):
                with _held(head, name, k, factors[:, k].mean().item()):
                    effect = visited.difference(visited.actions(visited.contexts), expected).mean()
                correlation = _correlation(factors[:, k].double().cpu().numpy(), contexts)
                layer = before + layers.index(name.rpartition(".")[0]) + 1
                yield Direction(layer, k + 1, float(sizes[k]), correlation, float(effect))
        before += len(layers)


@contextmanager
def _held(head: LowRankHead, name: str, direction: int, value: float) -> Iterator[None]:
    """Hold one direction of a head at a value, whatever the context."""
    generate = head.generate

    def held(embedding: Tensor) -> dict[str, Tensor]:
        factors = dict(generate(embedding))
        changed = factors[name].clone()
        changed[:, direction] = value
        return factors | {name: changed}

    head.generate = held
    try:
        yield
    finally:
        del head.generate  # the method of the class again


def _correlation(values: Vector, contexts: Vector) -> Vector:
    """Return the correlation of numbers ``(n,)`` with each feature of contexts ``(n, d)``."""
    centred, features = values - values.mean(), contexts - contexts.mean(axis=0)
    scale = np.linalg.norm(centred) * np.linalg.norm(features, axis=0)
    is_constant = (np.linalg.norm(centred) <= 1e-6 * np.linalg.norm(values)) | (scale == 0)
    return np.where(is_constant, 0.0, centred @ features / np.where(is_constant, 1.0, scale))
