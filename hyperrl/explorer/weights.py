"""The weights that a hypernetwork generates in one context, as their difference to those of the default context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from hyperrl.analysis.weights import generated_layers, hypernetworks
from hyperrl.export.specialization import refuse_normalized_context
from hyperrl.inference import InferringAgent
from hyperrl.policies import GeneratedPolicy
from hyperrl.policies.context import context_extractor
from hyperrl.rollouts.agent import Predictor, has_memory

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.contexts import ContextSpace

SAMPLE: Final = 64
"""Contexts over which the largest difference is measured."""
QUANTILE: Final = 0.99


class Layer(NamedTuple):
    """Differences of one layer's weights."""

    name: str
    shape: str
    """How many numbers go in and come out."""
    difference: NDArray[np.float32]
    """Outputs by inputs, with a column for the bias behind them: ``(out, in + 1)``."""
    scale: float
    """A large difference over the bounds: the end of the colours."""


@final
class WeightMap:
    """Differences of the weights of the network that acts, layer by layer, in any context.

    :param model: a model whose hypernetwork reads the context; see :meth:`of`.
    :param space: the features.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("pendulum")
    >>> model = PPO(HyperPolicy, family.vec_env(2), device="cpu")
    >>> weights = WeightMap(model, family.context_space)
    >>> [(layer.shape, layer.difference.shape) for layer in weights.layers(family.context_space.default)]
    [('3 → 64', (64, 4)), ('64 → 64', (64, 65)), ('64 → 1', (1, 65))]
    """

    def __init__(self, model: BaseAlgorithm, space: ContextSpace) -> None:
        self._networks = next(iter(hypernetworks(model.policy).values()))  # pyright: ignore[reportArgumentType]
        self._reader = context_extractor(model.policy).reader  # pyright: ignore[reportOptionalMemberAccess]
        self._default = self._generate(space.default[None])
        rng = np.random.default_rng(0)
        sample = self._generate(space.from_uniform(rng.random((SAMPLE, len(space))), bounds=True))
        self._scales = [
            float(np.quantile(np.abs(weights - default), QUANTILE))
            for weights, default in zip(sample, self._default, strict=True)
        ]

    @classmethod
    def of(cls, agent: BaseAlgorithm | Predictor, space: ContextSpace) -> WeightMap | str:
        """Return the map of an agent, or why there is none."""
        model: Any = agent.model if isinstance(agent, InferringAgent) else agent
        policy = getattr(model, "policy", None)
        if has_memory(model):
            return "The agent acts on what it remembers, not on the sliders."
        extractor = context_extractor(policy) if isinstance(policy, nn.Module) else None
        if not isinstance(policy, GeneratedPolicy) or extractor is None:
            if extractor is not None and extractor.include_context:
                return "One network for all contexts; the context is one of its inputs."
            return "One network for all contexts, which it is not told."
        try:
            refuse_normalized_context(extractor.reader, model.get_vec_normalize_env())
        except ValueError:
            return "VecNormalize normalises the context, so the weights of one in physical units are not known."
        return cls(model, space)

    def layers(self, context: ArrayLike) -> list[Layer]:
        """Return the differences in a context, physical units, shape ``(d,)``."""
        weights = self._generate(np.asarray(context, dtype=np.float64)[None])
        return [
            Layer(f"layer {i}", f"{w.shape[2] - 1} → {w.shape[1]}", (w - default)[0], scale)
            for i, (w, default, scale) in enumerate(zip(weights, self._default, self._scales, strict=True), 1)
        ]

    @torch.no_grad()
    def _generate(self, contexts: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """Return each layer's weights with a column for the bias: ``(K, d)`` to arrays ``(K, out, in + 1)``."""
        found: list[NDArray[np.float32]] = []
        normalized = self._reader.normalize(torch.as_tensor(contexts, device=self._reader.center.device))
        for layer in generated_layers(self._networks, normalized):
            columns = [w.flatten(2) if w.ndim > 2 else w.unsqueeze(2) for w in layer]  # (K, out, in) or (K, out, 1)
            found.append(torch.cat(columns, dim=2).float().cpu().numpy())
        return found
