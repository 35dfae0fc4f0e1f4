"""Reinforcement-learning agents whose weights a hypernetwork produces from the environment's context.

Importing this package registers every family as a Gymnasium id (``hyperrl/Pendulum-v0`` …); torch and
Stable-Baselines3 are imported when a name that needs them is first used.
"""

from typing import TYPE_CHECKING

from hyperrl.contexts import ContextSpace as ContextSpace
from hyperrl.families import ContextEnv as ContextEnv
from hyperrl.families import Family as Family
from hyperrl.families import load_family as load_family
from hyperrl.families import register
from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.adaptation import adapt as adapt
    from hyperrl.analysis import explain as explain
    from hyperrl.device import DevicePPO as DevicePPO
    from hyperrl.evaluation import evaluate as evaluate
    from hyperrl.experiments import sweep as sweep
    from hyperrl.export import specialize as specialize
    from hyperrl.hypernet import HyperNetwork as HyperNetwork
    from hyperrl.inference import infer_context as infer_context
    from hyperrl.policies import ConcatPolicy as ConcatPolicy
    from hyperrl.policies import HyperPolicy as HyperPolicy
    from hyperrl.policies import HyperRecurrentPolicy as HyperRecurrentPolicy
    from hyperrl.policies import UnawarePolicy as UnawarePolicy
    from hyperrl.sharing import load_agent as load_agent
    from hyperrl.training import Run as Run
    from hyperrl.training import train as train

__version__ = "0.1.0"

__getattr__, __dir__ = attach(
    __name__,
    {
        "adaptation": ("adapt",),
        "analysis": ("explain",),
        "device": ("DevicePPO",),
        "evaluation": ("evaluate",),
        "experiments": ("sweep",),
        "export": ("specialize",),
        "hypernet": ("HyperNetwork",),
        "inference": ("infer_context",),
        "policies": ("ConcatPolicy", "HyperPolicy", "HyperRecurrentPolicy", "UnawarePolicy"),
        "sharing": ("load_agent",),
        "training": ("Run", "train"),
    },
)

register()
