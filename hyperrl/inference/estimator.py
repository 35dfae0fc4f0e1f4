"""The estimator: a recurrent network that reads what an agent observes and does, and says what the context may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hyperrl.contexts import ContextSpace
from hyperrl.inference.beliefs import Beliefs
from hyperrl.utils.rows import width

FARTHEST: Final = 10.0  # standard deviations at which inputs are clipped
REGRESSORS: Final = 8  # inputs of the regression
STRENGTH: Final = 3.0  # of these, against a prior of variance 1 of the coefficients
MAGNIFIED: Final = 30.0  # how many times small changes are magnified, in a second copy of them
Solve = Callable[[Tensor, Tensor], Tensor]
"""What solves systems of linear equations, as :func:`torch.linalg.solve` does."""


class Estimator(nn.Module):
    """Reads an episode step by step, and believes something of every feature after each step.

    At each step it reads the observation, the change of the observation, the last action, the last reward if that is
    known, and whether there was a last step at all. It remembers in two ways. A linear regression, with inputs that a
    network makes of observations and actions, foretells changes of the observation from all steps so far (as Harrison
    et al. 2018 do): it is exact about what a context multiplies. A gated recurrent unit (Cho et al. 2014) reads the
    regression's coefficients and the step itself.

    Its state is one row of numbers for each environment, zeros where an episode begins.

    :param observation: what is observed besides the context.
    :param action: the actions.
    :param space: the features.
    :param hidden: width of the memory and of the layers around it.
    :param bounds: see :class:`Beliefs`.
    :raises ValueError: for observations or actions that are no vectors, such as texts.
    """

    centre: Tensor
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
        self.context_space: Final = space
        self.observation_space: Final = observation
        self.action_space: Final = action
        self.hidden: Final = hidden
        self.observed: Final = width(observation)
        self.acted: Final = width(action)
        # The actions themselves are inputs of the regression too: what a context does to them is the most common case.
        self.regressed: Final = REGRESSORS + self.acted
        k, o = self.regressed, self.observed
        self.sums: Final = k * (k + o)
        """Numbers that the regression keeps: the sums of products of its inputs, and of these with the changes."""
        inputs = 3 * o + self.acted + 3
        self.beliefs = Beliefs(space, bounds)
        self.regressors = nn.Sequential(nn.Linear(o + self.acted, hidden), nn.SiLU(), nn.Linear(hidden, REGRESSORS))
        self.forgetting = nn.Parameter(torch.tensor(6.0))
        self.reader = nn.Sequential(
            nn.Linear(inputs + k * o + k, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.memory = nn.GRUCell(hidden, hidden)
        last = nn.Linear(hidden, self.beliefs.outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(hidden + k * o + k, hidden), nn.SiLU(), last)
        self.register_buffer("centre", torch.from_numpy(centre_of(action)), persistent=False)
        # Statistics of observations, of their changes and of rewards.
        self.register_buffer("mean", torch.zeros(2 * o + 1))
        self.register_buffer("std", torch.ones(2 * o + 1))

    @property
    def parts(self) -> list[int]:
        """Numbers of each part of a state: the memory, the sums, the last observation and action, and whether begun."""
        return [self.hidden, self.sums, self.observed, self.acted, 1]

    @property
    def size(self) -> int:
        """Numbers in the state of one environment."""
        return sum(self.parts)

    def inputs(
        self, observation: Tensor, reward: Tensor, last: Tensor, action: Tensor, begun: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the network reads and what a step adds to the regression's sums; leading shapes are alike.

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
        change = change * begun
        small = (MAGNIFIED * change).asinh() / 4
        read = torch.cat([present, change, small, action * begun, earned * known, known, begun], dim=-1)
        o = self.observed
        before = ((last - self.mean[:o]) / self.std[:o]).clamp(-FARTHEST, FARTHEST)
        made = self.regressors(torch.cat([before, action], dim=-1))
        x = STRENGTH * torch.cat([made, action - self.centre], dim=-1) * begun  # (..., k)
        added = x.unsqueeze(-1) * torch.cat([x, change], dim=-1).unsqueeze(-2)  # (..., k, k + o)
        return read, added.flatten(-2)

    def step(
        self, observation: Tensor, reward: Tensor, state: Tensor, solve: Solve = torch.linalg.solve
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read one step: ``(n, o), (n, 1), (n, s) -> (n, h), (n, k (k + o)), (n, m)``: memory, sums and outputs."""
        memory, sums, last, action, begun = state.split(self.parts, dim=1)
        read, added = self.inputs(observation, reward, last, action, begun)
        sums = self.forgetting.sigmoid() * sums + added
        found = self.coefficients(sums, solve)
        memory = self.update(self.gates(torch.cat([read, found], dim=1)), memory)
        return memory, sums, self.head(torch.cat([memory, found], dim=1))

    def coefficients(self, sums: Tensor, solve: Solve = torch.linalg.solve) -> Tensor:
        """Return the regression's coefficients and how uncertain they are: ``(..., k (k + o)) -> (..., k o + k)``."""
        k = self.regressed
        both = sums.unflatten(-1, (k, k + self.observed))
        identity = torch.eye(k, device=sums.device).expand(*both.shape[:-1], k)
        solved = solve(both[..., :k] + identity, torch.cat([both[..., k:], identity], dim=-1))
        coefficients, covariance = solved.split([self.observed, k], dim=-1)
        return torch.cat([coefficients.flatten(-2), covariance.diagonal(dim1=-2, dim2=-1)], dim=-1)

    def gates(self, inputs: Tensor) -> Tensor:
        """Return what the inputs contribute to the gates, ``(..., i) -> (..., 3 h)``."""
        return functional.linear(self.reader(inputs), self.memory.weight_ih, self.memory.bias_ih)

    def update(self, gates: Tensor, memory: Tensor) -> Tensor:
        """Return the memory after a step, ``(n, 3 h), (n, h) -> (n, h)``."""
        h = self.hidden
        carried = functional.linear(memory, self.memory.weight_hh, self.memory.bias_hh)
        reset, keep = (gates[:, : 2 * h] + carried[:, : 2 * h]).sigmoid().chunk(2, dim=1)
        new = (gates[:, 2 * h :] + reset * carried[:, 2 * h :]).tanh()
        return torch.lerp(new, memory, keep)

    def sequence(self, read: Tensor, added: Tensor, starts: Tensor, memory: Tensor, sums: Tensor) -> Tensor:
        """Read ``T`` steps of ``n`` environments and return the outputs, ``(T, n, m)``.

        :param read: what :meth:`inputs` returned, ``(T, n, i)``, as ``added``, ``(T, n, k (k + o))``.
        :param starts: where an episode begins, at which the state is cleared, ``(T, n)``.
        :param memory: before the first step, ``(n, h)``, as ``sums``, ``(n, k (k + o))``.
        """
        keeps = (~starts).float().unsqueeze(-1)  # (T, n, 1)
        interrupted = starts.any(1).tolist()
        kept = self.forgetting.sigmoid()
        summed = []
        for t, new in enumerate(added.unbind(0)):
            sums = torch.addcmul(new, sums * keeps[t] if interrupted[t] else sums, kept)
            summed.append(sums)
        found = self.coefficients(torch.stack(summed))
        memories = []
        for t, gates in enumerate(self.gates(torch.cat([read, found], dim=-1)).unbind(0)):
            memory = self.update(gates, memory * keeps[t] if interrupted[t] else memory)
            memories.append(memory)
        return self.head(torch.cat([torch.stack(memories), found], dim=-1))


