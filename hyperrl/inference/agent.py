"""Agents that infer their context: a model that was trained with its context known, and an estimator of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.contexts import ContextBox, ContextSpace
from hyperrl.inference.beliefs import Belief
from hyperrl.inference.estimator import Estimator, encode
from hyperrl.policies.context import ContextReader, context_extractor
from hyperrl.rollouts.agent import Agent

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Memory(NamedTuple):
    """What an agent remembers of the episodes under way in ``n`` environments."""

    state: NDArray[np.float32]
    """Of the estimator, shape ``(n, s)``."""
    model: Any
    """Of the model, where that is a recurrent one."""


class InferringAgent:
    """A model that is given, at each step, the context that an estimator believes in.

    It acts as a Stable-Baselines3 model does. The entry of the context in what it observes, if there is one, is never
    read.

    :param model: a model that reads its context.
    :param estimator: an estimator of that context.
    :raises ValueError: where the model reads no context, or one of other features.
    """

    def __init__(self, model: BaseAlgorithm, estimator: Estimator) -> None:
        self.model = model
        self.estimator = estimator
        self.reader = reader_of(model)
        self.observation_space: spaces.Space[Any] = self.reader.other_space
        """What it observes: the model's observation without the context."""
        self.action_space: spaces.Space[Any] = model.action_space  # pyright: ignore[reportAttributeAccessIssue]
        self._agent = Agent(model, self.observation_space, np.zeros(self.reader.dim), context_key=self.reader.key)

    def predict(
        self,
        observation: Any,
        state: Memory | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        reward: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[np.ndarray, Memory]:
        """Return the actions and the memory for the next call.

        :param observation: what ``n`` environments observe, with or without their context; or what one observes.
        :param state: what the last call returned; ``None`` where all episodes begin.
        :param episode_start: where an episode begins, shape ``(n,)``; nowhere by default.
        :param deterministic: take the most likely actions rather than samples.
        :param reward: of the last step, shape ``(n,)``; NaN, or ``None``, where it is unknown.
        """
        observed = self._without_context(observation)
        alone = self._is_alone(observed)
        if alone:
            observed = {k: v[None] for k, v in observed.items()} if isinstance(observed, dict) else observed[None]
        rows = encode(self.estimator.observation_space, observed)
        n = len(rows)
        starts = np.zeros(n, dtype=bool) if episode_start is None else np.asarray(episode_start, dtype=bool)
        if state is None:
            starts = np.ones(n, dtype=bool)
        memory, belief = self.believe(rows, None if state is None else state.state, starts, reward)
        agent = self._agent
        agent.context, agent.deterministic = belief.context.cpu().numpy(), deterministic
        agent.memory = None if state is None else state.model
        actions = agent.act(observed, starts)
        after = Memory(self.remember(memory, rows, actions), agent.memory)
        return (actions[0] if alone else actions), after

    @torch.no_grad()
    def believe(
        self,
        rows: NDArray[np.float32],
        state: NDArray[np.float32] | None,
        starts: NDArray[np.bool_],
        reward: NDArray[Any] | None,
    ) -> tuple[Tensor, Belief]:
        """Return the estimator's memory ``(n, h)`` and belief after observations ``(n, o)``."""
        device = self.estimator.mean.device
        n = len(rows)
        before = np.zeros((n, self.estimator.size), dtype=np.float32) if state is None else state
        before = np.where(starts[:, None], np.float32(0), before)
        earned = np.full((n, 1), np.nan) if reward is None else np.reshape(reward, (n, 1))
        observed, earned, before = (
            torch.as_tensor(np.asarray(array, dtype=np.float32), device=device) for array in (rows, earned, before)
        )
        memory, outputs = self.estimator.step(observed, earned, before)
        return memory, self.estimator.beliefs(outputs)

    def remember(self, memory: Tensor, rows: NDArray[np.float32], actions: np.ndarray) -> NDArray[np.float32]:
        """Return the state for the next step."""
        acted = encode(self.action_space, actions, scale=True)
        begun = np.ones((len(rows), 1), dtype=np.float32)
        return np.concatenate([memory.cpu().numpy(), rows, acted, begun], axis=1)

    def belief(self, state: Memory) -> Belief:
        """Return what it believed when it last acted, in physical units."""
        with torch.no_grad():
            device = self.estimator.mean.device
            return Belief(*(part.cpu() for part in self.estimator.belief(torch.as_tensor(state.state, device=device))))

    def _without_context(self, observation: Any) -> Any:
        """Return an observation without its context."""
        if isinstance(observation, dict):
            entries = {key: np.asarray(value) for key, value in observation.items() if key != self.reader.key}
            if isinstance(self.observation_space, spaces.Dict):
                return entries
            (sole,) = entries.values()
            return sole
        array = np.asarray(observation)
        if isinstance(self.observation_space, spaces.Dict):
            (key,) = self.observation_space.spaces
            return {key: array}
        where, width = self.reader.slice, self.observation_space.shape[0]  # pyright: ignore[reportOptionalSubscript]
        if where is not None and array.shape[-1] == width + self.reader.dim:
            return np.delete(array, np.arange(array.shape[-1])[where], axis=-1)
        return array

    def _is_alone(self, observed: Any) -> bool:
        """Say whether it is what one environment observes, without an axis of environments."""
        if isinstance(self.observation_space, spaces.Dict):
            key, space = next(iter(self.observation_space.spaces.items()))
            return observed[key].ndim == len(space.shape or ())
        return observed.ndim == len(self.observation_space.shape or ())


def reader_of(model: BaseAlgorithm) -> ContextReader:
    """Return what a model reads its context with.

    :raises ValueError: where it reads none.
    """
    extractor = context_extractor(model.policy)
    if extractor is None:
        raise ValueError(
            f"expected a model that reads its context, to infer that, got one with {type(model.policy).__name__} that "
            f"observes {model.observation_space}"
        )
    return extractor.reader
