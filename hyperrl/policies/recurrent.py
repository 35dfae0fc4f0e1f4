"""Policies with a memory for sb3-contrib's RecurrentPPO, which find out the context while they act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from hyperrl.hypernet import HyperNetwork
from hyperrl.policies.arguments import names_checked, passed_on
from hyperrl.policies.context import ContextExtractor, usual_extractor
from hyperrl.policies.hyper_config import perceptron
from hyperrl.simulation.last_step import LAST_STEP

FORGET_BIAS: Final = 1.0
"""Added to the bias of the forget gates at first: what is found out is kept (Jozefowicz et al. 2015)."""
States = tuple[Tensor, ...]
"""Of an LSTM: hidden and cell states, each of shape ``(layers, n, h)``."""


class MemoryExtractor(BaseFeaturesExtractor):
    """What a memory reads: features of the observation, and behind them the last action and reward. No context.

    :param observation_space: a Dict, or a flat ``Box``.
    :param context_key: name of the context in a Dict observation, which is left out.
    :raises ValueError: where there is nothing else.

    >>> entries = dict(observation=spaces.Box(-1, 1, (3,)), context=spaces.Box(-1, 1, (4,)))
    >>> extractor = MemoryExtractor(spaces.Dict(entries, last_reward=spaces.Box(-9, 9, (1,))))
    >>> extractor.state_dim, extractor.features_dim
    (3, 4)
    """

    def __init__(self, observation_space: spaces.Space[Any], context_key: str = "context") -> None:
        space: spaces.Space[Any] = observation_space
        last: dict[str, spaces.Space[Any]] = {}
        if isinstance(space, spaces.Dict):
            last = {name: space.spaces[name] for name in LAST_STEP if name in space.spaces}
            space = spaces.Dict({name: entry for name, entry in space.spaces.items() if name not in last})
            if set(space.spaces) <= {context_key}:
                raise ValueError(f"there is nothing to act on among the entries {list(observation_space)}")  # pyright: ignore[reportArgumentType]
        has_context = isinstance(space, spaces.Dict) and context_key in space.spaces
        if has_context:  # those who look for the context of an agent find it here
            extractor = ContextExtractor(space, context_key, include_context=False)
        else:
            extractor = usual_extractor(space)(space)
        width = sum(spaces.flatdim(box) for box in last.values())
        super().__init__(observation_space, extractor.features_dim + width)
        self.extractor = extractor
        self.state_dim: Final = extractor.features_dim
        """How many features are of the observation: the first ones."""
        self._last = tuple(last)

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Return features ``(B, n)``."""
        if not isinstance(observations, dict):
            return self.extractor(observations)
        state = self.extractor({name: entry for name, entry in observations.items() if name not in self._last})
        return torch.cat([state, *(observations[name].float() for name in self._last)], dim=1)


