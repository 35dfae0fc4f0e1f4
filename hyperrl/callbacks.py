"""A callback for the training of hypernetworks by Stable-Baselines3: what to log."""

from __future__ import annotations

import math
import warnings
from typing import Any, Final

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor

from hyperrl.policies import HyperPolicy


class HyperDiagnostics(BaseCallback):
    """Log how the generated weights of a :class:`~hyperrl.policies.HyperPolicy` depend on the context.

    After each update, of the actor: ``hyper/weight_norm``, ``hyper/weight_variance``, ``hyper/effective_rank`` and
    ``hyper/embedding_norm`` (see :meth:`HyperNetwork.diagnostics <hyperrl.hypernet.HyperNetwork.diagnostics>`), and
    ``hyper/embedding_grad_norm``, the norm of the loss's gradient at the embeddings z of a minibatch, averaged over
    those of the update. The same of the critic: ``hyper/critic_weight_norm`` and so on. All but the last are of the
    first contexts that training meets, always the same ones, so that a curve shows the weights and nothing else.

    It warns, once for each network, where a value is not finite and where the weights' variance over contexts falls
    below a hundredth of the largest it has been: the network then hardly tells contexts apart any more.

    :param contexts: how many contexts to measure.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(16), n_steps=16, n_epochs=1)
    >>> model = model.learn(256, callback=HyperDiagnostics())
    >>> 0 < model.logger.name_to_value["hyper/effective_rank"] < 16
    True
    """

    def __init__(self, contexts: int = 32) -> None:
        super().__init__()
        self.limit: Final = contexts
        self.contexts: list[tuple[float, ...]] = []  # normalised
        self.largest_variance: Final[dict[str, float]] = {}
        self.announced: Final[set[str]] = set()
        self.gradients: dict[str, _GradientNorm] = {}  # of the update under way

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, HyperPolicy):
            return
        if len(self.contexts) < self.limit:
            met = policy._context(self._some_observations())  # (limit, d)
            self.contexts = list(dict.fromkeys([*self.contexts, *map(tuple, met.tolist())]))[: self.limit]
        self.gradients = {name: _GradientNorm(getattr(policy, name).encoder) for name in ("actor", "critic")}

    def _on_rollout_start(self) -> None:
        self._measure()

    def _on_training_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        """Log and judge the update that has just ended."""
        contexts = torch.tensor(self.contexts, device=self.model.device)  # (K, d)
        for name, gradient in self.gradients.items():
            values = getattr(self.model.policy, name).diagnostics(contexts)
            values["embedding_grad_norm"] = gradient.take()
            for key, value in values.items():
                self.logger.record(f"hyper/{'' if name == 'actor' else 'critic_'}{key}", value)
            self._judge(name, values)
        self.gradients = {}

    def _judge(self, name: str, values: dict[str, float]) -> None:
        variance = values["weight_variance"]
        largest = self.largest_variance[name] = max(variance, self.largest_variance.get(name, 0.0))
        infinite = [key for key, value in values.items() if not math.isfinite(value)]
        if infinite:
            message = f"{infinite[0]} is {values[infinite[0]]}"
        elif variance < 0.01 * largest:
            message = f"the weights' variance over contexts fell from {largest:.2g} to {variance:.2g}"
        else:
            return
        if name not in self.announced:
            self.announced.add(name)
            warnings.warn(
                f"the {name}'s hypernetwork has collapsed after {self.num_timesteps} steps: {message}. "
                "A lower learning rate or max_grad_norm may prevent it.",
                stacklevel=2,
            )

    def _some_observations(self) -> Any:
        """Draw observations of the rollout; by a generator of its own, so that training is as it is without."""
        assert isinstance(self.model, OnPolicyAlgorithm)  # HyperPolicy serves no other
        buffer = self.model.rollout_buffer
        rows = np.random.default_rng(0).integers(buffer.buffer_size * buffer.n_envs, size=self.limit)
        entries: Any = buffer.observations  # (steps, environments, *n), of each entry where it is a dict
        if isinstance(entries, dict):
            drawn: Any = {key: entry.reshape(-1, *entry.shape[2:])[rows] for key, entry in entries.items()}
        else:
            drawn = entries.reshape(-1, *entries.shape[2:])[rows]
        return obs_as_tensor(drawn, self.model.device)


class _GradientNorm:
    """Average the norms of the gradients that arrive at an encoder's embeddings until it is asked.

    It knows no model, so that a policy copied with this hook on is a copy of the policy alone.
    """

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.norms: list[Tensor] = []  # tensors: a number each would wait for the device at each minibatch
        self.handle = encoder.register_forward_hook(self._watch)

    def _watch(self, encoder: torch.nn.Module, inputs: tuple[Tensor, ...], embedding: Tensor) -> None:
        if embedding.requires_grad:
            embedding.register_hook(lambda gradient: self.norms.append(gradient.norm()))

    def take(self) -> float:
        """Stop and return the average."""
        self.handle.remove()
        return torch.stack(self.norms).mean().item() if self.norms else 0.0
