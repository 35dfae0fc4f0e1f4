"""Physics: the dynamics of a family as pure functions on tensors, one row per environment with its own context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.physics.canvas import Canvas, Frame

Context = Mapping[str, Tensor]
"""Feature name = its value in each of ``n`` environments, shape ``(n,)``."""


class Physics(ABC):
    """The equations of a family: where an episode starts, what a step does, what is observed.

    All tensors of one call have ``n`` rows, lie on one device and have the state's dtype (float64 in hyperrl's
    environments); no argument is changed and no result shares memory with an argument. Not finite in, not finite
    out: an action of NaN must show in the state, where the caller looks for it.

    >>> from hyperrl.physics import load
    >>> physics = load("pendulum")
    >>> c = {name: torch.ones(3) for name in physics.features}
    >>> state = physics.initial(torch.rand(3, physics.uniforms), c)
    >>> state, reward, terminated = physics.step(state, torch.zeros(3, 1), c)
    >>> physics.observe(state).shape, reward.shape, terminated.dtype
    (torch.Size([3, 3]), torch.Size([3]), torch.bool)
    """

    features: tuple[str, ...]
    """Names of the features that it cannot do without."""
    observation_space: spaces.Box
    """Space of one environment's observation."""
    action_space: spaces.Box | spaces.Discrete
    """Space of one environment's action."""
    uniforms: int
    """How many uniform numbers ``initial`` takes per environment."""
    kick: tuple[float, ...] = ()
    """What a push by hand adds to the state, ``s`` numbers; empty where nothing can be pushed."""
    device: torch.device | None = None
    """Where the tensors must be; ``None`` where torch computes it, on any device and with gradients."""
    threads: int | None = None
    """How many threads step, 0 for as many as there are cores; ``None`` where torch computes."""

    def on(self, device: str) -> Physics:
        """Return the physics for tensors on a device of a name, see :func:`~hyperrl.utils.devices.find_device`.

        For ``"auto"``, physics that must be somewhere stay there.
        """
        return self

    @abstractmethod
    def initial(self, uniform: Tensor, c: Context) -> Tensor:
        """Return the states, shape ``(n, s)``, in which episodes start.

        :param uniform: independent numbers in [0, 1), shape ``(n, uniforms)``.
        :param c: the contexts.
        """

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next states ``(n, s)``, the rewards ``(n,)`` and whether each episode terminates, bool ``(n,)``.

        :param state: shape ``(n, s)``.
        :param action: shape ``(n, a)``, or int64 ``(n,)`` where the action space is discrete.
        :param c: the contexts.
        """

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """Return the observations, shape ``(n, o)``, of states of shape ``(n, s)``."""

    def state_of(self, observation: Tensor) -> Tensor:
        """Return states ``(n, s)`` that are observed as ``observation`` ``(n, o)`` and go on like the true ones.

        NaN stands for what an observation does not tell.
        """
        return observation

    def optimum(self, c: Context, steps: int) -> Tensor | None:
        """Return the greatest expected return of an episode of so many steps, shape ``(n,)``, where it is known."""
        return None

    def draw(self, state: NDArray[np.float64], context: Mapping[str, float]) -> Canvas | Frame | None:
        """Draw one environment; ``None`` where Gymnasium's own environment is to draw itself.

        :param state: shape ``(s,)``.
        :param context: feature name = value.
        """
        return None


def columns(*values: Tensor) -> Tensor:
    """Put ``s`` tensors of shape ``(n,)`` side by side as ``(n, s)``.

    Each column stays contiguous, so taking the state apart again and computing with a column is fast.
    """
    return torch.stack(values).T