class RecurrentPolicy(RecurrentActorCriticPolicy):
    """An actor-critic with an LSTM for actor and critic, which do not see the context: RL² (Duan et al. 2016).

    It reads whatever is observed but the context. The last action and reward are among that where the environments are
    in :class:`~hyperrl.simulation.VecLastStep`. The memory begins anew with each episode. Unlike in SB3-contrib's own
    policies, actor and critic share it and the gradients of both reach it.

    :param observation_space: a Dict, or a flat ``Box``.
    :param action_space: one that RecurrentPPO serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers behind the memory; ``dict(pi=[...], vf=[...])`` for actor and critic
        apart.
    :param activation_fn: activation of the hidden layers.
    :param ortho_init: initialise orthogonally.
    :param use_sde: must be false: these policies do not explore by gSDE.
    :param log_std_init: log-std of the actions at first.
    :param optimizer_class: the optimiser.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param lstm_hidden_size: width h of the LSTM.
    :param context_key: name of the context in a Dict observation.
    :raises ValueError: for ``use_sde``, and for an observation of nothing but a context.

    >>> from sb3_contrib import RecurrentPPO
    >>> from hyperrl import load_family
    >>> from hyperrl.simulation import VecLastStep
    >>> model = RecurrentPPO(RecurrentPolicy, VecLastStep(load_family("pendulum").vec_env(2)), device="cpu")
    >>> model.policy.lstm_actor.input_size  # three of the pendulum, action and reward
    5
    """

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
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        lstm_hidden_size: int = 64,
        *,
        context_key: str = "context",
    ) -> None:
        if use_sde:
            raise ValueError(f"{type(self).__name__} does not explore by gSDE: leave use_sde=False")
        self.context_key: Final = context_key
        arguments = passed_on(locals(), without=["context_key"])
        extractor: dict[str, Any] = dict(context_key=context_key)
        super().__init__(
            features_extractor_class=MemoryExtractor,
            features_extractor_kwargs=extractor,
            shared_lstm=True,
            enable_critic_lstm=False,
            **arguments,
        )
        h = lstm_hidden_size
        with torch.no_grad():
            self.lstm_actor.get_parameter("bias_ih_l0")[h : 2 * h] += FORGET_BIAS

    def forward(
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: Tensor, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Act: return actions ``(B, *action shape)``, values ``(B, 1)``, log-probabilities ``(B,)`` and the memory."""
        latent, states = self._read(self._features(obs), lstm_states.pi, episode_starts)
        distribution = self._distribution(latent)
        actions = distribution.get_actions(deterministic=deterministic)
        shape: Any = self.action_space.shape
        return (
            actions.reshape((-1, *shape)),
            self._value(latent),
            distribution.log_prob(actions),
            RNNStates(states, states),
        )

    def evaluate_actions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: PyTorchObs, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values ``(B, 1)``, log-probabilities ``(B,)`` of the actions, and entropies ``(B,)``.

        :param obs: of ``s`` sequences one after the other, padded to the same length.
        :param lstm_states: before each sequence, shape ``(1, s, h)`` each.
        """
        latent, _ = self._read(self._features(obs), lstm_states.pi, episode_starts)
        distribution = self._distribution(latent)
        return self._value(latent), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(
        self, obs: PyTorchObs, lstm_states: States, episode_starts: Tensor
    ) -> tuple[Distribution, States]:
        """Return the distribution of actions, and the memory."""
        latent, states = self._read(self._features(obs), lstm_states, episode_starts)
        return self._distribution(latent), states

    def predict_values(self, obs: PyTorchObs, lstm_states: States, episode_starts: Tensor) -> Tensor:
        """Return the values, shape ``(B, 1)``."""
        return self._value(self._read(self._features(obs), lstm_states, episode_starts)[0])

    def _read(self, features: Tensor, states: States, episode_starts: Tensor) -> tuple[Tensor, States]:
        """Return what actor and critic act on, ``(B, h)``, the memory's outputs, and its states after each sequence.

        Sequences of the rollout buffer begin where episodes do, so that the memory need not be cleared within one: then
        one call of the LSTM does what SB3-contrib does in a loop over steps.
        """
        s = states[0].shape[1]
        starts = episode_starts.reshape(s, -1)
        if starts[:, 1:].any():
            h, c = states
            return self._process_sequence(features, (h, c), episode_starts, self.lstm_actor)  # pyright: ignore[reportReturnType]
        kept = (1 - starts[:, 0]).view(1, s, 1)
        sequences = features.reshape(s, -1, self.lstm_actor.input_size).transpose(0, 1)  # (B, n) -> (T, s, n)
        outputs, after = self.lstm_actor(sequences, (kept * states[0], kept * states[1]))
        return outputs.transpose(0, 1).flatten(0, 1), after  # (T, s, h) -> (B, h)

    def _features(self, obs: PyTorchObs) -> Tensor:
        return BaseModel.extract_features(self, obs, self.features_extractor)

    def _distribution(self, latent: Tensor) -> Distribution:
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent))

    def _value(self, latent: Tensor) -> Tensor:
        return self.value_net(self.mlp_extractor.forward_critic(latent))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        ours = ("net_arch", "activation_fn", "ortho_init", "use_sde", "log_std_init", "optimizer_class")
        ours = (*ours, "optimizer_kwargs", "observation_space", "action_space", "lr_schedule")
        data = {name: data[name] for name in ours}
        return data | dict(lstm_hidden_size=self.lstm_actor.hidden_size, context_key=self.context_key)


