"""The hypernetwork policy for SAC."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import Actor, SACPolicy

from hyperrl.policies.off_policy import GaussianActor, OffPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperSACPolicy(OffPolicy, SACPolicy):
    """SAC's policy with the weights of actor and critics generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.generation.Generation`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's ``SACPolicy``.

    >>> from stable_baselines3 import SAC
    >>> from hyperrl import load_family
    >>> model = SAC(HyperSACPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("SAC",)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Make the actor, whose mean and log-std are generated."""
        return _Actor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).generate(self)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        """Make the critics, each with a hypernetwork of its own."""
        return self._generate_critic(super().make_critic(features_extractor))
