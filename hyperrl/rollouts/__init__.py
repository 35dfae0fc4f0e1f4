"""The loop in which an agent plays: a model, its normaliser, its memory and its context, in environments."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.rollouts.agent import Acting as Acting
    from hyperrl.rollouts.agent import Agent as Agent
    from hyperrl.rollouts.agent import Predictor as Predictor
    from hyperrl.rollouts.agent import RandomActions as RandomActions
    from hyperrl.rollouts.critic import ValueAccuracy as ValueAccuracy
    from hyperrl.rollouts.episodes import Played as Played
    from hyperrl.rollouts.episodes import play as play
    from hyperrl.rollouts.episodes import random_returns as random_returns
    from hyperrl.rollouts.loop import Step as Step
    from hyperrl.rollouts.loop import Tally as Tally
    from hyperrl.rollouts.loop import first_episodes as first_episodes
    from hyperrl.rollouts.loop import rollout as rollout

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent": ("Acting", "Agent", "Predictor", "RandomActions"),
        "critic": ("ValueAccuracy",),
        "episodes": ("Played", "play", "random_returns"),
        "loop": ("Step", "Tally", "first_episodes", "rollout"),
    },
)
