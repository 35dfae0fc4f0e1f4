"""Specialising: a policy frozen at one context, as Stable-Baselines3's own plain policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import Tensor, nn

from hyperrl.hypernet import HyperNetwork
from hyperrl.hypernet.heads import AdapterHead
from hyperrl.policies import ConcatPolicy, ContextPolicy, HyperPolicy

if TYPE_CHECKING:
    from stable_baselines3.common.type_aliases import GymEnv
    from stable_baselines3.common.vec_env import VecNormalize

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)

# What belongs to the environments that the model was trained in, or is made anew for the plain policy.
_LEFT_BEHIND = (
    *("observation_space", "policy_class", "policy_kwargs", "n_envs", "seed"),
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
)


def specialize(model: Algorithm, context: Mapping[str, float] | ArrayLike, env: GymEnv | None = None) -> Algorithm:
    """Return the same algorithm with Stable-Baselines3's plain policy, which acts as ``model`` does in one context.

    Weights are folded: the result has SB3's ``MlpPolicy``, costs what that costs, and its zip loads without hyperrl.
    It observes all that is not context, a sole entry of a Dict as an observation of its own. Hyperparameters,
    schedules and ``num_timesteps`` come along, for ``learn(..., reset_num_timesteps=False)``; the optimiser's state
    does not, since it is that of other parameters. ``model`` stays as it is.

    :param model: a model with one of the policies of :mod:`hyperrl.policies`.
    :param context: in physical units, a mapping from feature names to values (the rest at default) or a vector of
        shape ``(d,)``.
    :param env: environments to go on learning in, which observe no context. They can come later too, by
        ``set_env`` if they are as many as the model's, else by ``load(path, env=...)``.
    :raises ValueError: for another policy; for a faulty context; for the head ``"adapter"``, which no plain policy
        can copy; where ``VecNormalize`` normalises the context, since then the policy knows no physical units.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), device="cpu")
    >>> plain = specialize(model, {"length": 0.7})
    >>> type(plain.policy).__name__, plain.observation_space.shape
    ('ActorCriticPolicy', (3,))
    """
    policy = model.policy
    if not isinstance(policy, ContextPolicy):
        raise ValueError(f"expected a model whose policy gets a context, got one with {type(policy).__name__}")
    refuse_normalized_context(policy, model.get_vec_normalize_env())
    vector = torch.as_tensor(context_vector(policy, context), dtype=torch.float32, device=policy.device)
    with torch.no_grad():
        networks = _networks(policy, (vector - policy.context_center) / policy.context_half_width)
    space, key, extractor_kwargs = plain_observation(policy)
    alias: Any = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    plain = type(model)(alias, env=None, device=model.device, _init_setup_model=False)  # pyright: ignore
    vars(plain).update(_carried_over(model))
    plain.observation_space = space
    plain.policy_kwargs = _plain_kwargs(policy) | extractor_kwargs
    plain.n_envs = model.n_envs if env is None else getattr(env, "num_envs", 1)
    with torch.random.fork_rng(devices=[]):  # and without the seed, which SB3 would give to all generators
        plain._setup_model()
    plain.seed = model.seed
    plain.policy.load_state_dict(networks | _features_extractors(policy, key))
    if env is not None:
        plain.set_env(env)
    return plain


def context_vector(policy: ContextPolicy, context: Mapping[str, float] | ArrayLike) -> np.ndarray:
    """Check a context and return it in physical units, shape ``(d,)``."""
    if policy.context_space is not None:
        return policy.context_space.vector(context)
    shape = policy.context_box.shape
    if isinstance(context, Mapping):
        raise ValueError(
            f"the features of this model's context have no names, since it was trained on no ContextBox: give a vector "
            f"of shape {shape} instead of {dict(context)}"
        )
    vector = np.asarray(context, dtype=np.float64)
    if vector.shape != shape or not np.isfinite(vector).all():
        raise ValueError(f"expected a context of finite numbers of shape {shape}, got {context!r}")
    return vector


def refuse_normalized_context(policy: ContextPolicy, normalizer: VecNormalize | None) -> None:
    """Refuse a ``VecNormalize`` that normalises the context: behind it, the policy knows no physical units."""
    if normalizer is None or not normalizer.norm_obs:
        return
    if policy.context_slice is None and policy.context_key not in (normalizer.norm_obs_keys or ()):
        return
    raise ValueError(
        "VecNormalize normalises the context of this model, so that its policy knows no physical units: train it on a "
        f"Dict observation with norm_obs_keys={list(getattr(policy.other_space, 'spaces', ['observation']))}"
    )


def plain_observation(policy: ContextPolicy) -> tuple[spaces.Space[Any], str | None, dict[str, Any]]:
    """Say what the plain policy observes, which sole entry of a Dict that is, and how it extracts features."""
    space = copy.deepcopy(policy.other_space)
    extractor: type[BaseFeaturesExtractor] = policy.features_extractor_class
    kwargs = dict(policy.features_extractor_kwargs)
    key = None
    # A features extractor of the user's own may expect a Dict, even of a sole entry.
    if isinstance(space, spaces.Dict) and len(space.spaces) == 1 and extractor is CombinedExtractor:
        ((key, space),) = space.spaces.items()
        if isinstance(policy.features_extractor.extractors[key], NatureCNN):  # pyright: ignore
            extractor = NatureCNN
            kwargs = {"features_dim": kwargs.pop("cnn_output_dim", 256)} | kwargs
        else:
            extractor, kwargs = FlattenExtractor, {}
    return space, key, dict(features_extractor_class=extractor, features_extractor_kwargs=kwargs)


def _plain_kwargs(policy: ContextPolicy) -> dict[str, Any]:
    """Return the keyword arguments of SB3's plain policy."""
    names = ("net_arch", "activation_fn", "ortho_init", "log_std_init", "share_features_extractor")
    names += ("normalize_images", "optimizer_class", "optimizer_kwargs")
    return {name: copy.deepcopy(getattr(policy, name)) for name in names}


