"""The hypernetwork policy for CrossQ of sb3-contrib."""

from __future__ import annotations

from typing import ClassVar

from sb3_contrib.crossq.policies import Actor, CrossQCritic, CrossQPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from hyperrl.policies.off_policy import GaussianActor, OffPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperCrossQPolicy(OffPolicy, CrossQPolicy):
    """CrossQ's policy with the weights of actor and critics generated from the context.

    Its layers of batch renormalisation are common to all contexts and normalise over all rows of a batch. CrossQ takes
    flat observations only: say by ``context_slice`` which entries are context.

    :param kwargs: those of :class:`~hyperrl.policies.generation.Generation`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of sb3-contrib's ``CrossQPolicy``.

    >>> from gymnasium import spaces
    >>> space, actions = spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (1,))
    >>> policy = HyperCrossQPolicy(space, actions, lambda _: 1e-3, context_slice=(-2, None))
    """

    algorithms: ClassVar = ("CrossQ",)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """Make the actor, whose mean and log-std are generated."""
        return _Actor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).generate(self)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> CrossQCritic:
        """Make the critics, each with a hypernetwork of its own."""
        return self._generate_critic(super().make_critic(features_extractor))
