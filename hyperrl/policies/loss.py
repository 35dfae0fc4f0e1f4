"""Terms that a policy adds to a loss that its algorithm computes."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from torch import Tensor

from hyperrl.policies.context import ContextPolicy, center_and_half_width


class BoundedMeans(ContextPolicy):
    """An actor-critic whose loss may grow where the means of actions leave the action space.

    Algorithms clip actions to the action space. Once a mean lies several standard deviations outside, all actions are
    clipped to the same one, and nothing better is ever tried. The term is known as *bounds loss* from rl_games.

    :param bounds_loss: weight in the loss of the squared distance from the action space, in half widths of it, added up
        over the numbers of an action and averaged over a minibatch. It does nothing where actions are discrete,
        squashed or unbounded, nor in TRPO, whose loss is not computed from ``evaluate_actions``.
    :param kwargs: of the next class.
    :raises ValueError: for a negative weight.
    """

    _center: Tensor  # (m,)
    _half_width: Tensor  # (m,)

    def __init__(self, *, bounds_loss: float, **kwargs: Any) -> None:
        if not 0 <= bounds_loss < math.inf:
            raise ValueError(f"expected bounds_loss ≥ 0, got bounds_loss={bounds_loss}")
        self.bounds_loss: Final = bounds_loss
        super().__init__(**kwargs)
        space = kwargs["action_space"]
        self._has_bounds = isinstance(space, spaces.Box) and not kwargs["squash_output"]
        if self._has_bounds:
            center, half_width = center_and_half_width(space)
            self.register_buffer("_center", torch.as_tensor(center, dtype=torch.float32), persistent=False)
            self.register_buffer("_half_width", torch.as_tensor(half_width, dtype=torch.float32), persistent=False)

    def outside(self, distribution: Distribution) -> Tensor:
        """Return how far the means of a distribution lie outside the action space, in half widths, ``(B, m)``."""
        mean = distribution.distribution.mean  # pyright: ignore[reportAttributeAccessIssue]
        return ((mean - self._center).abs() / self._half_width - 1).relu()

    def bounded(self, values: Tensor, distribution: Distribution) -> Tensor:
        """Return values ``(B, 1)``, such that a loss computed from them has the gradient of the further term too."""
        if self.bounds_loss == 0 or not self._has_bounds or not torch.is_grad_enabled():
            return values
        return add_to_loss(values, self.bounds_loss * self.outside(distribution).square().sum(1).mean())

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(bounds_loss=self.bounds_loss)


def add_to_loss(x: Tensor, penalty: Tensor) -> Tensor:
    """Return ``x``, such that a loss computed from it has the gradient of that loss plus the penalty.

    For a loss that somebody else computes. It must be the one on which ``backward`` is called, and depend on ``x``.

    >>> x, theta = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    >>> (5 * add_to_loss(x, theta**2)).sum().backward()
    >>> x.grad, theta.grad
    (tensor([5., 5.]), tensor(6.))
    """
    return _AddToLoss.apply(x, penalty)


class _AddToLoss(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, penalty: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, gradient.new_ones(())