class HyperRecurrentPolicy(RecurrentPolicy):
    """An actor-critic whose weights a hypernetwork produces from a memory, step by step (Beck et al. 2023).

    An LSTM reads the observation, the last action and the last reward. Its output takes the context's place: an encoder
    maps it to an embedding, and a low-rank head generates the weights of the network that acts on the observation. The
    same for the critic. All memories start from the network that SB3 would make for the observation alone. No context
    is observed.

    :param observation_space: a Dict, or a flat ``Box``.
    :param action_space: one that RecurrentPPO serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers that are generated; ``dict(pi=[...], vf=[...])`` for actor and critic
        apart.
    :param activation_fn: activation of the hidden layers.
    :param ortho_init: initialise orthogonally.
    :param use_sde: must be false: these policies do not explore by gSDE.
    :param log_std_init: log-std of the actions at first.
    :param optimizer_class: the optimiser.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param lstm_hidden_size: width h of the LSTM.
    :param context_key: name of the context in a Dict observation, which is left out.
    :param rank: directions per layer of the low-rank head.
    :param embedding: widths of the layers between the memory and the head.

    >>> from sb3_contrib import RecurrentPPO
    >>> from hyperrl import load_family
    >>> from hyperrl.simulation import VecLastStep
    >>> model = RecurrentPPO(HyperRecurrentPolicy, VecLastStep(load_family("pendulum").vec_env(2)), device="cpu")
    >>> model.policy.actor_network.head.base[0].in_features  # the pendulum's
    3
    """

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
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        lstm_hidden_size: int = 64,
        *,
        context_key: str = "context",
        rank: int = 8,
        embedding: Sequence[int] = (16,),
    ) -> None:
        self.rank: Final = rank
        self.embedding: Final = tuple(embedding)
        super().__init__(**passed_on(locals(), without=["rank", "embedding"]))

    def _build_mlp_extractor(self) -> None:
        width = self.features_extractor.state_dim  # the networks act on the observation, not on the memory
        self.mlp_extractor = MlpExtractor(width, self.net_arch, self.activation_fn, self.device)  # pyright: ignore[reportArgumentType]

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # SB3's networks, initialised as SB3 does: what generation starts from
        layers: Any = self.mlp_extractor
        networks = [
            nn.Sequential(*layers.policy_net, self.action_net),
            nn.Sequential(*layers.value_net, self.value_net),
        ]
        actor, critic = (self._generated(network) for network in networks)
        self.mlp_extractor = _Heads(actor, critic)
        self.action_net, self.value_net = nn.Identity(), nn.Identity()

    def _generated(self, network: nn.Sequential) -> HyperNetwork:
        encoder = perceptron(self.lstm_output_dim, self.embedding)
        return HyperNetwork(self.lstm_output_dim, network, "low_rank", encoder=encoder, rank=self.rank)

    @property
    def actor_network(self) -> HyperNetwork:
        """The actor, generated from the memory's output."""
        return self.mlp_extractor.actor  # pyright: ignore[reportReturnType]

    def _read(self, features: Tensor, states: States, episode_starts: Tensor) -> tuple[Tensor, States]:
        """Return the memory's outputs with the features of the observation behind them, ``(B, h + n)``, and states."""
        outputs, after = super()._read(features, states, episode_starts)
        return torch.cat([outputs, features[:, : self.features_extractor.state_dim]], dim=1), after

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(rank=self.rank, embedding=self.embedding)


class _Heads(nn.Module):
    """Actor and critic in the place of SB3's ``mlp_extractor``."""

    def __init__(self, actor: HyperNetwork, critic: HyperNetwork) -> None:
        super().__init__()
        self.actor = actor
        self.critic = critic

    def forward_actor(self, latent: Tensor) -> Tensor:
        """Return means or logits ``(B, m)`` for memory and observation ``(B, h + n)``."""
        return _apply(self.actor, latent)

    def forward_critic(self, latent: Tensor) -> Tensor:
        """Return values ``(B, 1)`` for memory and observation ``(B, h + n)``."""
        return _apply(self.critic, latent)


def _apply(network: HyperNetwork, latent: Tensor) -> Tensor:
    """Apply to each row the network that its memory generates: each row has one of its own, so none is sought twice."""
    width: int = network.encoder[0].in_features  # pyright: ignore[reportIndexIssue, reportAssignmentType]
    memory, state = latent.tensor_split([width], dim=1)
    rows = torch.arange(len(latent), device=latent.device)
    return network.head(network.encoder(memory), rows, state)
