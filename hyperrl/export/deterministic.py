"""Deterministic policies as small torch modules: what Stable-Baselines3's ``predict`` does, from end to end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from hyperrl.export.specialization import plain_observation
from hyperrl.policies import ContextExtractor, ContextPolicy
from hyperrl.policies.acting import ActingNetwork

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    activation.__name__: activation
    for activation in (
        nn.Identity,
        nn.Tanh,
        nn.Sigmoid,
        nn.ReLU,
        nn.LeakyReLU,
        nn.ELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
    )
}


class FrozenPolicy(nn.Module):
    """A policy that maps observations to the actions that SB3's ``predict(deterministic=True)`` returns.

    :param network: a perceptron, from observations ``(B, n)`` to what parametrises the actions ``(B, m)``.
    :param decode: turns that into actions.
    :param normalize: normalises observations first.
    :param description: what the file says of the policy, see :func:`hyperrl.export.load`.
    """

    def __init__(
        self,
        network: nn.Sequential,
        decode: Decode,
        normalize: Normalize | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.decode = decode
        self.description: Final = {} if description is None else description

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers of the network."""
        return list(self.network)

    @property
    def inputs(self) -> dict[str, int]:
        """The widths of its inputs, by name."""
        return {"observation": self.observation_dim}

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation, n."""
        return self.network[0].in_features  # pyright: ignore[reportReturnType]

    def forward(self, observation: Tensor) -> Tensor:
        """Return the actions: ``(B, n) -> (B, *action shape)``."""
        if self.normalize is not None:
            observation = self.normalize(observation)
        return self.decode(self.network(observation))

    def predict(self, observation: ArrayLike) -> np.ndarray:
        """Return the action for an observation ``(n,)``, or actions for ``(B, n)``.

        :raises ValueError: for another shape.
        """
        array = np.asarray(observation, dtype=np.float32)
        n = self.observation_dim
        if array.ndim not in (1, 2) or array.shape[-1] != n:
            raise ValueError(f"expected observations of shape ({n},) or (B, {n}), got {array.shape}")
        with torch.no_grad():
            actions = self(torch.as_tensor(array.reshape(-1, n))).numpy()
        return actions if array.ndim == 2 else actions[0]


class OpenPolicy(nn.Module):
    """A policy that gets the context of each row as a second input, in physical units.

    :param acting: what computes the actions.
    :param observation_dim: numbers in an observation, n.
    :param center: of the training range, shape ``(d,)``.
    :param half_width: of the training range, shape ``(d,)``.
    :param decode: turns what parametrises the actions into actions.
    :param normalize: normalises observations first.
    """

    center: Tensor
    half_width: Tensor

    def __init__(
        self,
        acting: ActingNetwork,
        observation_dim: int,
        center: Tensor,
        half_width: Tensor,
        decode: Decode,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        self.network = acting.network
        self.layers: Final = acting.layers
        self.observation_dim: Final = observation_dim
        self.register_buffer("center", center)
        self.register_buffer("half_width", half_width)
        self.normalize = normalize
        self.decode = decode

    @property
    def inputs(self) -> dict[str, int]:
        """The widths of its inputs, by name."""
        return {"observation": self.observation_dim, "context": len(self.center)}

    def forward(self, observation: Tensor, context: Tensor) -> Tensor:
        """Return the actions: ``(B, n), (B, d) -> (B, *action shape)``."""
        if self.normalize is not None:
            observation = self.normalize(observation)
        return self.decode(self.network((context - self.center) / self.half_width, observation))


class Normalize(nn.Module):
    """The statistics of a ``VecNormalize``, as they were: ``clip((x - mean) / std, ±limit)``, in float64 as there.

    :param mean: shape ``(n,)``.
    :param std: shape ``(n,)``.
    :param limit: where normalised observations are clipped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, limit: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.limit: Final = limit

    @classmethod
    def of(cls, normalizer: VecNormalize | None, key: str | None) -> Normalize | None:
        """Take over the statistics of a flat observation, or of one entry of a Dict; ``None`` where there are none.

        :param key: the entry.
        """
        if normalizer is None or not normalizer.norm_obs:
            return None
        rms: Any = normalizer.obs_rms
        if isinstance(rms, dict):
            if key not in rms:
                return None
            rms = rms[key]
        std = np.sqrt(rms.var + normalizer.epsilon)
        mean, std = (torch.tensor(array, dtype=torch.float64) for array in (rms.mean, std))
        return cls(mean, std, float(normalizer.clip_obs))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise observations ``(B, n)``."""
        return ((x.double() - self.mean) / self.std).clamp(-self.limit, self.limit).float()


class Decode(nn.Module):
    """What SB3 makes of a policy's last layer when it predicts deterministically.

    :param space: of the actions.
    :param squash: whether continuous actions are tanh and then scaled to the space (SAC, TD3), or clipped to it (PPO).
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Space[Any], squash: bool) -> None:
        super().__init__()
        self.space: Final = space
        self.squash: Final = squash
        if isinstance(space, spaces.Box):
            self.register_buffer("low", torch.as_tensor(space.low.flatten()), persistent=False)
            self.register_buffer("high", torch.as_tensor(space.high.flatten()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the actions: ``(B, m) -> (B, *action shape)``."""
        space = self.space
        if isinstance(space, spaces.Discrete):
            return x.argmax(1)
        if isinstance(space, spaces.MultiDiscrete):
            return torch.stack([part.argmax(1) for part in x.split(space.nvec.tolist(), dim=1)], dim=1)
        if isinstance(space, spaces.MultiBinary):
            return x.sigmoid().round()
        if self.squash:
            actions = self.low + 0.5 * (x.tanh() + 1) * (self.high - self.low)
        else:
            actions = x.maximum(self.low).minimum(self.high)
        return actions.reshape(-1, *space.shape)  # pyright: ignore[reportOptionalIterable]


def freeze(policy: Any, normalizer: VecNormalize | None, key: str | None) -> FrozenPolicy:
    """Take the actor out of a plain policy of Stable-Baselines3's.

    :param normalizer: what normalised its observations.
    :param key: the entry that it observes, where the normalised observations are a Dict.
    :raises ValueError: where it is no perceptron on a flat observation.
    """
    _check_flat(policy.observation_space, policy.features_extractor_class)
    name = type(policy).__name__
    if type(policy).__module__.partition(".")[0] not in ("stable_baselines3", "sb3_contrib") or name not in STOCK:
        raise ValueError(f"cannot export {name}: known are {', '.join(STOCK)} of SB3 and sb3-contrib")
    _refuse_sde(policy)
    layers, squash = STOCK[name](policy)
    layers = _without_normalisation(layers)
    for layer in layers:
        is_known = type(layer) in ACTIVATIONS.values() and str(layer) == str(type(layer)())
        if type(layer) is not nn.Linear and not is_known:
            raise ValueError(
                f"cannot export the layer {layer}: the activations are {list(ACTIVATIONS)}, without options"
            )
    network = copy.deepcopy(nn.Sequential(*layers)).cpu().eval().requires_grad_(False)
    return FrozenPolicy(network, Decode(policy.action_space, squash), Normalize.of(normalizer, key))


def _averaged(quantile_net: Any) -> list[nn.Module]:
    """Return QR-DQN's network with the mean over quantiles, which its actions are chosen by, in the last layer."""
    *layers, last = quantile_net.quantile_net
    mean = nn.Linear(last.in_features, last.out_features // quantile_net.n_quantiles, device=last.weight.device)
    with torch.no_grad():
        mean.weight.copy_(last.weight.unflatten(0, (quantile_net.n_quantiles, -1)).mean(0))
        mean.bias.copy_(last.bias.unflatten(0, (quantile_net.n_quantiles, -1)).mean(0))
    return [*layers, mean]


def _gaussian(policy: Any) -> tuple[list[nn.Module], bool]:
    return [*policy.actor.latent_pi, policy.actor.mu], True


STOCK: Final[dict[str, Callable[[Any], tuple[list[nn.Module], bool]]]] = {
    "ActorCriticPolicy": lambda policy: ([*policy.mlp_extractor.policy_net, policy.action_net], False),
    "SACPolicy": _gaussian,
    "TQCPolicy": _gaussian,
    "CrossQPolicy": _gaussian,
    "TD3Policy": lambda policy: (list(policy.actor.mu)[:-1], True),  # the last is tanh, which Decode has too
    "DQNPolicy": lambda policy: (list(policy.q_net.q_net), False),
    "QRDQNPolicy": lambda policy: (_averaged(policy.quantile_net), False),
}
"""Layers by which policies of SB3 and sb3-contrib compute deterministic actions, and whether these are squashed."""


def _without_normalisation(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Fold CrossQ's normalisation by running statistics into the linear layers behind it."""
    folded: list[nn.Module] = []
    pending: Any = None
    for layer in layers:
        if type(layer).__name__ == "BatchRenorm1d":
            pending = layer
        elif pending is not None and type(layer) is nn.Linear:
            folded.append(_folded(pending, layer))
            pending = None
        else:
            folded.append(layer)
    return folded


def _folded(norm: Any, layer: nn.Linear) -> nn.Linear:
    """Return ``W·(s ⊙ x + t) + b`` as one layer, s and t being the normalisation."""
    linear = copy.deepcopy(layer)
    with torch.no_grad():
        s = (norm.ra_var.double() + norm.eps).rsqrt()
        t = -norm.ra_mean.double() * s
        if norm.affine:
            s, t = norm.scale.double() * s, norm.scale.double() * t + norm.bias.double()
        linear.weight.copy_(layer.weight.double() * s)
        linear.bias.copy_(layer.bias.double() + layer.weight.double() @ t)
    return linear


def leave_open(policy: Any, extractor: ContextExtractor, normalizer: VecNormalize | None) -> OpenPolicy:
    """Take the actor, and what normalises its context, out of a policy of :mod:`hyperrl.policies`.

    :param extractor: what reads the context.
    :param normalizer: what normalised the observations.
    :raises ValueError: where it is no perceptron on a flat observation.
    """
    space, key, kwargs = plain_observation(policy, extractor)
    n = _check_flat(space, kwargs["features_extractor_class"])
    _refuse_sde(policy)
    if not isinstance(policy, ContextPolicy):
        raise ValueError(
            f"cannot export {type(policy).__name__} with the context left open: known are the policies of "
            "hyperrl.policies; give the context to freeze the policy at"
        )
    acting = _detached(policy.acting_network())
    center, half_width = extractor.reader.center.cpu(), extractor.reader.half_width.cpu()
    decode, normalize = Decode(policy.action_space, acting.squash), Normalize.of(normalizer, key)
    return OpenPolicy(acting, n, center, half_width, decode, normalize)


def _refuse_sde(policy: Any) -> None:
    if getattr(policy, "use_sde", False) or getattr(getattr(policy, "actor", None), "use_sde", False):
        raise ValueError("policies with gSDE (use_sde=True) are not exported")


def _check_flat(space: spaces.Space[Any], extractor: type[nn.Module]) -> int:
    """Return how many numbers an observation has, where it is flat."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"only policies on a flat observation are exported, got {space}")
    if extractor is not FlattenExtractor:
        raise ValueError(f"only policies without a features extractor are exported, got {extractor.__name__}")
    return space.shape[0]


def _detached(acting: ActingNetwork) -> ActingNetwork:
    acting = copy.deepcopy(acting)
    network = acting.network.cpu().eval().requires_grad_(False)
    for layer in network.modules():  # without a learnt base, weights are one zero, expanded: no file stores that
        layer._buffers.update({name: buffer.contiguous() for name, buffer in layer.named_buffers(recurse=False)})
    return acting
