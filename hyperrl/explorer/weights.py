"""The weights that a hypernetwork generates at the moment, as their difference to those that are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hyperrl.alignment.acting import find_aligned
from hyperrl.analysis.weights import generated_layers, hypernetworks
from hyperrl.export.specialization import refuse_normalized_context
from hyperrl.hypernet import HyperNetwork
from hyperrl.inference import InferringAgent
from hyperrl.policies import GeneratedPolicy, HyperRecurrentPolicy
from hyperrl.policies.context import context_extractor
from hyperrl.rollouts.agent import Predictor

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.contexts import ContextSpace, Vector
    from hyperrl.explorer.session import Lane

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
    """A large difference, over the bounds of the context or of those shown so far: the end of the colours."""


@final
class WeightMap:
    """Differences of the weights of the network that acts, layer by layer.

    Where the hypernetwork reads the context, they are to the weights of the default context. Where it reads what the
    agent remembers, a recurrent network's memory or an embedding of the last transitions, they are to the weights with
    which an episode begins, when nothing is remembered.

    :param model: a model with a hypernetwork; see :meth:`of`.
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
        policy: Any = model.policy
        aligned = find_aligned(model)
        self._remembered: Callable[[Any], Vector] | None = None
        """What the hypernetwork reads of an agent's memory, ``(m,)``; ``None`` where it reads the context."""
        if isinstance(policy, HyperRecurrentPolicy):
            self._networks: list[HyperNetwork] = [policy.actor_network]
            self._normalize: Callable[[Tensor], Tensor] = Tensor.float
            self._remembered = lambda memory: memory[0][-1, 0]  # of the hidden states (layers, n, h)
            beginning = np.zeros(policy.lstm_output_dim)
        else:
            self._networks = next(iter(hypernetworks(policy).values()))
            self._normalize = context_extractor(policy).reader.normalize  # pyright: ignore[reportOptionalMemberAccess]
            beginning = space.default
            if aligned is not None:
                self._remembered = lambda memory: aligned.embed(memory.history)[0]
                beginning = aligned.embed(aligned.no_history(1))[0]
        self._device = policy.device
        self._beginning = beginning
        self._first = self._generate(beginning[None])
        self._scales = [0.0 for _ in self._first]
        if self._remembered is None:
            rng = np.random.default_rng(0)
            sample = self._generate(space.from_uniform(rng.random((SAMPLE, len(space))), bounds=True))
            self._scales = [_large(weights - first) for weights, first in zip(sample, self._first, strict=True)]

    @classmethod
    def of(cls, agent: BaseAlgorithm | Predictor, space: ContextSpace) -> WeightMap | str:
        """Return the map of an agent, or why there is none."""
        model: Any = agent.model if isinstance(agent, InferringAgent) else agent
        policy = getattr(model, "policy", None)
        if isinstance(policy, HyperRecurrentPolicy):
            return cls(model, space)
        if hasattr(policy, "lstm_actor"):
            return "One network for all contexts, which acts on what it remembers."
        extractor = context_extractor(policy) if isinstance(policy, nn.Module) else None
        if not isinstance(policy, GeneratedPolicy) or extractor is None:
            if find_aligned(model) is not None:
                return "One network for all contexts; what it remembers is one of its inputs."
            if extractor is not None and extractor.include_context:
                return "One network for all contexts; the context is one of its inputs."
            return "One network for all contexts, which it is not told."
        try:
            refuse_normalized_context(extractor.reader, model.get_vec_normalize_env())
        except ValueError:
            return "VecNormalize normalises the context, so the weights of one in physical units are not known."
        return cls(model, space)

    @property
    def begins_with(self) -> str:
        """What has the weights to which the others are compared, in words."""
        return "the default context" if self._remembered is None else "an episode's beginning"

    def read(self, lane: Lane) -> Vector:
        """Return what the weights of an agent are generated from at the moment, for :meth:`layers`."""
        if self._remembered is None:
            return lane.given
        return self._beginning if lane.agent.memory is None else self._remembered(lane.agent.memory)

    def layers(self, given: ArrayLike) -> list[Layer]:
        """Return the differences in a context, physical units, shape ``(d,)``, or with what :meth:`read` returns."""
        weights = self._generate(np.asarray(given, dtype=np.float64)[None])
        differences = [w - first for w, first in zip(weights, self._first, strict=True)]
        if self._remembered is not None:
            self._scales = [max(s, _large(d)) for s, d in zip(self._scales, differences, strict=True)]
        return [
            Layer(f"layer {i}", f"{d.shape[2] - 1} → {d.shape[1]}", d[0], scale)
            for i, (d, scale) in enumerate(zip(differences, self._scales, strict=True), 1)
        ]

    @torch.no_grad()
    def _generate(self, given: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """Return each layer's weights with a column for the bias: ``(K, d)`` to arrays ``(K, out, in + 1)``."""
        found: list[NDArray[np.float32]] = []
        for layer in generated_layers(self._networks, self._normalize(torch.as_tensor(given, device=self._device))):
            columns = [w.flatten(2) if w.ndim > 2 else w.unsqueeze(2) for w in layer]  # (K, out, in) or (K, out, 1)
            found.append(torch.cat(columns, dim=2).float().cpu().numpy())
        return found


def _large(differences: NDArray[np.float32]) -> float:
    return float(np.quantile(np.abs(differences), QUANTILE))
