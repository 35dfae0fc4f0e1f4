"""The hypernetwork policy for TQC of sb3-contrib."""

from __future__ import annotations

from typing import ClassVar

from sb3_contrib.tqc.policies import Actor, Critic, TQCPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from hyperrl.policies.off_policy import GaussianActor, OffPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperTQCPolicy(OffPolicy, TQCPolicy):
    """TQC's policy with the weights of actor and critics generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.generation.Generation`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of sb3-contrib's ``TQCPolicy``.

    >>> from sb3_contrib import TQC
    >>> from hyperrl import load_family
    >>> model = TQC(HyperTQCPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("TQC",)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Make the actor, whose mean and log-std are generated."""
        return _Actor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).generate(self)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Critic:
        """Make the critics of quantiles, each with a hypernetwork of its own."""
        return self._generate_critic(super().make_critic(features_extractor))
