"""The hypernetwork policy for TQC of sb3-contrib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from sb3_contrib.tqc.policies import Actor, TQCPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from hyperrl.policies.arguments import names_checked, passed_on
from hyperrl.policies.off_policy import GaussianActor, GaussianPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperTQCPolicy(GaussianPolicy, TQCPolicy):
    """TQC's policy with the weights of actor and critics generated from the context.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: one that the algorithm serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param net_arch: widths of the hidden layers; ``dict(pi=[...], qf=[...])`` for actor and critics apart.
    :param activation_fn: activation of the hidden layers.
    :param use_sde: explore by gSDE; the algorithm's ``use_sde`` sets it.
    :param log_std_init: log-std of the actions at first.
    :param use_expln: gSDE: ``expln`` instead of ``exp``, which keeps the std from growing fast.
    :param clip_mean: gSDE: the largest mean of the actions before ``tanh``.
    :param features_extractor_class: features extractor of what is not context; SB3's usual one by default.
    :param features_extractor_kwargs: its keyword arguments.
    :param normalize_images: divide images by 255.
    :param optimizer_class: the optimiser. Adam is fused, unless ``optimizer_kwargs`` say otherwise.
    :param optimizer_kwargs: its keyword arguments but the learning rate.
    :param n_quantiles: the number of quantiles of each critic.
    :param n_critics: the number of critics.
    :param share_features_extractor: one features extractor for actor and critic.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
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

    >>> from sb3_contrib import TQC
    >>> from hyperrl import load_family
    >>> model = TQC(HyperTQCPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    actor_class: ClassVar = _Actor

    @names_checked
    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        use_sde: bool = False,
        log_std_init: float = -3,
        use_expln: bool = False,
        clip_mean: float = 2.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_quantiles: int = 25,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
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
    ) -> None:
        super().__init__(**passed_on(locals()))
