"""The estimator: a recurrent network that reads what an agent observes and does, and says what the context may be."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hyperrl.contexts import ContextSpace
from hyperrl.inference.beliefs import Belief, Beliefs

FARTHEST: Final = 10.0  # standard deviations at which inputs are clipped


class Estimator(nn.Module):
    """Reads an episode step by step, and believes something of every feature after each step.

    At each step it reads the observation, the change of the observation, the last action, the last reward if that is
    known, and whether there was a last step at all. Its state is one row of numbers for each environment: the memory of
    a gated recurrent unit (Cho et al. 2014), the last observation, the last action, and whether there were any. A row of
    zeros begins an episode.

    :param observation: what is observed besides the context.
    :param action: the actions.
    :param space: the features.
    :param hidden: width of the memory and of the layers around it.
    :param bounds: see :class:`Beliefs`.
    :raises ValueError: for observations or actions that are no vectors, such as texts.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        observation: spaces.Space[Any],
        action: spaces.Space[Any],
        space: ContextSpace,
        hidden: int = 64,
        bounds: bool = False,
    ) -> None:
        super().__init__()
        self.observation_space: Final = observation
        self.action_space: Final = action
        self.hidden: Final = hidden
        self.observed: Final = width(observation)
        self.acted: Final = width(action)
        inputs = 2 * self.observed + self.acted + 3
        self.beliefs = Beliefs(space, bounds)
        self.reader = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh())
        self.memory = nn.GRU(hidden, hidden)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, self.beliefs.outputs))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)
        # Statistics of observations, of their changes and of rewards.
        self.register_buffer("mean", torch.zeros(2 * self.observed + 1))
        self.register_buffer("std", torch.ones(2 * self.observed + 1))

    @property
    def size(self) -> int:
        """Numbers in the state of one environment."""
        return self.hidden + self.observed + self.acted + 1

    def inputs(self, observation: Tensor, reward: Tensor, last: Tensor, action: Tensor, begun: Tensor) -> Tensor:
        """Return what the network reads, each argument with rows of the same leading shape.

        :param observation: ``(..., o)``.
        :param reward: the last reward, NaN where it is unknown, ``(..., 1)``.
        :param last: the last observation ``(..., o)``.
        :param action: the last action ``(..., a)``.
        :param begun: 1 where there was a last step, else 0, ``(..., 1)``.
        """
        known = begun * (~reward.isnan()).float()
        numbers = torch.cat([observation, observation - last, reward.nan_to_num()], dim=-1)
        scaled = ((numbers - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
        present, change, earned = scaled.split([self.observed, self.observed, 1], dim=-1)
        return torch.cat([present, change * begun, action * begun, earned * known, known, begun], dim=-1)

    def step(self, observation: Tensor, reward: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read one step: ``(n, o), (n, 1), (n, s) -> (n, h), (n, m)``: the memory and the outputs."""
        memory, last, action, begun = state.split([self.hidden, self.observed, self.acted, 1], dim=1)
        memory = self.update(self.gates(self.inputs(observation, reward, last, action, begun)), memory)
        return memory, self.head(memory)

    def gates(self, inputs: Tensor) -> Tensor:
        """Return what the inputs contribute to the gates, ``(..., i) -> (..., 3 h)``."""
        return functional.linear(self.reader(inputs), self.memory.weight_ih_l0, self.memory.bias_ih_l0)

    def update(self, gates: Tensor, memory: Tensor) -> Tensor:
        """Return the memory after a step, ``(n, 3 h), (n, h) -> (n, h)``."""
        h = self.hidden
        carried = functional.linear(memory, self.memory.weight_hh_l0, self.memory.bias_hh_l0)
        reset, keep = (gates[:, : 2 * h] + carried[:, : 2 * h]).sigmoid().chunk(2, dim=1)
        new = (gates[:, 2 * h :] + reset * carried[:, 2 * h :]).tanh()
        return torch.lerp(new, memory, keep)

    def sequence(self, inputs: Tensor, starts: Tensor, memory: Tensor) -> Tensor:
        """Read ``T`` steps of ``n`` environments: ``(T, n, i), (T, n), (n, h) -> (T, n, m)``.

        :param starts: where an episode begins, at which the memory is cleared.
        """
        gates = self.gates(inputs)
        keeps = (~starts).float().unsqueeze(-1)  # (T, n, 1)
        interrupted = starts.any(1).tolist()
        memories = []
        for t, contribution in enumerate(gates.unbind(0)):
            memory = self.update(contribution, memory * keeps[t] if interrupted[t] else memory)
            memories.append(memory)
        return self.head(torch.stack(memories))

    def belief(self, state: Tensor) -> Belief:
        """Return what is believed in a state ``(n, s)``."""
        return self.beliefs(self.head(state[:, : self.hidden]))


def width(space: spaces.Space[Any]) -> int:
    """Return how many numbers :func:`encode` makes of an element of a space.

    :raises ValueError: for spaces of anything but numbers and choices.
    """
    if isinstance(space, spaces.Dict):
        return sum(width(entry) for entry in space.spaces.values())
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and len(space.nvec.shape) == 1:
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise ValueError(f"expected a space of numbers or choices, to infer a context from, got {space}")


def encode(space: spaces.Space[Any], values: Any, scale: bool = False) -> NDArray[np.float32]:
    """Return rows of numbers, ``(n, width)``, of ``n`` elements of a space; a choice becomes one-hot.

    :param values: ``n`` rows, or a Dict of such.
    :param scale: map the entries of a box with bounds to [-1, 1].
    """
    if isinstance(space, spaces.Dict):
        return np.concatenate([encode(entry, values[key], scale) for key, entry in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(values).reshape(-1) - int(space.start)]
    if isinstance(space, spaces.MultiDiscrete):
        columns = zip(space.nvec.tolist(), (np.asarray(values) - space.start).T, strict=True)
        return np.concatenate([np.eye(n, dtype=np.float32)[column] for n, column in columns], axis=1)
    rows = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
    if scale and isinstance(space, spaces.Box):
        middle, half_width = scale_of(space)
        rows = (rows - middle) / half_width
    return rows


def scale_of(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the middle and the half width of a box, flat; 0 and 1 where it has no bounds."""
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    bounded = (high > low) & (high - low < 1e6)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, half_width = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
    return middle.astype(np.float32), half_width.astype(np.float32)
