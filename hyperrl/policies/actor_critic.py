"""Actor-critic policies, for PPO, A2C and TRPO: context as generated weights, as extra inputs, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Final, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from hyperrl.hypernet import Groups, HyperNetwork, distinct, is_static
from hyperrl.policies.acting import ActingNetwork, Method, OnColumns
from hyperrl.policies.arguments import names_checked, passed_on
from hyperrl.policies.context import ContextReader
from hyperrl.policies.hyper_config import GeneratedPolicy, by_layer, without
from hyperrl.policies.latent import with_latent
from hyperrl.policies.loss import BoundedMeans, add_to_loss
from hyperrl.policies.tracing import unvalidated


class OrdinaryActorCritic(BoundedMeans):
    """An actor-critic whose weights are not generated: to be inherited before SB3's."""

    def evaluate_actions(self: Any, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values ``(B, 1)``, log-probabilities ``(B,)`` of the actions, and entropies ``(B,)``."""
        values, log_prob, entropy = ActorCriticPolicy.evaluate_actions(self, obs, actions)
        return self.bounded(values, self.action_dist), log_prob, entropy

    def acting_network(self: Any) -> ActingNetwork:
        """Return the actor without its log-std."""
        actor = OnColumns(
            Method(self.mlp_extractor, "forward_actor"), self.action_net, includes_context=self.include_context
        )
        return ActingNetwork(actor, (*self._hidden_layers(), self.action_net), squash=False)

    def _hidden_layers(self: Any) -> list[nn.Module]:
        return list(self.mlp_extractor.policy_net)


class UnawarePolicy(OrdinaryActorCritic, ActorCriticPolicy):
    """An ordinary actor-critic that does not see the context: domain randomisation, the baseline to beat first.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: one that the algorithm serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers; ``dict(pi=[...], vf=[...])`` for actor and critic apart.
    :param activation_fn: activation of the hidden layers.
    :param ortho_init: initialise orthogonally.
    :param use_sde: explore by gSDE; the algorithm's ``use_sde`` sets it.
    :param log_std_init: log-std of the actions at first.
    :param full_std: gSDE: a std for each pair of feature and action, not one for each feature.
    :param use_expln: gSDE: ``expln`` instead of ``exp``, which keeps the std from growing fast.
    :param squash_output: gSDE: squash actions by ``tanh``.
    :param features_extractor_class: features extractor of what is not context; SB3's usual one by default.
    :param features_extractor_kwargs: its keyword arguments.
    :param share_features_extractor: one features extractor for actor and critic.
    :param normalize_images: divide images by 255.
    :param optimizer_class: the optimiser. Adam is fused, unless ``optimizer_kwargs`` say otherwise.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param bounds_loss: weight in the loss of how far the means of continuous actions lie outside the action space; see
        :class:`~hyperrl.policies.loss.BoundedMeans`.
    """

    include_context: ClassVar = False

    @names_checked
    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        bounds_loss: float = 0.0,
    ) -> None:
        super().__init__(**passed_on(locals()))


class ConcatPolicy(OrdinaryActorCritic, ActorCriticPolicy):
    """An ordinary actor-critic that gets the normalised context as extra inputs.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: one that the algorithm serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers; ``dict(pi=[...], vf=[...])`` for actor and critic apart.
    :param activation_fn: activation of the hidden layers.
    :param ortho_init: initialise orthogonally.
    :param use_sde: explore by gSDE; the algorithm's ``use_sde`` sets it.
    :param log_std_init: log-std of the actions at first.
    :param full_std: gSDE: a std for each pair of feature and action, not one for each feature.
    :param use_expln: gSDE: ``expln`` instead of ``exp``, which keeps the std from growing fast.
    :param squash_output: gSDE: squash actions by ``tanh``.
    :param features_extractor_class: features extractor of what is not context; SB3's usual one by default.
    :param features_extractor_kwargs: its keyword arguments.
    :param share_features_extractor: one features extractor for actor and critic.
    :param normalize_images: divide images by 255.
    :param optimizer_class: the optimiser. Adam is fused, unless ``optimizer_kwargs`` say otherwise.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param bounds_loss: weight in the loss of how far the means of continuous actions lie outside the action space; see
        :class:`~hyperrl.policies.loss.BoundedMeans`.
    """

    include_context: ClassVar = True

    @names_checked
    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        bounds_loss: float = 0.0,
    ) -> None:
        super().__init__(**passed_on(locals()))


class LogStdGenerator(nn.Linear):
    """Log-std of a context's actions, ``b + W·z/h`` with ``W = 0`` at first: ``(K, h) -> (K, m)``.

    Without the division, Adam would move it up to h times as fast as SB3's own log-std, and exploration end early.
    """

    def __init__(self, embedding_dim: int, action_dim: int, log_std_init: float) -> None:
        super().__init__(embedding_dim, action_dim)
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, log_std_init)

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-std for each embedding."""
        return super().forward(input / self.in_features)


class HyperPolicy(GeneratedPolicy, BoundedMeans, ActorCriticPolicy):  # pyright: ignore[reportIncompatibleMethodOverride]
    """An actor-critic whose weights a hypernetwork produces from the context: actor, critic and log-std.

    All contexts start from the networks that SB3 would make. With gSDE (``use_sde=True``), noise is linear in the
    last hidden layer of the generated actor, and its log-std is common to all contexts.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: one that the algorithm serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers; ``dict(pi=[...], vf=[...])`` for actor and critic apart.
    :param activation_fn: activation of the hidden layers.
    :param ortho_init: initialise orthogonally.
    :param use_sde: explore by gSDE; the algorithm's ``use_sde`` sets it.
    :param log_std_init: log-std of the actions at first.
    :param full_std: gSDE: a std for each pair of feature and action, not one for each feature.
    :param use_expln: gSDE: ``expln`` instead of ``exp``, which keeps the std from growing fast.
    :param squash_output: gSDE: squash actions by ``tanh``.
    :param features_extractor_class: features extractor of what is not context; SB3's usual one by default.
    :param features_extractor_kwargs: its keyword arguments.
    :param share_features_extractor: one features extractor for actor and critic.
    :param normalize_images: divide images by 255.
    :param optimizer_class: the optimiser. Adam is fused, unless ``optimizer_kwargs`` say otherwise.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param bounds_loss: weight in the loss of how far the means of continuous actions lie outside the action space; see
        :class:`~hyperrl.policies.loss.BoundedMeans`.
    :param head: how weights are generated, one of :data:`~hyperrl.hypernet.HEADS`.
    :param rank: directions per layer, of the head ``"low_rank"``.
    :param chunk_size: weights of a chunk, of the head ``"chunked"``.
    :param chunk_embedding: length of a chunk's embedding, of the head ``"chunked"``.
    :param bottleneck: width of the adapter, of the head ``"adapter"``.
    :param embedding: widths of the context encoder's layers; a short last one generalises better beyond the training
        range (docs/hypernetworks.md).
    :param encoder: ``"mlp"``; ``"cos_sin"``, which puts the features' cosines and sines before the perceptron;
        ``"task_embedding"``, a learnt vector for each whole number in the bounds of a context of one feature, as long
        as the last width; ``"none"``: weights are linear in the context itself. Perceptrons begin as SB3's do,
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
    :param share_encoder: one context encoder for actor and critic.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(head="full"))
    >>> model.policy.context_space.units
    ('m/s²', 'kg', 'm', '1')
    """

    include_context: ClassVar = False  # networks get features alone

    @names_checked
    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        bounds_loss: float = 0.0,
        head: str = "low_rank",
        rank: int | None = None,
        chunk_size: int | None = None,
        chunk_embedding: int | None = None,
        bottleneck: int | None = None,
        embedding: Sequence[int] = (64, 16),
        encoder: str = "mlp",
        extrapolate: bool = True,
        layer_norm: bool = False,
        norm_bound: float | None = None,
        init: str = "bias",
        generated: str | Sequence[str] = "*",
        base: bool = True,
        squared_norm: float = 0.0,
        similarity: float = 0.0,
        share_encoder: bool = False,
    ) -> None:
        self.share_encoder: Final = share_encoder
        self._kept: _Kept | None = None
        super().__init__(**passed_on(locals(), without=["share_encoder"]))

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # SB3's networks, initialised as SB3 does: what generation starts from
        actor = nn.Sequential(*self.mlp_extractor.policy_net, self.action_net)
        critic = nn.Sequential(*self.mlp_extractor.value_net, self.value_net)
        del self.mlp_extractor, self.action_net, self.value_net
        if self.use_sde:
            actor = with_latent(actor, self.hyper_config.head)
        self.actor = self.hyper_config.network(actor, self.reader)
        self.critic = self.hyper_config.network(critic, self.reader, self.actor.encoder if self.share_encoder else None)
        self.log_std_generator = None
        if isinstance(self.action_dist, DiagGaussianDistribution):
            del self._parameters["log_std"]
            width = self.actor.encoder(torch.zeros(1, self.reader.dim)).shape[1]
            self.log_std_generator = LogStdGenerator(width, self.action_dist.action_dim, self.log_std_init)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # pyright: ignore[reportCallIssue]

    @property
    def reader(self) -> ContextReader:
        """What finds and normalises the context."""
        return self.features_extractor.reader  # pyright: ignore[reportReturnType]

    def generated_networks(self) -> dict[str, HyperNetwork]:
        """Return actor and critic by name."""
        return {"actor": self.actor, "critic": self.critic}

    @property
    def log_std(self) -> Tensor:
        """The log-std ``(m,)`` of continuous actions at the centre of the training range: SB3 logs its mean."""
        # Where nothing is generated, an AttributeError makes torch look for a parameter of that name: gSDE has one.
        if self.log_std_generator is None:
            raise AttributeError("log_std: actions are not continuous")
        return self.log_std_generator(self.actor.encoder(torch.zeros_like(self.reader.center).unsqueeze(0))).squeeze(0)

    def condition(self, table: Tensor, index: Tensor) -> Condition:
        """Return what the contexts of a batch make of the networks, for the methods below; no shape in it depends on
        values.

        :param table: contexts in physical units, shape ``(K, d)``; none needs to occur in the batch, or only once.
        :param index: the place of each row's context in the table, int64 of shape ``(B,)``.
        """
        return Condition(self.reader({self.reader.key: table}), index, is_static=True)

    def generate(self, condition: Condition) -> list[Tensor]:
        """Generate the actor and the critic of a condition, which keeps them, and return all that is generated."""
        (actor, log_std), critic = self._generated_actor(condition), self._generated_critic(condition)
        return [*actor.values(), *critic.values(), *([] if log_std is None else [log_std])]

    @unvalidated(only_static=True)
    def forward(
        self, obs: PyTorchObs, deterministic: bool = False, condition: Condition | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Act: return actions ``(B, *action shape)``, values ``(B, 1)`` and log-probabilities ``(B,)``.

        In evaluation mode and without gradients, as in a rollout, weights are generated again only when a context of
        the batch or a parameter has changed: the values of both are compared with those of the last call.

        :param condition: of the contexts in ``obs``, which are not read then.
        """
        if condition is None:
            context = self._context(obs)
            is_autocast = torch.is_autocast_enabled(context.device.type)
            is_kept = not (self.training or torch.is_grad_enabled() or is_autocast or is_static())
            condition = (self._kept_condition if is_kept else self._condition)(context)
        pi_features, vf_features = self._actor_critic_features(obs)
        distribution = self._distribution(condition, pi_features)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        return actions.reshape((-1, *self.action_space.shape)), self._value(condition, vf_features), log_prob  # pyright: ignore[reportOptionalIterable]

    @unvalidated(only_static=True)
    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, condition: Condition | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values ``(B, 1)``, log-probabilities ``(B,)`` of the actions, and entropies ``(B,)``.

        :param condition: of the contexts in ``obs``, which are not read then.
        """
        condition = condition or self._condition(self._context(obs))
        pi_features, vf_features = self._actor_critic_features(obs)
        distribution = self._distribution(condition, pi_features)
        values = self._value(condition, vf_features)
        if self.hyper_config.is_penalised and torch.is_grad_enabled():
            penalties = [self.hyper_config.penalty(net, condition.unique) for net in (self.actor, self.critic)]
            values = add_to_loss(values, penalties[0] + penalties[1])
        values = self.bounded(values, distribution)
        return values, distribution.log_prob(actions), distribution.entropy()

    @unvalidated(only_static=True)
    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Return the distribution of actions.

        :raises ValueError: where a gradient is asked for and the loss has penalties, which would be left out: TRPO's.
        """
        if self.hyper_config.is_penalised and torch.is_grad_enabled():
            raise ValueError(
                "squared_norm and similarity are added to a loss computed from evaluate_actions, as PPO and A2C do; "
                "TRPO computes its own from the distribution: leave them 0"
            )
        features = BaseModel.extract_features(self, obs, self.pi_features_extractor)
        return self._distribution(self._condition(self._context(obs)), features)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the values, shape ``(B, 1)``."""
        features = BaseModel.extract_features(self, obs, self.vf_features_extractor)
        return self._value(self._condition(self._context(obs)), features)

    def set_training_mode(self, mode: bool) -> None:
        """Set training or evaluation mode, as SB3 does before each update and before each rollout."""
        super().set_training_mode(mode)
        self._kept = None

    def acting_network(self) -> ActingNetwork:
        """Return the actor without its log-std."""
        layers: Any = self.actor.head.base
        return ActingNetwork(self.actor, tuple(layers), squash=False)

    def _generated_state(self, state: dict[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        if self.log_std_generator is not None:
            state["log_std"] = self.log_std_generator(self.actor.encoder(context[None]))[0]
            state = without(state, "log_std_generator")
        for network, hidden, output in (("actor", "policy", "action"), ("critic", "value", "value")):
            state = without(state, network)
            *layers, last = by_layer(self.get_submodule(network).weights(context))  # pyright: ignore[reportCallIssue]
            state |= {f"mlp_extractor.{hidden}_net.{name}": weight for layer in layers for name, weight in layer}
            state |= {f"{output}_net.{name.partition('.')[2]}": weight for name, weight in last}
        return state

    def _context(self, obs: PyTorchObs) -> Tensor:
        """Return the normalised context, shape ``(B, d)``."""
        return self.reader(obs)

    def _actor_critic_features(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    def _condition(self, context: Tensor) -> Condition:
        return Condition(*distinct(context))

    def _kept_condition(self, context: Tensor) -> Condition:
        """Return the condition of the last call, where contexts and parameters are still the same."""
        # Values, since nothing else tells all changes: a tensor's version misses fused optimisers, polyak averages and
        # writes into ``data``. One variable for all that is kept: threads may share a policy.
        kept, values = self._kept, [context, *self._parameters_that_generate()]
        if kept is None or len(kept.values) != len(values) or not all(map(torch.equal, kept.values, values)):
            self._kept = kept = _Kept([value.clone() for value in values], self._condition(context))
        return kept.condition

    def _parameters_that_generate(self) -> list[Tensor]:
        """Return all parameters that generated weights depend on."""
        found = _parameters(self.critic, _parameters(self.actor, []))
        return found if self.log_std_generator is None else _parameters(self.log_std_generator, found)

    def _generated_actor(self, condition: Condition) -> tuple[dict[str, Tensor], Tensor | None]:
        if condition.actor is None:
            embedding = condition.embed(self.actor.encoder)  # (K, h)
            log_std = None if self.log_std_generator is None else self.log_std_generator(embedding)  # (K, m)
            condition.actor = self.actor.head.generate(embedding), log_std
        return condition.actor

    def _generated_critic(self, condition: Condition) -> dict[str, Tensor]:
        if condition.critic is None:
            condition.critic = self.critic.head.generate(condition.embed(self.critic.encoder))
        return condition.critic

    def _distribution(self, condition: Condition, features: Tensor) -> Distribution:
        generated, log_std = self._generated_actor(condition)
        # (B, m), and gSDE's latent
        output = self.actor.head.apply_generated(generated, condition.index, features, condition.groups)
        distribution: Any = copy.copy(self.action_dist)  # the original keeps what the last thread put there
        if self.use_sde:
            mean, latent = output.tensor_split([distribution.action_dim], dim=1)
            return distribution.proba_distribution(mean, self.log_std, latent)
        if log_std is None:
            return distribution.proba_distribution(output)
        return distribution.proba_distribution(output, log_std.index_select(0, condition.index))

    def _value(self, condition: Condition, features: Tensor) -> Tensor:
        generated = self._generated_critic(condition)
        return self.critic.head.apply_generated(generated, condition.index, features, condition.groups)

    def _apply(self, *args: Any, **kwargs: Any) -> HyperPolicy:
        self._kept = None  # of another device or dtype
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_kept=None)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(share_encoder=self.share_encoder)


@dataclass
class Condition:
    """The contexts of a batch, and what has been generated from them."""

    unique: Tensor  # (K, d)
    index: Tensor  # (B,)
    is_static: bool = False
    actor: tuple[dict[str, Tensor], Tensor | None] | None = None  # and the log-std (K, m)
    critic: dict[str, Tensor] | None = None
    embeddings: dict[nn.Module, Tensor] = field(default_factory=dict)  # (K, h), one where actor and critic share it

    def __post_init__(self) -> None:
        self.groups = cache(lambda: Groups(self.index, len(self.unique), static=True)) if self.is_static else None

    def embed(self, encoder: nn.Module) -> Tensor:
        """Return the embeddings of the contexts, ``(K, h)``."""
        if encoder not in self.embeddings:
            self.embeddings[encoder] = encoder(self.unique)
        return self.embeddings[encoder]


class _Kept(NamedTuple):
    """What was generated last, and what it holds for."""

    values: list[Tensor]  # the context (B, d), and parameters
    condition: Condition


def _parameters(module: nn.Module, found: list[Tensor]) -> list[Tensor]:
    """Add a module's parameters to those found: ``module.parameters()`` takes four times as long."""
    found += [parameter for parameter in module._parameters.values() if parameter is not None]
    for child in module._modules.values():
        if child is not None:
            _parameters(child, found)
    return found
