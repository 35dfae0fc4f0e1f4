"""A callback for the training of hypernetworks by Stable-Baselines3: what to log."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hyperrl.alignment.acting import find_aligned
from hyperrl.hypernet import HyperNetwork
from hyperrl.policies import GeneratedPolicy
from hyperrl.policies.context import context_extractor
from hyperrl.policies.off_policy import GeneratedNetwork


class HyperDiagnostics(BaseCallback):
    """Log how the weights that a hypernetwork policy generates depend on the context.

    Of the network that acts: ``hyper/weight_norm``, ``hyper/weight_variance``, ``hyper/effective_rank`` and
    ``hyper/embedding_norm`` (see :func:`~hyperrl.hypernet.measures.diagnostics`), and ``hyper/embedding_grad_norm``,
    the norm of a loss's gradient at the embeddings z of a minibatch, averaged over those since the last measurement.
    The same of each critic: ``hyper/critic_weight_norm`` and so on. All but the last are of the first contexts that
    training meets, always the same ones, so that a curve shows the weights and nothing else.

    Of an agent with an aligned context (:mod:`hyperrl.alignment`) nothing is logged: its contexts change their meaning.

    It warns, once for each network, where a value is not finite and where the weights' variance over contexts falls
    below a hundredth of the largest it has been: the network then hardly tells contexts apart any more.

    :param contexts: how many contexts to measure.
    :param every: the least number of environment steps between two measurements; one is taken after an update, and
        at the end.

    >>> from stable_baselines3 import SAC
    >>> from hyperrl import load_family
    >>> from hyperrl.policies import HyperSACPolicy
    >>> model = SAC(HyperSACPolicy, load_family("pendulum").vec_env(16), learning_starts=32, buffer_size=1000)
    >>> model = model.learn(128, callback=HyperDiagnostics())
    >>> 0 < model.logger.name_to_value["hyper/effective_rank"] < 16
    True
    """

    def __init__(self, contexts: int = 32, every: int = 1000) -> None:
        super().__init__()
        self.limit: Final = contexts
        self.every: Final = every
        self.measured = 0  # at which step
        self.contexts: list[tuple[float, ...]] = []  # normalised
        self.largest_variance: Final[dict[str, float]] = {}
        self.announced: Final[set[str]] = set()
        self.networks: Mapping[str, HyperNetwork | GeneratedNetwork] = {}
        self.gradients: dict[str, _GradientNorm] = {}
        self.restored: Mapping[str, Any] | None = None

    def _on_training_start(self) -> None:
        policy = self.model.policy
        if find_aligned(self.model) is not None:
            return  # an embedding means something else whenever its encoder has learnt
        self.networks = policy.generated_networks() if isinstance(policy, GeneratedPolicy) else {}
        self.gradients = {name: _GradientNorm() for name in self.networks}
        self.measured = self.num_timesteps
        if self.restored is not None:
            self.measured = self.restored["measured"]
            self.contexts = list(self.restored["contexts"])
            self.largest_variance.update(self.restored["largest_variance"])
            self.announced.update(self.restored["announced"])
            for name, norms in self.restored["gradients"].items():
                self.gradients[name].norms = list(norms)

    def state(self) -> dict[str, Any]:
        """Return what it has seen, for :meth:`restore`."""
        return dict(
            measured=self.measured,
            contexts=list(self.contexts),
            largest_variance=dict(self.largest_variance),
            announced=set(self.announced),
            gradients={name: list(gradient.norms) for name, gradient in self.gradients.items()},
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what another one has seen, in a training that goes on."""
        self.restored = state

    def _on_step(self) -> bool:
        if not self.networks or len(self.contexts) >= self.limit:
            return True
        begun = self.locals["dones"] | (not self.contexts)
        if begun.any():
            met = self._contexts(self.locals["new_obs"])[begun]  # (n, d)
            self.contexts = list(dict.fromkeys([*self.contexts, *map(tuple, met.tolist())]))[: self.limit]
        return True

    def _on_rollout_end(self) -> None:
        for name, network in self.networks.items():
            self.gradients[name].watch(network.encoder)

    def _on_rollout_start(self) -> None:
        for gradient in self.gradients.values():
            gradient.stop()
        if self.num_timesteps - self.measured >= self.every:
            self._measure()

    def _on_training_end(self) -> None:
        for gradient in self.gradients.values():
            gradient.stop()
        if self.num_timesteps > self.measured:
            self._measure()

    def _measure(self) -> None:
        """Log and judge the update that has just ended."""
        self.measured = self.num_timesteps
        contexts = torch.tensor(self.contexts, device=self.model.device)  # (K, d)
        for i, (name, network) in enumerate(self.networks.items()):
            values = network.diagnostics(contexts)
            norms = self.gradients[name].take()
            if norms:  # not before learning starts, and TD3 updates its actor later than its critics
                values["embedding_grad_norm"] = torch.stack(norms).mean().item()
            for key, value in values.items():
                self.logger.record(f"hyper/{f'{name}_' if i else ''}{key}", value)
            self._judge(name, values)

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

    def _contexts(self, obs: Any) -> Tensor:
        """Return the normalised contexts ``(n, d)`` of observations."""
        extractor: Any = context_extractor(self.model.policy)
        return extractor.reader(obs_as_tensor(obs, self.model.device))


class _GradientNorm:
    """Keeps the norms of the gradients that arrive at an encoder's embeddings.

    It knows no model, so that a policy copied while it is watched is a copy of the policy alone.
    """

    def __init__(self) -> None:
        self.norms: list[Tensor] = []  # tensors: a number each would wait for the device at each minibatch
        self.handle: RemovableHandle | None = None

    def watch(self, encoder: nn.Module) -> None:
        """Begin, until :meth:`stop`."""
        self.handle = encoder.register_forward_hook(self._watch)

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.remove()

    def take(self) -> list[Tensor]:
        """Return the norms, and forget them."""
        taken, self.norms = self.norms, []
        return taken

    def _watch(self, encoder: nn.Module, inputs: tuple[Tensor, ...], embedding: Tensor) -> None:
        if embedding.requires_grad:
            embedding.register_hook(lambda gradient: self.norms.append(gradient.norm()))
