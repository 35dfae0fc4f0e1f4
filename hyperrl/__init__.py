"""Reinforcement-learning agents whose weights a hypernetwork produces from the environment's context.

Importing this package registers every family as a Gymnasium id (``hyperrl/Pendulum-v0`` …); torch and
Stable-Baselines3 are imported when a name that needs them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyperrl.contexts import ContextSpace as ContextSpace
from hyperrl.families import ContextEnv as ContextEnv
from hyperrl.families import Family as Family
from hyperrl.families import load_family as load_family
from hyperrl.families import register

if TYPE_CHECKING:
    from hyperrl.adaptation import adapt as adapt
    from hyperrl.evaluation import evaluate as evaluate
    from hyperrl.hypernet import HyperNetwork as HyperNetwork
    from hyperrl.policies import ConcatPolicy as ConcatPolicy
    from hyperrl.policies import HyperPolicy as HyperPolicy
    from hyperrl.policies import UnawarePolicy as UnawarePolicy
    from hyperrl.specialization import specialize as specialize
    from hyperrl.training import train as train

__version__ = "0.1.0"

_LAZY = {
    "ConcatPolicy": "policies",
    "HyperNetwork": "hypernet",
    "HyperPolicy": "policies",
    "UnawarePolicy": "policies",
    "adapt": "adaptation",
    "evaluate": "evaluation",
    "specialize": "specialization",
    "train": "training",
}
__all__ = ["ContextEnv", "ContextSpace", "Family", "load_family", *_LAZY]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"hyperrl.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'hyperrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


register()
