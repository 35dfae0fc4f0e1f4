"""Inference: an agent whose context nobody tells it, and that finds it out while it acts."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.inference.agent import InferringAgent as InferringAgent
    from hyperrl.inference.agent import Memory as Memory
    from hyperrl.inference.beliefs import Belief as Belief
    from hyperrl.inference.estimator import Estimator as Estimator
    from hyperrl.inference.learning import infer_context as infer_context

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent": ("InferringAgent", "Memory"),
        "beliefs": ("Belief",),
        "estimator": ("Estimator",),
        "learning": ("infer_context",),
    },
)
