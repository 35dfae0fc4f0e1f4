"""Stable-Baselines3 policies that get a context: as generated weights, otherwise, or not at all."""

from typing import TYPE_CHECKING

from hyperrl.policies.actor_critic import ConcatPolicy as ConcatPolicy
from hyperrl.policies.actor_critic import HyperPolicy as HyperPolicy
from hyperrl.policies.actor_critic import UnawarePolicy as UnawarePolicy
from hyperrl.policies.context import ContextExtractor as ContextExtractor
from hyperrl.policies.context import ContextPolicy as ContextPolicy
from hyperrl.policies.context import ContextReader as ContextReader
from hyperrl.policies.dqn import HyperDQNPolicy as HyperDQNPolicy
from hyperrl.policies.film import FilmPolicy as FilmPolicy
from hyperrl.policies.hyper_config import GeneratedPolicy as GeneratedPolicy
from hyperrl.policies.registry import POLICY_OF as POLICY_OF
from hyperrl.policies.sac import HyperSACPolicy as HyperSACPolicy
from hyperrl.policies.td3 import HyperTD3Policy as HyperTD3Policy
from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.policies.crossq import HyperCrossQPolicy as HyperCrossQPolicy
    from hyperrl.policies.qrdqn import HyperQRDQNPolicy as HyperQRDQNPolicy
    from hyperrl.policies.recurrent import HyperRecurrentPolicy as HyperRecurrentPolicy
    from hyperrl.policies.recurrent import RecurrentPolicy as RecurrentPolicy
    from hyperrl.policies.tqc import HyperTQCPolicy as HyperTQCPolicy

__getattr__, __dir__ = attach(  # of sb3-contrib
    __name__,
    {
        "crossq": ("HyperCrossQPolicy",),
        "qrdqn": ("HyperQRDQNPolicy",),
        "recurrent": ("HyperRecurrentPolicy", "RecurrentPolicy"),
        "tqc": ("HyperTQCPolicy",),
    },
)
