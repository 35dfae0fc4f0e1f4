"""Analysis: what the context does to an agent's weights and to its actions."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.analysis.actions import ActionEffect as ActionEffect
    from hyperrl.analysis.actions import PolicyGroup as PolicyGroup
    from hyperrl.analysis.explanation import Explanation as Explanation
    from hyperrl.analysis.explanation import explain as explain
    from hyperrl.analysis.weights import Direction as Direction
    from hyperrl.analysis.weights import LayerEffect as LayerEffect
    from hyperrl.analysis.weights import WeightEffects as WeightEffects

__getattr__, __dir__ = attach(
    __name__,
    {
        "actions": ("ActionEffect", "PolicyGroup"),
        "explanation": ("Explanation", "explain"),
        "weights": ("Direction", "LayerEffect", "WeightEffects"),
    },
)
