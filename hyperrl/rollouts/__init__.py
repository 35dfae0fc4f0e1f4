"""The loop in which an agent plays a family."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.rollouts.episodes import Played as Played
    from hyperrl.rollouts.episodes import ValueAccuracy as ValueAccuracy
    from hyperrl.rollouts.episodes import first_returns as first_returns
    from hyperrl.rollouts.episodes import play as play
    from hyperrl.rollouts.episodes import random_returns as random_returns

__getattr__, __dir__ = attach(
    __name__,
    {
        "episodes": (
            "Played",
            "ValueAccuracy",
            "first_returns",
            "play",
            "random_returns",
        ),
    },
)
