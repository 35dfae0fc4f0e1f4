"""The rollout buffer: tensors on the device, and a table of the contexts that the rollout met."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from hyperrl.simulation.simulator import Observation, Step


@final
class TensorRolloutBuffer(RolloutBuffer):
    """``T`` steps of ``n`` environments as tensors ``(T, n, …)``, in the same memory in each rollout.

    Its constructor and :meth:`get` are those of Stable-Baselines3's buffer. So are its attributes, such as ``values``:
    numpy arrays ``(T, n)`` of what ``tensors`` holds.

    :param buffer_size: steps T.
    :param observation_space: a Dict of ``Box`` entries.
    :param action_space: one that PPO serves.
    :param device: where the tensors are.
    :param gae_lambda: λ of generalised advantage estimation.
    :param gamma: discount factor.
    :param n_envs: environments n.
    :param context_key: the entry of observations that is the context, of which a table is made.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
        context_key: str = "context",
    ) -> None:
        self.context_key = context_key
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(f"expected observations in a Dict, got {observation_space}")
        entries = observation_space.spaces
        self.observed = {key: self._zeros(*(entry.shape or ())) for key, entry in entries.items()}
        self.last = {key: self._zeros(*(entry.shape or ())) for key, entry in entries.items()}
        names = ("rewards", "values", "log_probs", "advantages", "returns", "episode_starts")
        self.tensors = {name: self._zeros() for name in names}
        is_choice = isinstance(action_space, spaces.Discrete)
        action_type = torch.int64 if is_choice else torch.float32
        self.tensors["actions"] = self._zeros(*(action_space.shape or ()), dtype=action_type)
        flags = ("ended", "terminated", "switched")
        self.flags = {name: self._zeros(dtype=torch.bool) for name in flags}
        stored = {**self.tensors, **self.flags}
        del stored["advantages"], stored["returns"], stored["episode_starts"]
        # Where each step's rows go: to make these views at each step would take longer than to copy.
        self._places = [{name: tensor[t] for name, tensor in stored.items()} for t in range(buffer_size)]
        self._observed = [{key: entry[t] for key, entry in self.observed.items()} for t in range(buffer_size)]
        self._last = [{key: entry[t] for key, entry in self.last.items()} for t in range(buffer_size)]
        self.context_index = torch.zeros(buffer_size * n_envs, dtype=torch.int64, device=self.device)
        self._tables: dict[int, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "observations":
            return {key: entry.cpu().numpy() for key, entry in self.observed.items()}
        found = self.__dict__.get("tensors", {}).get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return found.cpu().numpy()

    def reset(self) -> None:
        """Begin a rollout."""
        self.pos, self.full = 0, False

    def add(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, observation: Observation, actions: Tensor, values: Tensor, log_probs: Tensor, step: Step
    ) -> None:
        """Store one step of each environment.

        :param observation: what was acted on.
        :param actions: shape ``(n, *action shape)``, as sampled.
        :param values: of the observation, shape ``(n, 1)``.
        :param log_probs: of the actions, shape ``(n,)``.
        :param step: what the actions led to.
        """
        place = self._places[self.pos]
        place["actions"].copy_(actions)
        place["values"].copy_(values.view(-1))
        place["log_probs"].copy_(log_probs)
        place["rewards"].copy_(step.reward)
        for name in self.flags:
            place[name].copy_(getattr(step, name))
        for key, entry in self._observed[self.pos].items():
            entry.copy_(observation[key])
        if step.last is not step.observation:
            for key, entry in self._last[self.pos].items():
                entry.copy_(step.last[key])
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def cut_short(self) -> tuple[Tensor, Observation]:
        """Return which rows of the flat buffer ended by the time limit alone, ``(k,)``, and what they led to."""
        cut = (self.flags["ended"] & ~self.flags["terminated"]).flatten().nonzero()[:, 0]
        return cut, {key: entry.flatten(0, 1)[cut] for key, entry in self.last.items()}

    def bootstrap(self, values: Tensor, rows: Tensor) -> None:
        """Add the value of what would have followed to rewards of steps at which the time limit cut an episode short.

        :param values: of the last observations, which still have the episode's context, shape ``(k,)``.
        :param rows: where, int64 of shape ``(k,)``, of the flat buffer.
        """
        self.tensors["rewards"].view(-1)[rows] += self.gamma * values

    def finish(self, first_starts: Tensor, last_values: Tensor) -> None:
        """Compute λ-returns and advantages (Schulman et al. 2016).

        :param first_starts: where an episode begins with the first step, bool ``(n,)``.
        :param last_values: of what is observed after the last step, shape ``(n, 1)``.
        """
        ended = self.flags["ended"]
        self.tensors["episode_starts"].copy_(torch.cat([first_starts[None], ended[:-1]]))
        rewards, values, advantages = (self.tensors[name] for name in ("rewards", "values", "advantages"))
        going = 1.0 - ended.to(values.dtype)  # (T, n)
        next_values = torch.cat([values[1:], last_values.view(1, -1)])  # (T, n)
        torch.add(rewards - values, going * next_values, alpha=self.gamma, out=advantages)
        weights = (going * (self.gamma * self.gae_lambda)).unbind()
        later, *earlier = reversed(advantages.unbind())
        for advantage, weight in zip(earlier, weights[-2::-1], strict=True):
            advantage.addcmul_(weight, later)
            later = advantage
        torch.add(advantages, values, out=self.tensors["returns"])

    def tabulate(self, agents: int = 1) -> Tensor:
        """Number the contexts that each agent's rollout met, and return their tables ``(G, K, d)``, in its order.

        ``context_index`` is each row's place in its agent's, int64 ``(T·n,)``. K is a power of two, so that there are
        few sizes: the rest of a table repeats its first context.

        :param agents: how many agents G the environments belong to, as many one after another to each.
        """
        changed = self.flags["ended"] | self.flags["switched"]
        begun = torch.cat([torch.ones_like(changed[:1]), changed[:-1]])  # (T, n): another context than the row before
        contexts = self.observed[self.context_key].transpose(0, 1)[begun.T]  # (contexts, d), environment by environment
        begun = begun.T.reshape(agents, -1)  # (G, n·T/G)
        number = begun.flatten().cumsum(0).view(agents, -1) - 1
        first = number[:, :1]
        number = number - first
        self.context_index.copy_(number.view(self.n_envs, -1).T.reshape(-1))
        capacity = max(8, 1 << int(number[:, -1].max()).bit_length())
        if capacity not in self._tables:
            self._tables[capacity] = contexts.new_empty(agents, capacity, contexts.shape[1])
        table = self._tables[capacity]
        table[:] = contexts[first]
        table[begun.nonzero()[:, 0], number[begun]] = contexts
        return table

    def shuffled(self, generators: Sequence[Any] = (np.random,)) -> Tensor:
        """Draw an order of each agent's rows as Stable-Baselines3 does: int64 ``(G, T·n/G)``.

        :param generators: of numpy, one for each agent; ``None`` leaves its rows as they are.
        """
        n = self.n_envs // len(generators)
        size = self.buffer_size * n
        orders = [torch.from_numpy(g.permutation(size)) if g is not None else torch.arange(size) for g in generators]
        order = torch.stack(orders).to(self.device)  # its rows are environment by environment
        first = torch.arange(0, self.n_envs, n, device=self.device)[:, None]
        return order % self.buffer_size * self.n_envs + order // self.buffer_size + first

    def flat(self, name: str) -> Tensor:
        """Return a tensor of the buffer as rows ``(T·n, …)``."""
        return self.tensors[name].flatten(0, 1)

    def get(self, batch_size: int | None = None) -> Generator[DictRolloutBufferSamples, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield minibatches in a random order, as Stable-Baselines3's buffer does."""
        names = ("actions", "values", "log_probs", "advantages", "returns")
        for rows in self.shuffled()[0].split(batch_size or self.buffer_size * self.n_envs):
            observations = {key: entry.flatten(0, 1)[rows] for key, entry in self.observed.items()}
            yield DictRolloutBufferSamples(observations, *(self.flat(name)[rows] for name in names))

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.buffer_size, self.n_envs, *shape, dtype=dtype, device=self.device)
