"""What the hypernetwork policies of off-policy algorithms share: SB3's networks, with their weights generated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from torch import Tensor, nn

from hyperrl.hypernet import HyperNetwork, distinct
from hyperrl.hypernet.measures import diagnostics
from hyperrl.policies.acting import ActingNetwork, FirstColumns, OnColumns
from hyperrl.policies.context import ContextReader
from hyperrl.policies.hyper_config import GeneratedPolicy, HyperConfig, by_layer, without
from hyperrl.policies.latent import with_latent
from hyperrl.policies.loss import add_to_loss
from hyperrl.policies.tracing import unvalidated


class GeneratedNetwork(nn.Module):
    """A perceptron whose weights come from the columns of its input that are context.

    Layers that have a state and are not linear, such as CrossQ's normalisation, are common to all contexts and see
    all rows of a batch at once, in their order.

    :param target: the perceptron, for rows without context; what all contexts start from.
    :param start: the column where the context begins.
    :param reader: says what contexts are.
    :param hyper_config: how weights are generated.

    >>> from gymnasium import spaces
    >>> reader = ContextReader(spaces.Dict(position=spaces.Box(-1, 1, (3,)), context=spaces.Box(0, 10, (2,))))
    >>> network = GeneratedNetwork(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), 3, reader, HyperConfig())
    >>> network(torch.randn(5, 3 + 2 + 1)).shape  # position, context, action
    torch.Size([5, 1])
    """

    def __init__(self, target: nn.Sequential, start: int, reader: ContextReader, hyper_config: HyperConfig) -> None:
        super().__init__()
        self.start, self.stop = start, start + reader.dim
        self.hyper_config = hyper_config
        self.parts = nn.ModuleList()
        encoder: nn.Module | None = None
        *_, last = parts = _cut(target)
        for part in parts:
            # An adapter goes before the output layer: all other layers are common to all contexts.
            is_generated = any(isinstance(layer, nn.Linear) for layer in part) and hyper_config.head != "adapter"
            if is_generated or part is last:
                network = hyper_config.network(part, reader, encoder)
                encoder = network.encoder
                self.parts.append(network)
            else:
                self.parts.append(part)

    @property
    def networks(self) -> list[HyperNetwork]:
        """The hypernetworks of the linear layers between layers common to all contexts: one, if there are none."""
        return [part for part in self.parts if isinstance(part, HyperNetwork)]

    @property
    def encoder(self) -> nn.Module:
        """The encoder of contexts, common to all parts."""
        return self.networks[0].encoder

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, those common to all contexts and those whose weights are generated, in their order."""
        return [layer for part in self.parts for layer in (part.head.base if isinstance(part, HyperNetwork) else part)]  # pyright: ignore[reportGeneralTypeIssues]

    def weights(self, context: Tensor) -> dict[str, Tensor]:
        """Return one context's network as the state dict of the target.

        :param context: normalised, shape ``(d,)``.
        :raises ValueError: for the head ``"adapter"``.
        """
        state: dict[str, Tensor] = {}
        before = 0
        for part in self.parts:
            layers: Any = part.head.base if isinstance(part, HyperNetwork) else part
            own = part.weights(context) if isinstance(part, HyperNetwork) else part.state_dict()
            for name, weight in own.items():
                index, _, kind = name.partition(".")
                state[f"{before + int(index)}.{kind}"] = weight
            before += len(layers)
        return state

    @torch.no_grad()
    def diagnostics(self, contexts: Tensor) -> dict[str, float]:
        """Measure how the weights depend on the context, see :func:`hyperrl.hypernet.measures.diagnostics`.

        :param contexts: normalised, shape ``(K, d)``.
        """
        theta = torch.cat([network.generate(contexts) for network in self.networks], dim=1)
        return diagnostics(self.encoder(contexts), theta)

    def forward(self, rows: Tensor) -> Tensor:
        """Apply to each row the network of its context: ``(B, n + d + a) -> (B, m)``."""
        # Features and actions may have a gradient, contexts have none: distinct ones could not be told otherwise.
        context = rows[:, self.start : self.stop].detach()
        x = torch.cat([rows[:, : self.start], rows[:, self.stop :]], dim=1)
        unique, index = distinct(context)
        embedding = self.encoder(unique)
        for part in self.parts:
            x = part.head(embedding, index, x) if isinstance(part, HyperNetwork) else part(x)
        if self.hyper_config.is_penalised and torch.is_grad_enabled():
            for network in self.networks:
                x = add_to_loss(x, self.hyper_config.penalty(network, unique))
        return x


