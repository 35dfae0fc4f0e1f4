"""A model together with the encoder that it was trained with, as one object that acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hyperrl.alignment.history import History, Rows
from hyperrl.utils.environments import layers

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.alignment.wrapper import AlignedContext


class Memory(NamedTuple):
    """What an :class:`AlignedModel` remembers of ``n`` environments."""

    history: History
    observed: Rows
    """What it observed last, shape ``(n, o)``."""
    actions: NDArray[Any]
    """What it did then, ``n`` rows."""
    own: Any
    """The memory of the model itself, where it is a recurrent one."""


class AlignedModel:
    """A model and its encoder, which act on what environments observe, as a recurrent model does.

    ``predict`` keeps the last transitions in its ``state``. Each observation that it is given completes the transition
    that its own last action began, so actions must be those that it returned. A context among the observations is not
    looked at.

    :param model: a model that was trained in ``aligned``.
    :param aligned: the wrapper whose encoder it acts by.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> from hyperrl.alignment import AlignedContext
    >>> aligned = AlignedContext(load_family("pendulum").vec_env(2))
    >>> agent = AlignedModel(PPO(HyperPolicy, aligned, device="cpu"), aligned)
    >>> observation = load_family("pendulum").vec_env(3).reset()
    >>> actions, state = agent.predict(observation)
    >>> actions, state = agent.predict(observation, state, episode_start=np.zeros(3, dtype=bool))
    >>> state.history.counts
    array([1, 1, 1])
    """

    def __init__(self, model: BaseAlgorithm, aligned: AlignedContext) -> None:
        self.model = model
        self.aligned = aligned
        self.observation_space: spaces.Space[Any] = spaces.Dict(aligned.rower.others)
        self.action_space = model.action_space

    def predict(
        self,
        observation: Any,
        state: Memory | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Memory]:
        """Return actions for ``n`` environments, and the memory for the next call.

        :param observation: what they observe, ``n`` rows or a Dict of such, as the wrapped environments give it.
        :param state: the memory that the last call returned; ``None`` where all episodes begin.
        :param episode_start: where the observation is the first one of an episode, shape ``(n,)``.
        :param deterministic: take the most likely actions rather than samples.
        """
        aligned = self.aligned
        observed = aligned.rower.observation(observation)
        if state is None:
            history = aligned.no_history(len(observed))
        else:
            history = state.history.with_transitions(aligned.transitions(state.observed, state.actions, observed))
            if episode_start is not None:
                history = history.without(np.asarray(episode_start, dtype=bool))
        seen: Any = aligned.observed(observation, aligned.embed(history))
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is not None:
            seen = normalizer.normalize_obs(seen)
        own = None if state is None else state.own
        actions, own = self.model.predict(seen, own, episode_start, deterministic)
        return actions, Memory(history, observed, actions, own)


def find_aligned(model: Any) -> AlignedContext | None:
    """Return the wrapper with the encoder around a model's environments, ``None`` where it has none."""
    env = getattr(model, "env", None)
    if env is None:
        return None
    from hyperrl.alignment.wrapper import AlignedContext

    return next((layer for layer in layers(env) if isinstance(layer, AlignedContext)), None)
