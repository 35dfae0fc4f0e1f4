"""Stable-Baselines3 actor-critic policies that get a context: as generated weights, as extra inputs, or not at all."""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from hyperrl.contexts import ContextBox, ContextSpace, nearest
from hyperrl.hypernet import HyperNetwork, distinct, mlp


class ContextPolicy(ActorCriticPolicy):
    """What the policies of this module share: finding the context, normalising it, SB3's four entry points.

    The entry ``context_key`` of a Dict observation is the context; every other entry goes through SB3's features
    extractor. On a flat observation, ``context_slice`` names the entries that are context. The context is
    normalised so that its training range becomes [-1, 1]: the range is the one that a
    :class:`~hyperrl.contexts.ContextBox` carries, else the bounds of the ``Box``, where it has any.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param net_arch: widths of the hidden layers, a list for both or ``dict(pi=[...], vf=[...])``.
    :param activation_fn: activation of the actor and the critic.
    :param ortho_init: orthogonal initialisation with SB3's gains.
    :param log_std_init: initial logarithm of the standard deviation of continuous actions.
    :param features_extractor_class: features extractor of the other entries; SB3's usual one by default.
    :param features_extractor_kwargs: its keyword arguments.
    :param share_features_extractor: one features extractor for actor and critic.
    :param normalize_images: divide images by 255.
    :param optimizer_class: the optimiser.
    :param optimizer_kwargs: its keyword arguments, except the learning rate.
    :param use_sde: must be ``False``.
    :raises ValueError: where no context is found, and for keyword arguments that make no sense here.
    """

    context_center: Tensor  # (d,)
    context_half_width: Tensor  # (d,)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        **unknown: Any,
    ) -> None:
        self._refuse(use_sde, unknown)
        # SB3's constructor calls back into the methods below, which need these four.
        self.context_key = context_key
        self.context_slice = None if context_slice is None else tuple(context_slice)
        self.context_box, self.other_space = _split_space(observation_space, context_key, context_slice)
        self._context_is_checked = False
        if features_extractor_class is None:
            is_dict = isinstance(self.other_space, spaces.Dict)
            features_extractor_class = CombinedExtractor if is_dict else FlattenExtractor
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation_fn=activation_fn,
            ortho_init=ortho_init,
            log_std_init=log_std_init,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            share_features_extractor=share_features_extractor,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    @property
    def context_space(self) -> ContextSpace | None:
        """The features, units and ranges of the context, where the observation space carried them."""
        return self.context_box.context_space if isinstance(self.context_box, ContextBox) else None

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore
        """Act: return actions ``(B, *action shape)``, values ``(B, 1)`` and log-probabilities ``(B,)``."""
        self._check_context(obs)
        condition = self._condition(self._context(obs))
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
        return self._value(condition, vf_features), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Return the distribution of actions."""
        return self._distribution(self._condition(self._context(obs)), self._features(obs, self.pi_features_extractor))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the values, shape ``(B, 1)``."""
        return self._value(self._condition(self._context(obs)), self._features(obs, self.vf_features_extractor))

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Make a features extractor for everything but the context."""
        return self.features_extractor_class(self.other_space, **self.features_extractor_kwargs)

    def extract_features(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the features of everything but the context, a pair where actor and critic share no extractor."""
        if features_extractor is not None:
            return self._features(obs, features_extractor)
        pi_features, vf_features = self._actor_critic_features(obs)
        return pi_features if self.share_features_extractor else (pi_features, vf_features)

    @abstractmethod
    def _build_networks(self, actor: list[int], action_net: nn.Linear, critic: list[int]) -> None:
        """Make actor and critic.

        :param actor: widths from the features to the last hidden layer of the actor.
        :param action_net: the layer from there to the parameters of the action distribution.
        :param critic: widths from the features to the last hidden layer of the critic.
        """

    @abstractmethod
    def _act(self, condition: Any, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what parametrises the distribution, ``(B, m)``, and the log-std where actions are continuous."""

    @abstractmethod
    def _value(self, condition: Any, features: Tensor) -> Tensor:
        """Return the values, shape ``(B, 1)``."""

    def _condition(self, context: Tensor) -> Any:
        """Prepare the normalised context ``(B, d)`` for ``_act`` and ``_value``."""
        return context

    def _build(self, lr_schedule: Schedule) -> None:
        center, half_width = _center_and_half_width(self.context_box)
        # Not in the state dict: they follow from the observation space, and target networks copy only what is learnt.
        self.register_buffer("context_center", torch.as_tensor(center, dtype=torch.float32), persistent=False)
        self.register_buffer("context_half_width", torch.as_tensor(half_width, dtype=torch.float32), persistent=False)
        net_arch = self.net_arch if isinstance(self.net_arch, dict) else dict(pi=self.net_arch, vf=self.net_arch)
        actor = [self.features_dim, *net_arch.get("pi", [])]
        action_net: Any = self.action_dist.proba_distribution_net(latent_dim=actor[-1])
        if isinstance(self.action_dist, DiagGaussianDistribution):
            action_net, _ = action_net
        self._build_networks(actor, action_net, [self.features_dim, *net_arch.get("vf", [])])
        if self.ortho_init:
            for extractor in {self.pi_features_extractor, self.vf_features_extractor}:
                extractor.apply(partial(self.init_weights, gain=np.sqrt(2)))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # pyright: ignore

    def _perceptron(self, widths: list[int], output: nn.Linear, output_gain: float) -> nn.Sequential:
        """Make a perceptron with ``output`` as its last layer, initialised as SB3 does."""
        hidden = mlp(widths, self.activation_fn, self.activation_fn()) if len(widths) > 1 else nn.Sequential()
        if self.ortho_init:
            hidden.apply(partial(self.init_weights, gain=np.sqrt(2)))
            self.init_weights(output, gain=output_gain)
        return hidden.append(output)

    def _distribution(self, condition: Any, features: Tensor) -> Distribution:
        parameters, log_std = self._act(condition, features)
        if log_std is None:
            return self.action_dist.proba_distribution(parameters)
        return self.action_dist.proba_distribution(parameters, log_std)

    def _context(self, obs: PyTorchObs) -> Tensor:
        """Return the normalised context, shape ``(B, d)``."""
        if isinstance(obs, dict):
            context = obs[self.context_key]
        else:
            context = obs[:, slice(*self.context_slice)]  # pyright: ignore[reportOptionalIterable]
        return (context.float() - self.context_center) / self.context_half_width

    def _features(self, obs: PyTorchObs, extractor: BaseFeaturesExtractor) -> Tensor:
        """Return the features of everything but the context, shape ``(B, n)``."""
        if isinstance(obs, dict):
            other: Any = {key: value for key, value in obs.items() if key != self.context_key}
        else:
            start, stop, _ = slice(*self.context_slice).indices(obs.shape[1])  # pyright: ignore[reportOptionalIterable]
            other = torch.cat([obs[:, :start], obs[:, stop:]], dim=1)
        return extractor(preprocess_obs(other, self.other_space, normalize_images=self.normalize_images))

    def _actor_critic_features(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        pi_features = self._features(obs, self.pi_features_extractor)
        if self.share_features_extractor:
            return pi_features, pi_features
        return pi_features, self._features(obs, self.vf_features_extractor)

    def _check_context(self, obs: PyTorchObs) -> None:
        """Warn, on the first rollout step, about a context that is out of bounds: ``VecNormalize`` does that."""
        if self._context_is_checked or not isinstance(obs, dict) or self.context_space is None:
            return
        self._context_is_checked = True
        context = obs[self.context_key].cpu().numpy()
        low, high = self.context_box.low, self.context_box.high
        if not ((low <= context) & (context <= high)).all():
            warnings.warn(
                f"the context lies outside its bounds {low} to {high}, for example {context[0]}. The policy normalises "
                "the context itself and needs physical units: if this is VecNormalize, give it norm_obs_keys with the "
                f"names of the other entries, without {self.context_key!r}.",
                stacklevel=2,
            )

    def _refuse(self, use_sde: bool, unknown: dict[str, Any]) -> None:
        if use_sde:
            raise ValueError(
                f"use_sde=True makes no sense for {type(self).__name__}: gSDE draws one matrix of exploration noise "
                "for all contexts, while here the standard deviation may depend on the context; leave it False"
            )
        signatures = (inspect.signature(cls.__init__) for cls in (type(self), ContextPolicy))
        parameters = [p for signature in signatures for p in signature.parameters.values()]
        valid = list(dict.fromkeys(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))
        for name in unknown:
            if name in ("full_std", "use_expln", "squash_output"):
                raise ValueError(f"policy_kwargs: {name!r} is for gSDE, which {type(self).__name__} does not use")
            raise ValueError(
                f"policy_kwargs: {type(self).__name__} knows no {name!r}: the names are {valid}.{nearest(name, valid)}"
            )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for name in ("use_sde", "squash_output", "full_std", "use_expln"):
            del data[name]
        return data | dict(
            context_key=self.context_key,
            context_slice=self.context_slice,
            share_features_extractor=self.share_features_extractor,
        )


class HyperPolicy(ContextPolicy):
    """An actor-critic whose weights a hypernetwork produces from the context: actor, critic and log-std.

    :param head: how weights are generated, one of :data:`~hyperrl.hypernet.HEADS`.
    :param rank: directions per layer, of the head ``"low_rank"``.
    :param chunk_size: weights of a chunk, of the head ``"chunked"``.
    :param chunk_embedding: length of a chunk's embedding, of the head ``"chunked"``.
    :param bottleneck: width of the adapter, of the head ``"adapter"``.
    :param embedding: widths of the context encoder's layers.
    :param share_encoder: one context encoder for actor and critic.

    All other parameters are those of :class:`ContextPolicy`.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(head="full"))
    >>> model.policy.context_space.units
    ('m/s²', 'kg', 'm', '1')
    """

    def __init__(
        self,
        *args: Any,
        head: str = "low_rank",
        rank: int | None = None,
        chunk_size: int | None = None,
        chunk_embedding: int | None = None,
        bottleneck: int | None = None,
        embedding: Sequence[int] = (64, 64),
        share_encoder: bool = False,
        **kwargs: Any,
    ) -> None:
        options = dict(rank=rank, chunk_size=chunk_size, chunk_embedding=chunk_embedding, bottleneck=bottleneck)
        self.hyper_kwargs: Final[dict[str, Any]] = dict(head=head, embedding=tuple(embedding)) | {
            name: value for name, value in options.items() if value is not None
        }
        self.share_encoder: Final = share_encoder
        self._kept: _Kept | None = None
        super().__init__(*args, **kwargs)

    def _build_networks(self, actor: list[int], action_net: nn.Linear, critic: list[int]) -> None:
        d = len(self.context_center)
        self.actor = HyperNetwork(d, self._perceptron(actor, action_net, 0.01), **self.hyper_kwargs)
        self.critic = HyperNetwork(
            d,
            self._perceptron(critic, nn.Linear(critic[-1], 1), 1.0),
            **self.hyper_kwargs,
            encoder=self.actor.encoder if self.share_encoder else None,
        )
        self.log_std_generator = None
        if isinstance(self.action_dist, DiagGaussianDistribution):
            self.log_std_generator = nn.Linear(self.hyper_kwargs["embedding"][-1], self.action_dist.action_dim)
            nn.init.zeros_(self.log_std_generator.weight)
            nn.init.constant_(self.log_std_generator.bias, self.log_std_init)

    @property
    def log_std(self) -> Tensor:
        """The log-std ``(m,)`` of continuous actions at the centre of the training range: SB3 logs its mean."""
        if self.log_std_generator is None:
            raise AttributeError("log_std: actions are not continuous")
        return self.log_std_generator(self.actor.encoder(torch.zeros_like(self.context_center)))

    @contextmanager
    def cached_weights(self) -> Iterator[None]:
        """Generate weights once while the contexts of the batch stay the same, where no gradient is asked for.

        For a stretch in which the parameters stay as they are, such as a rollout:
        :class:`~hyperrl.callbacks.CachedRollouts`. Changes are noticed all the same, but for other parameters put
        in their place and for writes into ``parameter.data``, which torch does not count: SB3's ``polyak_update``.
        """
        self._kept = _Kept(list(self.parameters()))
        try:
            yield
        finally:
            self._kept = None

    def _condition(self, context: Tensor) -> _Condition:
        if self._kept is None or torch.is_grad_enabled():
            return _Condition(*distinct(context))
        return self._kept.condition(context)

    def _act(self, condition: _Condition, features: Tensor) -> tuple[Tensor, Tensor | None]:
        if condition.actor is None:
            embedding = condition.embed(self.actor.encoder)  # (K, h)
            log_std = None if self.log_std_generator is None else self.log_std_generator(embedding)  # (K, m)
            condition.actor = self.actor.head.generate(embedding), log_std
        generated, log_std = condition.actor
        parameters = self.actor.head.apply_generated(generated, condition.index, features)  # (B, m)
        return parameters, None if log_std is None else log_std[condition.index]  # (B, m)

    def _value(self, condition: _Condition, features: Tensor) -> Tensor:
        if condition.critic is None:
            condition.critic = self.critic.head.generate(condition.embed(self.critic.encoder))
        return self.critic.head.apply_generated(condition.critic, condition.index, features)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_kept=None)  # a copy is used elsewhere, and outside the stretch

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.hyper_kwargs | dict(share_encoder=self.share_encoder)


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


class _Kept:
    """What was generated last, as long as contexts and parameters are what they were then."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters: Final = parameters
        self.last: tuple[Tensor, list[tuple[int, int]], _Condition] | None = None

    def condition(self, context: Tensor) -> _Condition:
        state = [(parameter._version, parameter.data_ptr()) for parameter in self.parameters]
        if self.last is None or self.last[1] != state or not torch.equal(self.last[0], context):
            self.last = context, state, _Condition(*distinct(context))
        return self.last[2]


