"""Schedules: which parameters learn at which time.

- Jointly, the default: one optimiser for all parameters.
- Alternately: base weights and hypernetwork take turns, see :class:`Alternating`.
- In sequence: first the hypernetwork alone, while the base keeps its initialisation; then the generated weights of one
  context alone, as an ordinary network:

>>> import torch
>>> from hyperrl.hypernet import HyperNetwork, mlp
>>> hyper = HyperNetwork(4, mlp([3, 16, 2], torch.nn.Tanh))
>>> first = torch.optim.Adam(hyper.hyper_parameters(), lr=1e-3)
>>> network = mlp([3, 16, 2], torch.nn.Tanh)
>>> network.load_state_dict(hyper.weights(torch.zeros(4)))  # after some steps of the first
<All keys matched successfully>
>>> then = torch.optim.Adam(network.parameters(), lr=1e-4)
"""

from __future__ import annotations

from typing import Final, final

from hyperrl.hypernet.network import HyperNetwork


@final
class Alternating:
    """Let base weights and hypernetwork learn in turn, the base first. ``requires_grad`` of the other is off.

    One optimiser for all parameters is enough: parameters without gradients do not change, and their moments neither.
    With Stable-Baselines3, call :meth:`step` in a callback's ``_on_rollout_end``; each update then changes one of them.

    :param networks: hypernetworks that learn together, such as ``policy.actor, policy.critic``.
    :param every: how many steps each turn lasts.

    >>> import torch
    >>> from hyperrl.hypernet import HyperNetwork, mlp
    >>> hyper = HyperNetwork(4, mlp([3, 16, 2], torch.nn.Tanh))
    >>> optimizer, schedule = torch.optim.Adam(hyper.parameters()), Alternating(hyper, every=10)
    >>> for _ in range(30):
    ...     schedule.step()
    ...     optimizer.zero_grad()
    ...     hyper(torch.randn(8, 4), torch.randn(8, 3)).square().mean().backward()
    ...     optimizer.step()
    >>> schedule.stop()
    """

    def __init__(self, *networks: HyperNetwork, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"expected every ≥ 1, got every={every}")
        self.networks: Final = networks
        self.every: Final = every
        self.steps = 0

    def step(self) -> None:
        """Begin a step of the training: choose which parameters learn in it."""
        base = self.steps // self.every % 2 == 0
        self._learn(base=base, hyper=not base)
        self.steps += 1

    def stop(self) -> None:
        """Let all parameters learn again."""
        self._learn(base=True, hyper=True)

    def _learn(self, base: bool, hyper: bool) -> None:
        for network in self.networks:
            for parameters, learn in ((network.base_parameters(), base), (network.hyper_parameters(), hyper)):
                for parameter in parameters:
                    parameter.requires_grad_(learn)
                    if not learn:
                        parameter.grad = None  # otherwise an optimiser would apply the old one
