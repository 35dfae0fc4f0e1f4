"""Episodes: a model plays a family in given contexts, all of them together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from hyperrl.contexts import Vector
from hyperrl.families.family import Family

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class ValueAccuracy:
    """How well a critic V predicted the discounted returns G, in each of ``n`` contexts.

    An episode that its time limit cut short goes on by V at its last observation, as in training. V is of the policy
    that samples its actions; where the most likely ones were played, the difference is part of the bias.

    :param explained_variance: 1 - Var(G - V) / Var(G) over all steps, shape ``(n,)``: 1 at best; NaN where G never
        varies.
    :param bias: mean of V - G, in units of reward, shape ``(n,)``.
    """

    explained_variance: Vector
    bias: Vector


@dataclass(frozen=True)
class Played:
    """What :func:`play` saw.

    :param returns: undiscounted return of each episode, shape ``(n, episodes)``.
    :param values: how accurate the critic was, if asked for and the model has one.
    """

    returns: Vector
    values: ValueAccuracy | None = None


def play(
    model: BaseAlgorithm,
    family: Family,
    contexts: ArrayLike,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    *,
    reported: ArrayLike | None = None,
    values: bool = False,
) -> Played:
    """Play episodes in each context, every one in an environment of its own.

    :param model: any Stable-Baselines3 model, recurrent or not, that acts on the family's observations, on those of its
        base environment, or on both parts laid side by side. Statistics of a ``VecNormalize`` that it was trained in
        are applied.
    :param contexts: shape ``(n, d)``, physical units.
    :param episodes: episodes per context.
    :param seed: seed of the initial states.
    :param deterministic: take the most likely action rather than a sample.
    :param reported: the context that the model is given in each episode, shape ``(n, episodes, d)``; the true one by
        default.
    :param values: judge the critic too, where the model has one (an actor-critic without memory).
    :raises ValueError: for a model of other observations, contexts out of bounds, wrong shapes.
    """
    contexts = family.context_space.matrix(contexts)
    n = len(contexts) * episodes
    vec_env = family.vec_env(n, contexts=np.repeat(contexts, episodes, axis=0), seed=seed)
    if reported is not None:
        reported = np.asarray(reported, dtype=np.float32)
        if reported.shape != (len(contexts), episodes, len(family.context_space)):
            shape = (len(contexts), episodes, len(family.context_space))
            raise ValueError(f"expected 'reported' of shape {shape}, got {reported.shape}")
        reported = reported.reshape(n, -1)
    observe = _adapter(model, vec_env.observation_space, reported)
    critic = _Critic(model) if values and _has_critic(model) else None
    every = np.arange(n)
    returns, playing, starts, state = np.zeros(n), np.ones(n, dtype=bool), np.ones(n, dtype=bool), None
    observation = observe(vec_env.reset(), every)
    with warnings.catch_warnings():
        if reported is not None:  # a wrong context may lie out of bounds, and a policy need not warn of it
            warnings.filterwarnings("ignore", "the context lies outside its bounds")
        while playing.any():
            action, state = model.predict(observation, state, starts, deterministic)
            before = observation
            raw, rewards, starts, infos = vec_env.step(action)
            observation = observe(raw, every)
            returns += rewards * playing
            if critic is not None:
                cut = [i for i in (playing & starts).nonzero()[0] if infos[i].get("TimeLimit.truncated")]
                last = observe(_stack([infos[i]["terminal_observation"] for i in cut]), np.array(cut)) if cut else None
                critic.see(before, rewards, playing, playing & starts, cut, last)
            playing &= ~starts
    vec_env.close()
    accuracy = None if critic is None else critic.accuracy(len(contexts))
    return Played(returns.reshape(len(contexts), episodes), accuracy)


def random_returns(family: Family, contexts: ArrayLike, episodes: int = 10, seed: int = 0) -> Vector:
    """Return the returns of uniformly random actions, shape ``(n, episodes)``; parameters as in :func:`play`."""
    contexts = family.context_space.matrix(contexts)
    n = len(contexts) * episodes
    vec_env = family.vec_env(n, contexts=np.repeat(contexts, episodes, axis=0), seed=seed)
    vec_env.action_space.seed(seed)
    returns = first_returns(vec_env, lambda _: np.stack([vec_env.action_space.sample() for _ in range(n)]))
    vec_env.close()
    return returns.reshape(len(contexts), episodes)


def first_returns(vec_env: VecEnv, act: Callable[[Any], NDArray[Any]], rows: int | None = None) -> Vector:
    """Begin anew and return the undiscounted return of each environment's first episode, shape ``(rows,)``.

    :param vec_env: the environments.
    :param act: actions for their observations.
    :param rows: of how many environments, the first ones; all by default.
    """
    rows = vec_env.num_envs if rows is None else rows
    observation: Any = vec_env.reset()
    returns, playing = np.zeros(rows), np.ones(rows, dtype=bool)
    while playing.any():
        observation, rewards, done, _ = vec_env.step(act(observation))
        returns += rewards[:rows] * playing
        playing &= ~done[:rows]
    return returns


class _Critic:
    """The values and rewards of ``n`` episodes under way, in the units of reward that the critic was trained in."""

    def __init__(self, model: BaseAlgorithm) -> None:
        self.policy: Any = model.policy
        self.gamma: float = model.gamma  # pyright: ignore[reportAttributeAccessIssue]
        self.normalizer = model.get_vec_normalize_env()
        if self.normalizer is not None and not self.normalizer.norm_reward:
            self.normalizer = None
        self.values: list[Vector] = []
        self.rewards: list[Vector] = []
        self.playing: list[NDArray[np.bool_]] = []
        self.ended: list[NDArray[np.bool_]] = []
        self.after: list[Vector] = []  # the value of what follows the end, 0 where nothing does

    def see(
        self,
        observation: Any,
        rewards: Vector,
        playing: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        cut: list[Any],
        last: Any,
    ) -> None:
        """Take in one step of all episodes; ``cut`` are the rows that the time limit ended, ``last`` their end."""
        after = np.zeros(len(rewards))
        if cut:
            after[cut] = self._value(last)
        self.values.append(self._value(observation))
        self.rewards.append(rewards if self.normalizer is None else self.normalizer.normalize_reward(rewards))
        self.playing.append(playing.copy())
        self.ended.append(ended)
        self.after.append(after)

    def accuracy(self, contexts: int) -> ValueAccuracy:
        """Compare values with discounted returns, context by context."""
        values, returns = np.array(self.values), np.zeros((len(self.values), len(self.values[0])))  # (T, n)
        following = np.zeros(returns.shape[1])
        for t in reversed(range(len(returns))):
            following = self.rewards[t] + self.gamma * np.where(self.ended[t], self.after[t], following)
            returns[t] = following
        scale = 1.0
        if self.normalizer is not None:
            scale = float(np.sqrt(self.normalizer.ret_rms.var + self.normalizer.epsilon))
        explained, bias = np.full(contexts, np.nan), np.zeros(contexts)
        for i, rows in enumerate(np.array_split(np.arange(returns.shape[1]), contexts)):
            seen = np.array(self.playing)[:, rows]
            g, v = returns[:, rows][seen], values[:, rows][seen]
            if g.std() > 1e-6 * np.abs(g).max():
                explained[i] = 1 - np.var(g - v) / np.var(g)
            bias[i] = scale * np.mean(v - g)
        return ValueAccuracy(explained, bias)

    def _value(self, observation: Any) -> Vector:
        import torch

        with torch.no_grad():
            tensors, _ = self.policy.obs_to_tensor(observation)
            return self.policy.predict_values(tensors).cpu().numpy().astype(np.float64)[:, 0]


def _has_critic(model: BaseAlgorithm) -> bool:
    """Say whether the policy predicts returns from an observation alone; one with memory needs its state too."""
    from stable_baselines3.common.policies import ActorCriticPolicy

    return isinstance(model.policy, ActorCriticPolicy) and not hasattr(model.policy, "lstm_actor")


def _stack(observations: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}


def _adapter(
    model: BaseAlgorithm, space: spaces.Space[Any], reported: NDArray[np.float32] | None
) -> Callable[[Any, NDArray[np.int64]], Any]:
    """Say how a model's observation is made from the family's, for the environments of the given rows."""
    assert isinstance(space, spaces.Dict)  # families make no others
    parts = (("observation", "context"), ("context", "observation"))
    flat = [order for order in parts if model.observation_space == _side_by_side(space, order)]
    normalizer = model.get_vec_normalize_env()

    def observe(observation: dict[str, NDArray[Any]], rows: NDArray[np.int64]) -> Any:
        if reported is not None:
            observation = observation | {"context": reported[rows]}
        if model.observation_space == space:
            chosen: Any = observation
        elif flat:
            chosen = np.concatenate([observation[part] for part in flat[0]], axis=1)
        else:
            chosen = observation["observation"]
        return chosen if normalizer is None else normalizer.normalize_obs(chosen)

    if not flat and model.observation_space not in (space, space["observation"]):
        raise ValueError(f"the model acts on observations of {model.observation_space}, the family gives {space}")
    return observe


def _side_by_side(space: spaces.Dict, parts: tuple[str, ...]) -> spaces.Box | None:
    """Return the space of a flat observation made of these parts, where each is a row of numbers."""
    boxes = [box for part in parts if isinstance(box := space[part], spaces.Box) and len(box.shape) == 1]
    if len(boxes) < len(parts):
        return None
    low, high = (np.concatenate([getattr(box, end) for box in boxes]) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=low.dtype.type)
