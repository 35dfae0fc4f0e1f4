"""Specialising: a policy frozen at one context, as Stable-Baselines3's own plain policy."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.utils import check_for_correct_spaces
from torch import Tensor

from hyperrl.alignment.acting import find_aligned
from hyperrl.contexts import ContextBox
from hyperrl.device.algorithms import plain_algorithm
from hyperrl.policies import ContextExtractor, ContextPolicy
from hyperrl.policies.context import ContextReader, context_extractor

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
    does not, since it is that of other parameters, nor does a replay buffer, which holds other observations. ``model``
    stays as it is.

    :param model: a model with a policy of :mod:`hyperrl.policies`, or with one of SB3's own behind a
        :class:`~hyperrl.policies.ContextExtractor`.
    :param context: in physical units, a mapping from feature names to values (the rest at default) or a vector of
        shape ``(d,)``.
    :param env: environments to go on learning in, which observe no context. They can come later too, by
        ``set_env`` if they are as many as the model's, else by ``load(path, env=...)``.
    :raises ValueError: for another policy; for a faulty context; for the head ``"adapter"``, which no plain policy
        can copy; where ``VecNormalize`` normalises the context, since then the policy knows no physical units.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), device="cpu")
    >>> plain = specialize(model, {"length": 0.7})
    >>> type(plain.policy).__name__, plain.observation_space.shape
    ('ActorCriticPolicy', (3,))
    """
    policy = model.policy
    refuse_memory(model)
    extractor = context_extractor(policy)
    if extractor is None:
        raise ValueError(f"expected a model whose policy gets a context, got one with {type(policy).__name__}")
    reader = extractor.reader
    refuse_normalized_context(reader, model.get_vec_normalize_env())
    vector = torch.as_tensor(context_vector(reader, context), dtype=torch.float32, device=policy.device)
    space, key, extractor_kwargs = plain_observation(policy, extractor)
    if env is not None and isinstance(env.observation_space, spaces.Dict) and not isinstance(space, spaces.Dict):
        raise ValueError(
            f"expected environments that observe {space}, got {env.observation_space}: take the entry out by SB3's "
            f"VecExtractDictObs(env, {key!r})"
        )
    alias: Any = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    made: Any = plain_algorithm(model)
    plain = made(alias, env=env, device=model.device, _init_setup_model=False)
    if env is not None:
        check_for_correct_spaces(plain.env, space, model.action_space)
    else:
        plain.n_envs = model.n_envs
    vars(plain).update(_carried_over(model))
    plain.observation_space = space
    names = inspect.signature(plain.policy_class).parameters
    kwargs = {name: copy.deepcopy(value) for name, value in model.policy_kwargs.items() if name in names}
    net_arch: Any = policy.net_arch
    plain.policy_kwargs = kwargs | extractor_kwargs | dict(net_arch=net_arch)
    with torch.random.fork_rng(devices=[]):  # and without the seed, which SB3 would give to all generators
        plain._setup_model()
    plain.seed = model.seed
    with torch.no_grad():
        normalized = reader.normalize(vector)
        state = policy.plain_state(normalized) if isinstance(policy, ContextPolicy) else policy.state_dict()
        state = _renamed_extractors(state, policy, key)
        _fold_inputs(state, plain.policy.state_dict(), extractor.extractor.features_dim, normalized)
    plain.policy.load_state_dict(state)
    for name in model._get_torch_save_params()[1]:  # SAC's entropy coefficient
        if getattr(model, name, None) is not None:
            getattr(plain, name).data.copy_(getattr(model, name).data)
    return plain


def context_vector(reader: ContextReader, context: Mapping[str, float] | ArrayLike) -> np.ndarray:
    """Check a context and return it in physical units, shape ``(d,)``."""
    if isinstance(reader.box, ContextBox):
        return reader.box.context_space.vector(context)
    if isinstance(context, Mapping):
        raise ValueError(
            f"the features of this model's context have no names, since it was trained on no ContextBox: give a vector "
            f"of shape ({reader.dim},) instead of {dict(context)}"
        )
    vector = np.asarray(context, dtype=np.float64)
    if vector.shape != (reader.dim,) or not np.isfinite(vector).all():
        raise ValueError(f"expected a context of finite numbers of shape ({reader.dim},), got {context!r}")
    return vector


