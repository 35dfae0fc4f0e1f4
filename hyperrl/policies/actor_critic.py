"""Actor-critic policies, for PPO, A2C and TRPO: context as generated weights, as extra inputs, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from hyperrl.hypernet import HyperNetwork, distinct
from hyperrl.policies.context import ContextPolicy, ContextReader
from hyperrl.policies.hyper_config import GeneratedPolicy, add_to_loss
from hyperrl.policies.latent import with_latent

ALGORITHMS: Final = ("PPO", "A2C", "TRPO")


class UnawarePolicy(ContextPolicy, ActorCriticPolicy):
    """An ordinary actor-critic that does not see the context: domain randomisation, the baseline to beat first.

    Keyword arguments are those of :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's
    ``ActorCriticPolicy``.
    """

    algorithms: ClassVar = ALGORITHMS
    include_context: ClassVar = False


class ConcatPolicy(ContextPolicy, ActorCriticPolicy):
    """An ordinary actor-critic that gets the normalised context as extra inputs; otherwise as UnawarePolicy."""

    algorithms: ClassVar = ALGORITHMS
    include_context: ClassVar = True


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


class HyperPolicy(GeneratedPolicy, ActorCriticPolicy):
    """An actor-critic whose weights a hypernetwork produces from the context: actor, critic and log-std.

    All contexts start from the networks that SB3 would make. With gSDE (``use_sde=True``), noise is linear in the
    last hidden layer of the generated actor, and its log-std is common to all contexts.

    :param share_encoder: one context encoder for actor and critic.
    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's ``ActorCriticPolicy``.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(head="full"))
    >>> model.policy.context_space.units
    ('m/s²', 'kg', 'm', '1')
    """

    algorithms: ClassVar = ALGORITHMS
    include_context: ClassVar = False  # networks get features alone

    def __init__(self, *args: Any, share_encoder: bool = False, **kwargs: Any) -> None:
        self.share_encoder: Final = share_encoder
        self._kept: _Kept | None = None
        super().__init__(*args, **kwargs)

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
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # pyright: ignore

    @property
    def reader(self) -> ContextReader:
        """What finds and normalises the context."""
        return self.features_extractor.reader  # pyright: ignore

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

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore
        """Act: return actions ``(B, *action shape)``, values ``(B, 1)`` and log-probabilities ``(B,)``.

        In a rollout, that is in evaluation mode and without gradients, weights are generated again only when a
        context of the batch has changed, or a parameter. Writes into ``parameter.data``, and parameters exchanged for
        others, go unseen: after some, call :meth:`set_training_mode`.
        """
        is_rollout = not (self.training or torch.is_grad_enabled())
        condition = (self._kept_condition if is_rollout else self._condition)(self._context(obs))
        pi_features, vf_features = self._actor_critic_features(obs)
        distribution = self._distribution(condition, pi_features)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        return actions.reshape((-1, *self.action_space.shape)), self._value(condition, vf_features), log_prob  # pyright: ignore

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values ``(B, 1)``, log-probabilities ``(B,)`` of the actions, and entropies ``(B,)``."""
        condition = self._condition(self._context(obs))
        pi_features, vf_features = self._actor_critic_features(obs)
        distribution = self._distribution(condition, pi_features)
        values = self._value(condition, vf_features)
        if self.hyper_config.is_penalised and torch.is_grad_enabled():
            penalties = [self.hyper_config.penalty(net, condition.unique) for net in (self.actor, self.critic)]
            values = add_to_loss(values, penalties[0] + penalties[1])
        return values, distribution.log_prob(actions), distribution.entropy()

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

    def _context(self, obs: PyTorchObs) -> Tensor:
        """Return the normalised context, shape ``(B, d)``."""
        return self.reader(obs)

    def _actor_critic_features(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    def _condition(self, context: Tensor) -> _Condition:
        return _Condition(*distinct(context))

    def _kept_condition(self, context: Tensor) -> _Condition:
        """Return the condition of the last call, where contexts and parameters are still the same."""
        kept = self._kept
        if kept is None or kept.state != _state(kept.parameters) or not torch.equal(kept.context, context):
            parameters = tuple(self.parameters()) if kept is None else kept.parameters  # a slow walk over modules
            self._kept = kept = _Kept(context, parameters, _state(parameters), self._condition(context))
        return kept.condition

    def _distribution(self, condition: _Condition, features: Tensor) -> Distribution:
        if condition.actor is None:
            embedding = condition.embed(self.actor.encoder)  # (K, h)
            log_std = None if self.log_std_generator is None else self.log_std_generator(embedding)  # (K, m)
            condition.actor = self.actor.head.generate(embedding), log_std
        generated, log_std = condition.actor
        output = self.actor.head.apply_generated(generated, condition.index, features)  # (B, m), and gSDE's latent
        distribution: Any = self.action_dist
        if self.use_sde:
            mean, latent = output.tensor_split([distribution.action_dim], dim=1)
            return distribution.proba_distribution(mean, self.log_std, latent)
        if log_std is None:
            return distribution.proba_distribution(output)
        return distribution.proba_distribution(output, log_std[condition.index])

    def _value(self, condition: _Condition, features: Tensor) -> Tensor:
        if condition.critic is None:
            condition.critic = self.critic.head.generate(condition.embed(self.critic.encoder))
        return self.critic.head.apply_generated(condition.critic, condition.index, features)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_kept=None)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(share_encoder=self.share_encoder)


@dataclass
class _Condition:
    """The distinct contexts of a batch, and what has been generated from them."""

    unique: Tensor  # (K, d)
    index: Tensor  # (B,)
    actor: tuple[dict[str, Tensor], Tensor | None] | None = None  # and the log-std (K, m)
    critic: dict[str, Tensor] | None = None
    embeddings: dict[nn.Module, Tensor] = field(default_factory=dict)  # (K, h), one where actor and critic share it

    def embed(self, encoder: nn.Module) -> Tensor:
        if encoder not in self.embeddings:
            self.embeddings[encoder] = encoder(self.unique)
        return self.embeddings[encoder]


class _Kept(NamedTuple):
    """What was generated last, and what it holds for."""

    context: Tensor  # (B, d)
    parameters: tuple[nn.Parameter, ...]
    state: list[tuple[int, int]]
    condition: _Condition


def _state(parameters: tuple[nn.Parameter, ...]) -> list[tuple[int, int]]:
    """Return of each parameter the number of changes that torch counted, and where it lies."""
    return [(parameter._version, parameter.data_ptr()) for parameter in parameters]
