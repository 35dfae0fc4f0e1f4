"""FiLM: the context scales and shifts the hidden layers of an ordinary actor-critic (Perez et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from hyperrl.hypernet import mlp
from hyperrl.policies.actor_critic import OrdinaryActorCritic
from hyperrl.policies.arguments import names_checked, passed_on
from hyperrl.policies.hyper_config import without


class FilmPolicy(OrdinaryActorCritic, ActorCriticPolicy):
    """An actor-critic whose hidden layers the context modulates: h = φ((1 + γ(c)) ⊙ (W·x + b) + β(c)).

    At initialisation γ = β = 0: all contexts start from the network that SB3 would make. Output layers and the log-std
    are common to all contexts.

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
    :param embedding: widths of the context encoders, one for the actor and one for the critic.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(FilmPolicy, load_family("pendulum").vec_env(2))
    """

    include_context: ClassVar = True  # behind the features, where the networks below take it from

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
        embedding: Sequence[int] = (64, 64),
    ) -> None:
        if not embedding or min(embedding) < 1:
            raise ValueError(f"expected widths ≥ 1, got embedding={list(embedding)}")
        self.embedding: Final = tuple(embedding)
        super().__init__(**passed_on(locals(), without=["embedding"]))

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = _FilmExtractor(
            self.features_dim,
            self.features_extractor.reader.dim,  # pyright: ignore[reportArgumentType]
            self.net_arch,
            self.activation_fn,
            self.embedding,
        ).to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # which initialises every linear layer, those of the modulation too
        for network in (self.mlp_extractor.actor, self.mlp_extractor.critic):
            network.reset_modulation()

    def _hidden_layers(self) -> list[nn.Module]:
        actor = self.mlp_extractor.actor
        return [module for layer in actor.layers for module in (layer, actor.activation)]

    def plain_state(self, context: Tensor) -> dict[str, Tensor]:
        """Return the state dict of SB3's own policy with the layers scaled and shifted for one context.

        :param context: normalised, shape ``(d,)``.
        """
        state = without(super().plain_state(context), "mlp_extractor")
        for name, network in (("policy", self.mlp_extractor.actor), ("value", self.mlp_extractor.critic)):
            modulated = network.in_context(context)
            state |= {f"mlp_extractor.{name}_net.{key}": tensor for key, tensor in modulated.items()}
        return state

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(embedding=self.embedding)


class _FilmExtractor(nn.Module):
    """The hidden layers of actor and critic, as SB3's ``MlpExtractor``: ``(B, n + d)`` to ``(B, width)`` each."""

    def __init__(
        self,
        features_dim: int,
        context_dim: int,
        net_arch: list[int] | dict[str, list[int]],
        activation: type[nn.Module],
        embedding: tuple[int, ...],
    ) -> None:
        super().__init__()
        widths = net_arch if isinstance(net_arch, dict) else dict(pi=net_arch, vf=net_arch)
        self.actor, self.critic = (
            _ModulatedLayers(features_dim - context_dim, context_dim, widths.get(key, []), activation, embedding)
            for key in ("pi", "vf")
        )
        self.latent_dim_pi, self.latent_dim_vf = self.actor.width, self.critic.width

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(features), self.critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return self.actor(features)

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.critic(features)


class _ModulatedLayers(nn.Module):
    """Linear layers, each scaled and shifted by the context before its activation."""

    def __init__(
        self, n: int, d: int, widths: list[int], activation: type[nn.Module], embedding: tuple[int, ...]
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("FilmPolicy modulates hidden layers, and net_arch has none for the actor or the critic")
        self.n: Final = n
        self.widths: Final = widths
        self.width: Final = widths[-1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip([n, *widths], widths, strict=False))
        self.activation = activation()
        self.encoder = mlp([d, *embedding], nn.Tanh, nn.Tanh())
        self.modulation = nn.Linear(embedding[-1], 2 * sum(widths))

    def reset_modulation(self) -> None:
        """Make every γ and β zero."""
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the last hidden layer, ``(B, n + d)`` to ``(B, width)``."""
        x, context = features[:, : self.n], features[:, self.n :]
        for layer, gamma, beta in self._modulated(context):
            x = self.activation((1 + gamma) * layer(x) + beta)
        return x

    def in_context(self, context: Tensor) -> dict[str, Tensor]:
        """Return one context's layers, as the state dict of an ``nn.Sequential`` with activations between them.

        :param context: normalised, shape ``(d,)``.
        """
        state: dict[str, Tensor] = {}
        for i, (layer, gamma, beta) in enumerate(self._modulated(context[None])):
            scale = 1 + gamma[0]  # (out,)
            state[f"{2 * i}.weight"] = scale.unsqueeze(1) * layer.weight
            state[f"{2 * i}.bias"] = scale * layer.bias + beta[0]
        return state

    def _modulated(self, context: Tensor) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        """Yield each layer with its γ and β, ``(B, out)`` each, for contexts ``(B, d)``."""
        gammas, betas = self.modulation(self.encoder(context)).chunk(2, dim=1)  # each (B, all widths)
        yield from zip(self.layers, gammas.split(self.widths, dim=1), betas.split(self.widths, dim=1), strict=True)  # pyright: ignore[reportReturnType]