class UnawarePolicy(ContextPolicy):
    """An ordinary actor-critic that does not see the context: domain randomisation, the baseline to beat first."""

    def _build_networks(self, actor: list[int], action_net: nn.Linear, critic: list[int]) -> None:
        self.actor = self._perceptron(actor, action_net, 0.01)
        self.critic = self._perceptron(critic, nn.Linear(critic[-1], 1), 1.0)
        if isinstance(self.action_dist, DiagGaussianDistribution):  # SB3 logs log_std where there is one
            self.log_std = nn.Parameter(torch.full((self.action_dist.action_dim,), self.log_std_init))

    def _act(self, condition: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.actor(features), getattr(self, "log_std", None)

    def _value(self, condition: Tensor, features: Tensor) -> Tensor:
        return self.critic(features)


class ConcatPolicy(UnawarePolicy):
    """An ordinary actor-critic that gets the normalised context as extra inputs."""

    def _build_networks(self, actor: list[int], action_net: nn.Linear, critic: list[int]) -> None:
        d = len(self.context_center)
        if len(actor) == 1:  # no hidden layer: the output layer itself gets the context
            action_net = nn.Linear(actor[0] + d, action_net.out_features)
        super()._build_networks([actor[0] + d, *actor[1:]], action_net, [critic[0] + d, *critic[1:]])

    def _act(self, condition: Tensor, features: Tensor) -> tuple[Tensor, Tensor | None]:
        return super()._act(condition, torch.cat([features, condition], dim=1))

    def _value(self, condition: Tensor, features: Tensor) -> Tensor:
        return super()._value(condition, torch.cat([features, condition], dim=1))


def _split_space(
    space: spaces.Space[Any], key: str, context_slice: tuple[int, int | None] | None
) -> tuple[spaces.Box, spaces.Space[Any]]:
    """Divide an observation space into the context and everything else."""
    if isinstance(space, spaces.Dict):
        if context_slice is not None:
            raise ValueError("context_slice is for flat observations; this one is a Dict, so give context_key instead")
        if key not in space.spaces:
            raise ValueError(
                f"the observation has no entry {key!r}: its entries are {list(space.spaces)}."
                f"{nearest(key, space.spaces)} "
                "Name the context by policy_kwargs=dict(context_key=...)"
            )
        context = space.spaces[key]
        others = {name: entry for name, entry in space.spaces.items() if name != key}
        if not others:
            raise ValueError(f"the observation has no entry besides the context {key!r}, so there is nothing to act on")
        other: spaces.Space[Any] = spaces.Dict(others)
    elif isinstance(space, spaces.Box) and len(space.shape) == 1:
        if context_slice is None:
            raise ValueError(
                f"the observation is flat, of shape {space.shape}: say which entries are context, such as "
                "policy_kwargs=dict(context_slice=(-4, None)) for the last four"
            )
        start, stop, _ = slice(*context_slice).indices(space.shape[0])
        if not 0 < stop - start < space.shape[0]:
            raise ValueError(
                f"context_slice={context_slice} takes {max(stop - start, 0)} of the observation's {space.shape[0]} "
                "entries: it must leave some for either part"
            )
        context = spaces.Box(space.low[start:stop], space.high[start:stop], dtype=space.dtype.type)  # pyright: ignore
        rest = np.r_[0:start, stop : space.shape[0]]
        other = spaces.Box(space.low[rest], space.high[rest], dtype=space.dtype.type)  # pyright: ignore
    else:
        raise ValueError(f"expected a Dict observation with a context, or a flat Box, got {space}")
    if not isinstance(context, spaces.Box) or len(context.shape) != 1 or not np.issubdtype(context.dtype, np.floating):
        raise ValueError(f"the context must be a one-dimensional Box of floats, got {context}")
    return context, other


def _center_and_half_width(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Say what normalises a context: the training range it carries, else its bounds, else nothing."""
    if isinstance(box, ContextBox):
        return box.context_space.center_and_half_width
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    # Half of the largest float and more is how some environments write "unbounded".
    bounded = np.maximum(np.abs(low), np.abs(high)) < 1e30
    center = np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0.0)
    half_width = np.where(bounded & (high > low), (np.where(bounded, high, 0) - np.where(bounded, low, 0)) / 2, 1.0)
    return center, half_width
