"""A picture of what an agent believes of its context during one episode."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.contexts import Vector
from hyperrl.families.family import Family
from hyperrl.inference import Belief, InferringAgent
from hyperrl.report import plots
from hyperrl.rollouts.agent import Agent
from hyperrl.rollouts.episodes import time_limit
from hyperrl.rollouts.loop import rollout
from hyperrl.utils.files import refuse_existing


def beliefs_of_episode(agent: InferringAgent, family: Family, context: ArrayLike, seed: int = 0) -> Belief:
    """Play an episode and return what the agent believed at each of its ``T`` steps, each part of shape ``(T, d)``.

    :param context: the true context, shape ``(d,)``, physical units.
    :param seed: of the initial state.
    :raises ValueError: for a context out of bounds, and a family whose episodes have no time limit.
    """
    time_limit(family)
    contexts = family.context_space.matrix(np.asarray(context)[None])
    seen: list[Belief] = []
    with closing(family.vec_env(1, contexts=contexts, seed=seed)) as vec_env:
        played = Agent(agent, vec_env.observation_space)
        for step in rollout(played, vec_env):
            seen.append(agent.belief(played.memory))
            if step.dones[0]:
                break
    import torch

    return Belief(*(torch.cat(part) for part in zip(*seen, strict=True)))


def picture_beliefs(agent: InferringAgent, family: Family, context: Vector, path: str | Path, seed: int = 0) -> None:
    """Draw the estimate of each feature over the steps of one episode, with its 95 % band and the truth, as a PNG.

    :param context: the true context, shape ``(d,)``, physical units.
    :raises ValueError: where the file exists, and as :func:`beliefs_of_episode` does.
    """
    refuse_existing(path, "choose another file")
    belief = beliefs_of_episode(agent, family, context, seed)
    context_, low, high = (part.numpy() for part in (belief.context, belief.low, belief.high))
    plots.save(plots.plot_beliefs(family.context_space, context, context_, low, high), path)
