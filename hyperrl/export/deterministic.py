"""Deterministic policies as small torch modules: what Stable-Baselines3's ``predict`` does, from end to end."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from hyperrl.export.specialization import plain_observation
from hyperrl.hypernet import HyperNetwork
from hyperrl.hypernet.heads import AdapterHead
from hyperrl.hypernet.targets import layers
from hyperrl.policies import ContextExtractor, HyperDQNPolicy, HyperPolicy, HyperSACPolicy, HyperTD3Policy

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
PLAIN: Final = ("ActorCriticPolicy", "SACPolicy", "TD3Policy", "DQNPolicy", "TQCPolicy", "QRDQNPolicy", "CrossQPolicy")


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
        n: Any = self.network[0].in_features
        if array.ndim not in (1, 2) or array.shape[-1] != n:
            raise ValueError(f"expected observations of shape ({n},) or (B, {n}), got {array.shape}")
        with torch.no_grad():
            actions = self(torch.as_tensor(array.reshape(-1, n))).numpy()
        return actions if array.ndim == 2 else actions[0]


class OpenPolicy(nn.Module):
    """A hypernetwork policy that gets the context of each row as a second input, in physical units.

    :param hyper: from observations ``(B, n)`` to what parametrises the actions ``(B, m)``.
    :param center: of the training range, shape ``(d,)``.
    :param half_width: of the training range, shape ``(d,)``.
    :param decode: turns what parametrises the actions into actions.
    :param normalize: normalises observations first.
    """

    center: Tensor
    half_width: Tensor

    def __init__(
        self,
        hyper: HyperNetwork,
        center: Tensor,
        half_width: Tensor,
        decode: Decode,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        self.hyper = hyper
        self.register_buffer("center", center)
        self.register_buffer("half_width", half_width)
        self.normalize = normalize
        self.decode = decode

    def forward(self, observation: Tensor, context: Tensor) -> Tensor:
        """Return the actions: ``(B, n), (B, d) -> (B, *action shape)``."""
        if self.normalize is not None:
            observation = self.normalize(observation)
        return self.decode(_row_by_row(self.hyper, (context - self.center) / self.half_width, observation))


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
            x = x[:, : len(self.low)]  # generated together with the log-std, where the context is left open
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
    if type(policy).__module__.partition(".")[0] not in ("stable_baselines3", "sb3_contrib") or name not in PLAIN:
        raise ValueError(f"cannot export {name}: known are {', '.join(PLAIN)} of SB3 and sb3-contrib")
    _refuse_sde(policy)
    squash = False
    if name == "ActorCriticPolicy":
        layers = [*policy.mlp_extractor.policy_net, policy.action_net]
    elif name == "DQNPolicy":
        layers = list(policy.q_net.q_net)
    elif name == "QRDQNPolicy":
        layers = _averaged(policy.quantile_net)
    elif name == "TD3Policy":
        *layers, _tanh = policy.actor.mu  # which Decode has too
        squash = True
    else:
        layers, squash = [*policy.actor.latent_pi, policy.actor.mu], True
    for layer in layers:
        is_known = type(layer) in ACTIVATIONS.values() and str(layer) == str(type(layer)())
        if type(layer) is not nn.Linear and not is_known:
            raise ValueError(
                f"cannot export the layer {layer}: the activations are {list(ACTIVATIONS)}, without options"
            )
    network = _detached(nn.Sequential(*layers))
    return FrozenPolicy(network, Decode(policy.action_space, squash), Normalize.of(normalizer, key))


def _averaged(quantile_net: Any) -> list[nn.Module]:
    """Return QR-DQN's network with the mean over quantiles, which its actions are chosen by, in the last layer."""
    *layers, last = quantile_net.quantile_net
    mean = nn.Linear(last.in_features, last.out_features // quantile_net.n_quantiles, device=last.weight.device)
    with torch.no_grad():
        mean.weight.copy_(last.weight.unflatten(0, (quantile_net.n_quantiles, -1)).mean(0))
        mean.bias.copy_(last.bias.unflatten(0, (quantile_net.n_quantiles, -1)).mean(0))
    return [*layers, mean]


def leave_open(policy: Any, extractor: ContextExtractor, normalizer: VecNormalize | None) -> OpenPolicy:
    """Take the actor, and what normalises its context, out of a hypernetwork policy.

    :param extractor: what reads the context.
    :param normalizer: what normalised the observations.
    :raises ValueError: where it is no perceptron on a flat observation.
    """
    space, key, kwargs = plain_observation(policy, extractor)
    _check_flat(space, kwargs["features_extractor_class"])
    squash = isinstance(policy, HyperSACPolicy | HyperTD3Policy)
    actor: Any = getattr(policy, "q_net" if isinstance(policy, HyperDQNPolicy) else "actor", None)
    if isinstance(policy, HyperPolicy):
        hyper = actor
    elif isinstance(policy, HyperSACPolicy):
        (hyper,) = actor.network.networks
    elif isinstance(policy, HyperTD3Policy):
        (hyper,) = actor.mu[0].networks
    elif isinstance(policy, HyperDQNPolicy):
        (hyper,) = actor.q_net.networks
    else:
        raise ValueError(
            f"cannot export {type(policy).__name__} with the context left open: known are HyperPolicy, HyperSACPolicy, "
            "HyperTD3Policy and HyperDQNPolicy; give the context to freeze the policy at"
        )
    _refuse_sde(policy)
    center, half_width = extractor.reader.center.cpu(), extractor.reader.half_width.cpu()
    decode, normalize = Decode(policy.action_space, squash), Normalize.of(normalizer, key)
    return OpenPolicy(_detached(hyper), center, half_width, decode, normalize)


def _refuse_sde(policy: Any) -> None:
    if getattr(policy, "use_sde", False) or getattr(getattr(policy, "actor", None), "use_sde", False):
        raise ValueError("policies with gSDE (use_sde=True) are not exported")


def _check_flat(space: spaces.Space[Any], extractor: type[nn.Module]) -> None:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"only policies on a flat observation are exported, got {space}")
    if extractor is not FlattenExtractor:
        raise ValueError(f"only policies without a features extractor are exported, got {extractor.__name__}")


