"""The live page: agents side by side in one context, which sliders change while they act."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.explorer.session import Lane as Lane
    from hyperrl.explorer.session import Session as Session
    from hyperrl.explorer.weights import WeightMap as WeightMap

__getattr__, __dir__ = attach(__name__, {"session": ("Lane", "Session"), "weights": ("WeightMap",)})