def eliminate(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve systems of positive definite matrices by elimination, ``(..., k, k), (..., k, m) -> (..., k, m)``.

    In plain operations, which every format of files has; :func:`torch.linalg.solve` is faster, for many systems.
    """
    k = matrix.shape[-1]
    rows = torch.cat([matrix, right], dim=-1)
    for i in range(k):
        pivot = rows[..., i : i + 1, :] / rows[..., i : i + 1, i : i + 1]
        column = rows[..., i : i + 1]
        others = torch.ones(k, 1, device=rows.device)
        others[i] = 0
        rows = rows - column * others * pivot
        rows = torch.cat([rows[..., :i, :], pivot, rows[..., i + 1 :, :]], dim=-2)
    return rows[..., k:]


def centre_of(space: spaces.Space[Any]) -> NDArray[np.float32]:
    """Return the mean of what :func:`~hyperrl.utils.rows.encode` makes of scaled, evenly drawn actions."""
    if isinstance(space, spaces.Discrete):
        return np.full(int(space.n), 1 / space.n, dtype=np.float32)
    if isinstance(space, spaces.MultiDiscrete):
        return np.concatenate([np.full(n, 1 / n, dtype=np.float32) for n in space.nvec.tolist()])
    return np.full(width(space), 0.5 if isinstance(space, spaces.MultiBinary) else 0.0, dtype=np.float32)