class OffPolicy(GeneratedPolicy):
    """Makes SB3's networks for features without context, to be wrapped as :class:`GeneratedNetwork`.

    To be inherited before an off-policy policy of SB3. Its constructor builds optimisers and target networks from
    what the methods ``make_actor``, ``make_critic`` and so on return.
    """

    include_context: ClassVar = True  # networks get the context with their features, as one tensor

    def _update_features_extractor(
        self, net_kwargs: dict[str, Any], features_extractor: BaseFeaturesExtractor | None = None
    ) -> dict[str, Any]:
        kwargs = super()._update_features_extractor(net_kwargs, features_extractor)
        return kwargs | dict(features_dim=kwargs["features_extractor"].extractor.features_dim)

    def _make(self, part: type, kwargs: dict[str, Any], features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Make a :class:`GeneratedPart`, with the features extractor of another one or one of its own."""
        kwargs = self._update_features_extractor(kwargs, features_extractor)
        return part(**kwargs, hyper_config=self.hyper_config).to(self.device)

    def generated_networks(self) -> dict[str, GeneratedNetwork]:
        """Return the networks that learn, by name: what acts, then each critic."""
        found: dict[str, GeneratedNetwork] = {}
        for path, module in self.named_modules():
            name = path.split(".")[0]
            if isinstance(module, GeneratedNetwork) and not name.endswith("_target"):
                count = sum(other.startswith(name) for other in found)
                found[f"{name}_{count + 1}" if count else name] = module
        return found

    def _generated_state(self, state: dict[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        for path, module in self.named_modules():
            if isinstance(module, GeneratedNetwork):
                state = without(state, path)
                state |= {self._plain_name(path, name): weight for name, weight in module.weights(context).items()}
        return state

    def _plain_name(self, network: str, name: str) -> str:
        """Return what SB3's own policy calls an entry of a generated network's state dict."""
        return f"{network}.{name}"


class GeneratedPart(BasePolicy):
    """A network of SB3's that is saved and loaded without its policy: to be inherited before it.

    :param hyper_config: how weights are generated.
    :param kwargs: arguments of SB3's network.
    """

    def __init__(self, *, hyper_config: HyperConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hyper_config = hyper_config
        self._generate()

    def _generate(self) -> None:
        """Replace the layers that SB3 has made."""
        raise NotImplementedError

    def _generated(self, target: nn.Sequential) -> GeneratedNetwork:
        """Wrap a network of features and context."""
        return _generated(target, self.features_extractor, self.hyper_config)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(hyper_config=self.hyper_config)


class OffPolicyActorCritic(OffPolicy):
    """Generates critics: to be inherited before the policies of SAC, TD3, TQC and CrossQ."""

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Make the critics, each with a hypernetwork of its own."""
        critic: Any = super().make_critic(features_extractor)  # pyright: ignore[reportAttributeAccessIssue]
        critic.q_networks = [
            _generated(network, critic.features_extractor, self.hyper_config).to(self.device)
            for network in critic.q_networks
        ]
        for i, network in enumerate(critic.q_networks):
            critic.add_module(f"qf{i}", network)
        return critic


class GaussianActor(GeneratedPart):
    """Generates mean and log-std of a Gaussian actor of SB3: to be inherited before the actors of SAC, TQC, CrossQ.

    With gSDE the last hidden layer and the mean are generated; the log-std is common to all contexts.
    """

    def _generate(self: Any) -> None:
        if self.use_sde:
            clipped = isinstance(self.mu, nn.Sequential)
            mean, self.clip = (self.mu[0], self.mu[1]) if clipped else (self.mu, nn.Identity())
            target = with_latent(nn.Sequential(*self.latent_pi, mean), self.hyper_config.head)
        else:
            both = nn.Linear(self.mu.in_features, 2 * self.mu.out_features)
            with torch.no_grad():
                both.weight.copy_(torch.cat([self.mu.weight, self.log_std.weight]))
                both.bias.copy_(torch.cat([self.mu.bias, self.log_std.bias]))
            target = nn.Sequential(*self.latent_pi, both)
            del self.log_std
        del self.latent_pi, self.mu
        self.network = self._generated(target)

    @unvalidated(only_static=True)
    def forward(self: Any, obs: Any, deterministic: bool = False) -> Tensor:
        """Return actions, shape ``(B, m)``."""
        return super().forward(obs, deterministic)

    def get_action_dist_params(self: Any, obs: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return mean ``(B, m)``, log-std, and for gSDE the features of its noise."""
        output = self.network(self.extract_features(obs, self.features_extractor))
        mean, other = output.tensor_split([self.action_dist.action_dim], dim=1)
        if self.use_sde:
            return self.clip(mean), self.log_std, dict(latent_sde=other)
        return mean, other.clamp(LOG_STD_MIN, LOG_STD_MAX), {}


class GaussianPolicy(OffPolicyActorCritic):
    """Generates a Gaussian actor besides: to be inherited before the policies of SAC, TQC and CrossQ."""

    actor: Any
    actor_class: ClassVar[type]
    """SB3's actor behind :class:`GaussianActor`."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Make the actor, whose mean and log-std are generated."""
        return self._make(self.actor_class, self.actor_kwargs, features_extractor)

    def acting_network(self) -> ActingNetwork:
        """Return the actor without its log-std."""
        network = self.actor.network
        mean = FirstColumns(self.actor.action_dist.action_dim)
        return ActingNetwork(OnColumns(network, mean), tuple(network.layers), squash=True)

    def _generated_state(self, state: dict[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        """Name the actor's layers as SB3 does, whose last one has rows for the mean and rows for the log-std."""
        state = super()._generated_state(state, context)
        *layers, last = by_layer(self.actor.network.weights(context))
        state = without(state, "actor.network")
        state |= {f"actor.latent_pi.{name}": weight for layer in layers for name, weight in layer}
        for name, weight in last:
            kind = name.partition(".")[2]
            if self.actor.use_sde:  # whose log-std is common to all contexts
                state[f"actor.mu.0.{kind}" if isinstance(self.actor.clip, nn.Hardtanh) else f"actor.mu.{kind}"] = weight
            else:
                state[f"actor.mu.{kind}"], state[f"actor.log_std.{kind}"] = weight.chunk(2)
        return state


def _generated(target: nn.Sequential, extractor: Any, hyper_config: HyperConfig) -> GeneratedNetwork:
    """Wrap a network of features, context and perhaps actions; ``extractor`` is what makes the features."""
    return GeneratedNetwork(target, extractor.extractor.features_dim, extractor.reader, hyper_config)


def _cut(target: nn.Sequential) -> list[nn.Sequential]:
    """Cut a network at the layers that have a state and are not linear.

    >>> [len(part) for part in _cut(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)))]
    [1, 2, 1]
    """
    layers = list(target)
    cuts = {0, len(layers)}
    for i, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear) and (any(True for _ in layer.parameters()) or list(layer.buffers())):
            cuts |= {i, i + 1}
    return [nn.Sequential(*layers[start:stop]) for start, stop in pairwise(sorted(cuts))]
