"""The agent: a model with all that it needs to act, for many environments at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from hyperrl.alignment.acting import AlignedModel, find_aligned
from hyperrl.simulation.last_step import (
    LAST_STEP,
    SOLE,
    first_entries,
    last_entries,
    observes_last_step,
    with_last_step,
)

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

Array = NDArray[Any]


class Predictor(Protocol):
    """What can act: a Stable-Baselines3 model or policy, or any object with ``predict``.

    ``predict(observation, state, episode_start, deterministic)`` is SB3's method: observations ``(n, …)`` of n
    environments in, actions ``(n, …)`` and the memory for the next call out. Of the last three arguments it is given
    those that it names, so that ``predict(observation)`` will do, and it may return the actions alone. One that names
    ``reward`` is given the rewards of the last step too, ``(n,)``, or ``None`` before there was a step.
    """

    @property
    def predict(self) -> Callable[..., Any]:
        """Return actions, or actions and state."""
        ...


class Acting(Protocol):
    """What :func:`hyperrl.rollouts.rollout` plays: :class:`Agent`, or anything else with these two methods."""

    def reset(self) -> None:
        """Forget everything: all environments begin anew."""
        ...

    def act(self, observation: Any, starts: NDArray[np.bool_], rewards: NDArray[Any] | None = None) -> Array:
        """Return an action for each environment; ``starts`` says where the observation is an episode's first."""
        ...


class Agent:
    """A model, the ``VecNormalize`` statistics it was trained with, its memory, and the context it is given.

    It acts on what environments observe, and makes the model's observation of it: the whole Dict, the Dict without its
    context, the sole other entry, or entries side by side in one row, whichever space the model has. Statistics are
    applied and never updated. A recurrent model's memory is kept from step to step, and begins anew with an episode. A
    model that was trained in :class:`~hyperrl.alignment.AlignedContext` acts by its encoder. One that observes its last
    action and reward gets them, where the environments do not give them.

    :param model: see :class:`Predictor`. An object without ``observation_space`` gets the environments' observation.
    :param space: what the environments observe, with or without the context.
    :param context: the context that the agent is given in place of what the environments observe, physical units:
        ``(d,)`` for all environments, or a row for each, ``(n, d)``.
    :param deterministic: take the most likely actions rather than samples.
    :param context_key: name of the context in a Dict observation.
    :raises ValueError: for an object without ``predict``, and for a model of other observations.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> vec_env = load_family("pendulum").vec_env(4)
    >>> agent = Agent(PPO(HyperPolicy, vec_env, device="cpu"), vec_env.observation_space)
    >>> agent.act(vec_env.reset(), np.ones(4, dtype=bool)).shape
    (4, 1)
    """

    def __init__(
        self,
        model: BaseAlgorithm | Predictor,
        space: spaces.Space[Any],
        context: ArrayLike | None = None,
        deterministic: bool = True,
        context_key: str = "context",
    ) -> None:
        if not callable(getattr(model, "predict", None)):
            raise ValueError(
                "expected a Stable-Baselines3 model, or an object with a method predict(observation), got "
                f"{type(model).__name__}"
            )
        self.model = model
        self.context = None if context is None else np.asarray(context, dtype=np.float32)
        """The context that the agent is given, shape ``(d,)`` or ``(n, d)``, or ``None`` for what it observes."""
        self.deterministic = deterministic
        self._key = context_key
        aligned = find_aligned(model)
        player: Any = model if aligned is None else AlignedModel(model, aligned)  # pyright: ignore[reportArgumentType]
        self._predict = player.predict
        self._normalizer = player.get_vec_normalize_env() if hasattr(player, "get_vec_normalize_env") else None
        self._keywords = _keywords(player.predict)
        wanted = getattr(player, "observation_space", None)
        self._recalls: spaces.Space[Any] | None = None  # the actions, where the model observes the last one
        if observes_last_step(wanted) and not observes_last_step(space):
            self._recalls = player.action_space
            space = with_last_step(space, player.action_space)
        self._view = self._find_view(space, wanted)
        self.memory: Any = None
        """What the model remembers: what its ``predict`` returned beside the actions."""
        self._actions: Any = None

    def reset(self) -> None:
        """Forget everything: all environments begin anew."""
        self.memory = self._actions = None

    def act(self, observation: Any, starts: NDArray[np.bool_], rewards: NDArray[Any] | None = None) -> Array:
        """Return an action for each of ``n`` environments.

        :param observation: what they observe, ``n`` rows.
        :param starts: where that is the first observation of an episode, shape ``(n,)``: the memory of those before is
            not for it.
        :param rewards: of the last step, shape ``(n,)``, for a model that takes them; ``None`` where none was taken.
        """
        if self._recalls is not None:
            observation = self._recalled(observation, starts, rewards, self._recalls)
        given = dict(state=self.memory, episode_start=starts, deterministic=self.deterministic, reward=rewards)
        given = {name: given[name] for name in self._keywords}
        predicted = self._predict(self.observe(observation), **given)
        actions, self.memory = predicted if isinstance(predicted, tuple) else (predicted, None)
        self._actions = np.asarray(actions)
        return self._actions

    def observe(self, observation: Any, rows: NDArray[np.int64] | None = None) -> Any:
        """Return the model's observation, normalised, of what the environments observe.

        :param observation: what all environments observe, or those of the given rows.
        :param rows: indices of environments, shape ``(r,)``.
        """
        seen = self._view(observation, rows)
        return seen if self._normalizer is None else self._normalizer.normalize_obs(seen)

    def _recalled(
        self, observation: Any, starts: NDArray[np.bool_], rewards: NDArray[Any] | None, space: spaces.Space[Any]
    ) -> dict[str, Array]:
        """Add the last action and reward to what the environments observe, as :class:`VecLastStep` does."""
        if self._actions is None or rewards is None:
            last = first_entries(space, len(starts))
        else:
            last = last_entries(space, self._actions, rewards)
            for entry in last.values():
                entry[starts] = 0
        named = observation if isinstance(observation, dict) else {SOLE: observation}
        return {**named, **last}

    def _find_view(
        self, space: spaces.Space[Any], wanted: spaces.Space[Any] | None
    ) -> Callable[[Any, NDArray[np.int64] | None], Any]:
        """Say how the model's observation is made of the environments', with the context that is given."""
        if self.context is None and not isinstance(space, spaces.Dict) and wanted in (None, space):
            return lambda observation, rows: observation
        of_model = dict(wanted.spaces) if isinstance(wanted, spaces.Dict) else {}
        others = [name for name in of_model if name not in (self._key, *LAST_STEP)]
        sole = others[0] if len(others) == 1 else "observation"  # the name of an observation that is no Dict
        entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {sole: space}
        if self.context is not None and self._key not in entries:
            anything = spaces.Box(-np.inf, np.inf, self.context.shape[-1:])
            entries[self._key] = of_model.get(self._key, anything)
        pick = _pick(entries, self._key, wanted)
        if pick is None:
            raise ValueError(f"the model acts on observations of {wanted}, the environments give {space}")

        def view(observation: Any, rows: NDArray[np.int64] | None) -> Any:
            named = observation if isinstance(observation, dict) else {sole: observation}
            if self.context is not None:
                n = len(next(iter(named.values())))
                context = self.context if rows is None or self.context.ndim == 1 else self.context[rows]
                named = named | {self._key: np.tile(context, (n, 1)) if context.ndim == 1 else context}
            return pick(named)

        return view


