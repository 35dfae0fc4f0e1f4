"""The hypernetwork policy for TQC of sb3-contrib."""

from __future__ import annotations

from typing import ClassVar

from sb3_contrib.tqc.policies import Actor, TQCPolicy

from hyperrl.policies.off_policy import GaussianActor, GaussianPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperTQCPolicy(GaussianPolicy, TQCPolicy):
    """TQC's policy with the weights of actor and critics generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of sb3-contrib's ``TQCPolicy``.

    >>> from sb3_contrib import TQC
    >>> from hyperrl import load_family
    >>> model = TQC(HyperTQCPolicy, load_family("pendulum").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("TQC",)
    actor_class: ClassVar = _Actor