def _detached(module: Any) -> Any:
    module = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    for layer in module.modules():  # without a learnt base, weights are one zero, expanded: no file stores that
        layer._buffers.update({name: buffer.contiguous() for name, buffer in layer.named_buffers(recurse=False)})
    return module


def _row_by_row(hyper: HyperNetwork, context: Tensor, x: Tensor) -> Tensor:
    """Do what the hypernetwork does with one set of weights a row: finding distinct contexts makes no static graph."""
    weights = hyper.head.weights(hyper.encoder(context))  # {name: (B, *shape)}
    target: Any = hyper.head.base
    if isinstance(hyper.head, AdapterHead):
        x = target[:-1](x)
        adapter: Any = hyper.head.adapter.base
        weights = {name.removeprefix("adapter."): weight for name, weight in weights.items()}
        return target[-1](x + _perceptron(adapter, weights, x))
    return _perceptron(target, dict(target.named_parameters()) | weights, x)


def _perceptron(target: nn.Sequential, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Apply a perceptron with weights common to all rows, or of each row: ``(B, n) -> (B, m)``."""
    for name, layer in layers(target):
        is_linear = isinstance(layer, nn.Linear)
        x = _product(weights[f"{name}.weight"], x) + weights[f"{name}.bias"] if is_linear else layer(x)
    return x


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """Multiply each row by a matrix, its own or a common one: ``(B, out, in) or (out, in), (B, in) -> (B, out)``."""
    return torch.matmul(weight, x.unsqueeze(-1)).squeeze(-1)