def _carried_over(model: BaseAlgorithm) -> dict[str, Any]:
    """Return copies of the attributes that the plain model takes from the model."""
    excluded = {*model._excluded_save_params(), *_LEFT_BEHIND}
    state_dicts, variables = model._get_torch_save_params()
    excluded |= {name.split(".")[0] for name in (*state_dicts, *variables)}
    data = {name: value for name, value in model.__dict__.items() if name not in excluded}
    for name, automatic in (("rollout_buffer_class", DictRolloutBuffer), ("replay_buffer_class", DictReplayBuffer)):
        if data.get(name) is automatic:
            data[name] = None  # SB3 chooses again, for the new observation space
    return copy.deepcopy(data)


def _features_extractors(policy: ContextPolicy, key: str | None) -> dict[str, Tensor]:
    """Return the features extractors' part of the state dict, the extractor of a sole entry standing alone."""
    state = {name: value for name, value in policy.state_dict().items() if "features_extractor." in name}
    return state if key is None else {name.replace(f".extractors.{key}.", ".", 1): v for name, v in state.items()}


def _networks(policy: ContextPolicy, context: Tensor) -> dict[str, Tensor]:
    """Return the networks' part of the plain policy's state dict, for a normalised context of shape ``(d,)``."""
    actor: Any = policy.actor
    critic: Any = policy.critic
    state = _perceptron(actor, policy, context, "mlp_extractor.policy_net", "action_net")
    state |= _perceptron(critic, policy, context, "mlp_extractor.value_net", "value_net")
    if isinstance(policy, HyperPolicy):
        if policy.log_std_generator is not None:
            state["log_std"] = policy.log_std_generator(policy.actor.encoder(context))
    elif hasattr(policy, "log_std"):
        state["log_std"] = policy.log_std
    return state


def _perceptron(
    network: nn.Module, policy: ContextPolicy, context: Tensor, hidden: str, output: str
) -> dict[str, Tensor]:
    """Return the weights of a perceptron in one context, its layers named as SB3 names them."""
    if isinstance(network, HyperNetwork):
        if isinstance(network.head, AdapterHead):
            raise ValueError(
                "head='adapter' adds a layer of another kind before the last one, which no plain policy of SB3 has; "
                "all other heads can be specialised, and hyperrl.export writes the whole policy as ONNX"
            )
        weights = network.weights(context)
    else:
        weights = dict(network.state_dict())
        if isinstance(policy, ConcatPolicy):  # what the context adds is a bias
            weight, bias = list(weights)[:2]
            n = weights[weight].shape[1] - len(context)
            weights[bias] = weights[bias] + weights[weight][:, n:] @ context
            weights[weight] = weights[weight][:, :n]
    *_, (last, _, _) = (name.rpartition(".") for name in weights)
    return {
        f"{output}.{kind}" if layer == last else f"{hidden}.{layer}.{kind}": weight
        for (layer, _, kind), weight in ((name.rpartition("."), weight) for name, weight in weights.items())
    }
