"""How well a critic predicts the returns that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperrl.contexts import Vector
from hyperrl.rollouts.agent import Agent, has_memory
from hyperrl.rollouts.loop import Step


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


class Critic:
    """The values and rewards of ``n`` episodes under way, in the units of reward that the critic was trained in.

    :param agent: one whose model is an actor-critic without memory; see :func:`has_critic`.
    """

    def __init__(self, agent: Agent) -> None:
        model: Any = agent.model
        self.agent = agent
        self.policy: Any = model.policy
        self.gamma: float = model.gamma
        self.normalizer = model.get_vec_normalize_env()
        if self.normalizer is not None and not self.normalizer.norm_reward:
            self.normalizer = None
        self.values: list[Vector] = []
        self.rewards: list[NDArray[Any]] = []
        self.playing: list[NDArray[np.bool_]] = []
        self.ended: list[NDArray[np.bool_]] = []
        self.after: list[Vector] = []  # the value of what follows the end, 0 where nothing does

    def add(self, step: Step, playing: NDArray[np.bool_]) -> None:
        """Take in one step of all episodes; ``playing`` says of which, shape ``(n,)``: the others are over."""
        ended = playing & step.dones
        after = np.zeros(len(ended))
        cut = np.array([i for i in ended.nonzero()[0] if step.infos[i].get("TimeLimit.truncated")], dtype=np.int64)
        if len(cut):
            reached = step.reached
            last = {key: entry[cut] for key, entry in reached.items()} if isinstance(reached, dict) else reached[cut]
            after[cut] = self._value(self.agent.observe(last, cut))
        self.values.append(self._value(self.agent.observe(step.observation)))
        self.rewards.append(step.rewards if self.normalizer is None else self.normalizer.normalize_reward(step.rewards))
        self.playing.append(playing)
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


def has_critic(model: Any) -> bool:
    """Say whether a model predicts returns from an observation alone; one with memory needs its state too."""
    from stable_baselines3.common.policies import ActorCriticPolicy

    return isinstance(getattr(model, "policy", None), ActorCriticPolicy) and not has_memory(model)