def refuse_memory(model: BaseAlgorithm) -> None:
    """Refuse a model that acts on its last transitions, by an encoder of them or a recurrent policy."""
    if hasattr(model.policy, "lstm_actor"):
        raise ValueError(
            f"{type(model.policy).__name__} acts on what it remembers of an episode: it has no plain policy for one "
            "context, and none of the files keeps a memory"
        )
    if find_aligned(model) is not None:
        raise ValueError(
            "this agent finds its context by itself while it acts (hyperrl.alignment): its policy needs the encoder, "
            "so it has no plain policy for one context, and no file of the policy alone would act as it does"
        )


def refuse_normalized_context(reader: ContextReader, normalizer: VecNormalize | None) -> None:
    """Refuse a ``VecNormalize`` that normalises the context: behind it, the policy knows no physical units."""
    if normalizer is None or not normalizer.norm_obs:
        return
    if reader.slice is None and reader.key not in (normalizer.norm_obs_keys or ()):
        return
    raise ValueError(
        "VecNormalize normalises the context of this model, so that its policy knows no physical units: train it on a "
        f"Dict observation with norm_obs_keys={list(getattr(reader.other_space, 'spaces', ['observation']))}"
    )


def plain_observation(
    policy: BasePolicy, extractor: ContextExtractor
) -> tuple[spaces.Space[Any], str | None, dict[str, Any]]:
    """Say what the plain policy observes, which sole entry of a Dict that is, and how it extracts features."""
    space = copy.deepcopy(extractor.reader.other_space)
    inner: Any = extractor.extractor
    kwargs = dict(policy.features_extractor_kwargs)
    if not isinstance(policy, ContextPolicy):  # then they are ContextExtractor's own
        kwargs = dict(kwargs.get("extractor_kwargs") or {})
    extractor_class: type[BaseFeaturesExtractor] = type(inner)
    key = None
    # A features extractor of the user's own may expect a Dict, even of a sole entry.
    if isinstance(space, spaces.Dict) and len(space.spaces) == 1 and extractor_class is CombinedExtractor:
        ((key, space),) = space.spaces.items()
        if isinstance(inner.extractors[key], NatureCNN):
            extractor_class = NatureCNN
            kwargs = {"features_dim": kwargs.pop("cnn_output_dim", 256)} | kwargs
        else:
            extractor_class, kwargs = FlattenExtractor, {}
    return space, key, dict(features_extractor_class=extractor_class, features_extractor_kwargs=kwargs)


def _carried_over(model: BaseAlgorithm) -> dict[str, Any]:
    """Return copies of the attributes that the plain model takes from the model."""
    excluded = {*model._excluded_save_params(), *_LEFT_BEHIND}
    state_dicts, variables = model._get_torch_save_params()
    excluded |= {name.split(".")[0] for name in (*state_dicts, *variables)}
    data = {name: value for name, value in vars(model).items() if name not in excluded}
    for name, automatic in (("rollout_buffer_class", DictRolloutBuffer), ("replay_buffer_class", DictReplayBuffer)):
        if data.get(name) is automatic:
            data[name] = None  # SB3 chooses again, for the new observation space
    return copy.deepcopy(data)


def _renamed_extractors(state: Mapping[str, Tensor], policy: BasePolicy, key: str | None) -> dict[str, Tensor]:
    """Put the ordinary features extractors in the place of those that read the context too."""
    renamed = dict(state)
    inner = ".extractor." if key is None else f".extractor.extractors.{key}."
    for path, module in policy.named_modules(remove_duplicate=False):
        if isinstance(module, ContextExtractor):
            for name in [name for name in renamed if name.startswith(path + inner)]:
                renamed[f"{path}.{name.removeprefix(path + inner)}"] = renamed.pop(name)
    return renamed


def _fold_inputs(state: dict[str, Tensor], plain: Mapping[str, Tensor], n: int, context: Tensor) -> None:
    """Turn what the columns of the context add to a layer, those after the first n, into a bias."""
    for name, wanted in plain.items():
        weight = state[name]
        if weight.shape != wanted.shape:
            if weight.ndim != 2:
                raise ValueError(
                    f"the layer {name.rpartition('.')[0]!r} normalises the context as one input among others, which a "
                    "plain policy without it cannot copy"
                )
            before, columns, after = weight.tensor_split([n, n + len(context)], dim=1)
            bias = name.removesuffix("weight") + "bias"
            state[bias] = state[bias] + columns @ context
            state[name] = torch.cat([before, after], dim=1)
