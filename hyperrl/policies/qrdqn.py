"""The hypernetwork policy for QR-DQN of sb3-contrib."""

from __future__ import annotations

from typing import Any, ClassVar

from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork

from hyperrl.policies.off_policy import GeneratedPart, OffPolicy


class _QuantileNetwork(GeneratedPart, QuantileNetwork):
    def _generate(self) -> None:
        self.quantile_net: Any = self._generated(self.quantile_net)


class HyperQRDQNPolicy(OffPolicy, QRDQNPolicy):
    """QR-DQN's policy with the weights of the network of quantiles generated from the context.

    :param kwargs: those of :class:`~hyperrl.policies.hyper_config.HyperConfig`, of
        :class:`~hyperrl.policies.context.ContextPolicy` and of sb3-contrib's ``QRDQNPolicy``.

    >>> from sb3_contrib import QRDQN
    >>> from hyperrl import load_family
    >>> model = QRDQN(HyperQRDQNPolicy, load_family("cartpole").vec_env(2), policy_kwargs=dict(n_quantiles=25))
    """

    algorithms: ClassVar = ("QRDQN",)

    def make_quantile_net(self) -> QuantileNetwork:
        """Make the network of quantiles."""
        return self._make(_QuantileNetwork, self.net_args)
