"""How an agent does when the context changes within an episode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperrl.evaluation.report import AfterSwitch
from hyperrl.families.family import Family
from hyperrl.rollouts.agent import Agent, Predictor
from hyperrl.rollouts.episodes import time_limit
from hyperrl.rollouts.loop import rollout

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def after_switch(
    model: BaseAlgorithm | Predictor,
    family: Family,
    switch: int,
    split: str = "train",
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    progress: Callable[[int], Any] | None = None,
) -> AfterSwitch:
    """Measure the rewards of a model step by step, in episodes whose context changes to another of the split.

    All episodes are played together, each in an environment of its own. Where one ends early the rewards after it count
    as 0, as they do in its return. Steps after the last whole interval of an episode do not count.

    :param model: see :func:`hyperrl.evaluate`.
    :param switch: after how many steps the context changes, each time.
    :param split: where the contexts come from, the first of an episode and those that follow.
    :param contexts: how many contexts.
    :param episodes: how many episodes begin in each.
    :param seed: seed of contexts, initial states and switches.
    :param deterministic: take the most likely action rather than a sample.
    :param progress: called with numbers of steps as they are done.
    :raises ValueError: where an episode has no time for a switch and as many steps after it.

    >>> from hyperrl import load_family
    >>> class Nothing:
    ...     def predict(self, observation):
    ...         return np.zeros((len(observation["observation"]), 1))
    >>> measured = after_switch(Nothing(), load_family("pendulum"), switch=50, contexts=4, episodes=2)
    >>> measured.first.shape, measured.later.shape
    ((4, 50), (4, 50))
    """
    intervals = count_intervals(family, switch)
    among = np.repeat(family.context_space.sample(split, contexts, seed), episodes, axis=0)
    n = len(among)
    rewards = np.zeros((intervals * switch, n))
    playing = np.ones(n, dtype=bool)
    with closing(family.vec_env(n, contexts=among, switch=switch, seed=seed)) as vec_env:
        steps = rollout(Agent(model, vec_env.observation_space, deterministic=deterministic), vec_env)
        for reward, step in zip(rewards, steps, strict=False):
            reward[:] = np.where(playing, step.rewards, 0.0)
            playing &= ~step.dones
            if progress is not None:
                progress(n)
            if not playing.any():
                break
    by_interval = rewards.T.reshape(contexts, episodes, intervals, switch).mean(axis=1)  # (contexts, intervals, steps)
    return AfterSwitch(by_interval[:, 0], by_interval[:, 1:].mean(axis=1))


def count_intervals(family: Family, switch: int) -> int:
    """Return how many whole intervals between switches an episode has.

    :raises ValueError: where there are fewer than two.
    """
    limit = time_limit(family)
    if not 1 <= switch <= limit // 2:
        raise ValueError(
            f"expected from 1 to {limit // 2} steps between two switches, since episodes of {family.name} have {limit} "
            f"steps, got switch={switch}"
        )
    return limit // switch
