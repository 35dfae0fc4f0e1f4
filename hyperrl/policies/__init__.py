"""Stable-Baselines3 policies that get a context: as generated weights, otherwise, or not at all."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyperrl.policies.actor_critic import ConcatPolicy as ConcatPolicy
from hyperrl.policies.actor_critic import HyperPolicy as HyperPolicy
from hyperrl.policies.actor_critic import UnawarePolicy as UnawarePolicy
from hyperrl.policies.context import POLICY_OF as POLICY_OF
from hyperrl.policies.context import ContextExtractor as ContextExtractor
from hyperrl.policies.context import ContextPolicy as ContextPolicy
from hyperrl.policies.context import ContextReader as ContextReader
from hyperrl.policies.dqn import HyperDQNPolicy as HyperDQNPolicy
from hyperrl.policies.film import FilmPolicy as FilmPolicy
from hyperrl.policies.generation import GeneratedPolicy as GeneratedPolicy
from hyperrl.policies.sac import HyperSACPolicy as HyperSACPolicy
from hyperrl.policies.td3 import HyperTD3Policy as HyperTD3Policy

if TYPE_CHECKING:
    from hyperrl.policies.crossq import HyperCrossQPolicy as HyperCrossQPolicy
    from hyperrl.policies.qrdqn import HyperQRDQNPolicy as HyperQRDQNPolicy
    from hyperrl.policies.tqc import HyperTQCPolicy as HyperTQCPolicy

_LAZY = {"HyperCrossQPolicy": "crossq", "HyperQRDQNPolicy": "qrdqn", "HyperTQCPolicy": "tqc"}  # of sb3-contrib


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"hyperrl.policies.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'hyperrl.policies' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
