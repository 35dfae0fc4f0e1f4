"""The hypernetwork policy for DQN."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from hyperrl.policies.off_policy import GeneratedPart, OffPolicy


class _QNetwork(GeneratedPart, QNetwork):
    def _generate(self) -> None:
        self.q_net: Any = self._generated(self.q_net)


class HyperDQNPolicy(OffPolicy, DQNPolicy):
    """DQN's policy with the weights of the Q-network generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of SB3's ``DQNPolicy``.

    >>> from stable_baselines3 import DQN
    >>> from hyperrl import load_family
    >>> model = DQN(HyperDQNPolicy, load_family("cartpole").vec_env(2), policy_kwargs=dict(net_arch=[64, 64]))
    """

    algorithms: ClassVar = ("DQN",)

    def make_q_net(self) -> QNetwork:
        """Make the Q-network."""
        return self._make(_QNetwork, self.net_args)
