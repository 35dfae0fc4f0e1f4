"""The hypernetwork policy for TD3 and DDPG."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.td3.policies import Actor, TD3Policy
from torch import nn

from hyperrl.policies.off_policy import GeneratedPart, OffPolicyActorCritic


class _Actor(GeneratedPart, Actor):
    """TD3's actor, generated up to the ``tanh`` behind its last layer."""

    def _generate(self) -> None:
        *layers, tanh = self.mu
        self.mu = nn.Sequential(self._generated(nn.Sequential(*layers)), tanh)


class HyperTD3Policy(OffPolicyActorCritic, TD3Policy):
    """TD3's policy, and DDPG's, with the weights of actor and critics generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's ``TD3Policy``.

    >>> from stable_baselines3 import TD3
    >>> from hyperrl import load_family
    >>> model = TD3(HyperTD3Policy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("TD3", "DDPG")

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Make the actor."""
        return self._make(_Actor, self.actor_kwargs, features_extractor)
