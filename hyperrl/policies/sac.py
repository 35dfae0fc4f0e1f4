"""The hypernetwork policy for SAC."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3.sac.policies import Actor, SACPolicy

from hyperrl.policies.off_policy import GaussianActor, GaussianPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperSACPolicy(GaussianPolicy, SACPolicy):
    """SAC's policy with the weights of actor and critics generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's ``SACPolicy``.

    >>> from stable_baselines3 import SAC
    >>> from hyperrl import load_family
    >>> model = SAC(HyperSACPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("SAC",)
    actor_class: ClassVar = _Actor