class RandomActions:
    """Uniformly random actions, as a model.

    :param space: the actions of one environment.
    :param n: how many environments.
    :param seed: the same seed gives the same actions, those of ``space.sample()`` for one environment after the other.

    >>> RandomActions(spaces.Discrete(3), n=5, seed=0).predict(None)
    array([2, 1, 1, 0, 0])
    """

    def __init__(self, space: spaces.Space[Any], n: int, seed: int) -> None:
        if isinstance(space, spaces.Discrete):  # a batch of these draws otherwise than they do one by one
            rng, _ = np_random(seed)
            self._sample = lambda: space.start + rng.integers(space.n, size=n)
        else:
            batch = batch_space(space, n)
            batch.seed(seed)
            self._sample = batch.sample

    def predict(self, observation: Any) -> Array:
        """Return actions ``(n, …)``, whatever is observed."""
        return self._sample()


def has_memory(model: Any) -> bool:
    """Say whether a Stable-Baselines3 model acts on more than environments observe now.

    A recurrent model does, an aligned one, and one that observes its last action and reward.
    """
    recalls = observes_last_step(getattr(model, "observation_space", None))
    return recalls or hasattr(getattr(model, "policy", None), "lstm_actor") or find_aligned(model) is not None


def _keywords(predict: Callable[..., Any]) -> tuple[str, ...]:
    """Say which arguments beside the observation a ``predict`` takes, by their names."""
    try:
        parameters = inspect.signature(predict).parameters
    except ValueError:  # of a compiled function nothing is known
        return ()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = tuple(name for name in ("state", "episode_start", "deterministic") if takes_any or name in parameters)
    return (*named, "reward") if "reward" in parameters else named


def _pick(
    entries: dict[str, spaces.Space[Any]], key: str, wanted: spaces.Space[Any] | None
) -> Callable[[dict[str, Array]], Any] | None:
    """Say how an observation in the space ``wanted`` is made of entries, if it can be."""
    others = [name for name in entries if name != key]
    if wanted is None or wanted == spaces.Dict(entries):
        return lambda named: named
    if wanted == spaces.Dict({name: entries[name] for name in others}):
        return lambda named: {name: named[name] for name in others}
    if len(others) == 1 and wanted == entries[others[0]]:
        return lambda named: named[others[0]]
    if key in entries:
        for order in ((*others, key), (key, *others), sorted(entries)):
            if wanted == _side_by_side([entries[name] for name in order]):
                return lambda named: np.concatenate([named[name] for name in order], axis=1)
    return None


def _side_by_side(parts: Sequence[spaces.Space[Any]]) -> spaces.Box | None:
    """Return the space of a flat observation made of these parts, where each is a row of numbers."""
    boxes = [part for part in parts if isinstance(part, spaces.Box) and len(part.shape) == 1]
    if len(boxes) < len(parts):
        return None
    low, high = (np.concatenate([getattr(box, end) for box in boxes]) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=low.dtype.type)
