"""The hypernetwork policy for CrossQ of sb3-contrib."""

from __future__ import annotations

from typing import ClassVar

from sb3_contrib.crossq.policies import Actor, CrossQPolicy

from hyperrl.policies.off_policy import GaussianActor, GaussianPolicy


class _Actor(GaussianActor, Actor):
    pass


class HyperCrossQPolicy(GaussianPolicy, CrossQPolicy):
    """CrossQ's policy with the weights of actor and critics generated from the context.

    Its layers of batch renormalisation are common to all contexts and normalise over all rows of a batch. CrossQ takes
    flat observations only: say by ``context_slice`` which entries are context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of sb3-contrib's ``CrossQPolicy``.

    >>> from gymnasium import spaces
    >>> space, actions = spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (1,))
    >>> policy = HyperCrossQPolicy(space, actions, lambda _: 1e-3, context_slice=(-2, None))
    """

    algorithms: ClassVar = ("CrossQ",)
    actor_class: ClassVar = _Actor
