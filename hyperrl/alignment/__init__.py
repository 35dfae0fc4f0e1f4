"""Dynamics-aligned context: an embedding of the last transitions, learnt by predicting the next observation."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.alignment.acting import AlignedModel as AlignedModel
    from hyperrl.alignment.acting import find_aligned as find_aligned
    from hyperrl.alignment.callback import AlignmentCallback as AlignmentCallback
    from hyperrl.alignment.networks import AlignedDynamics as AlignedDynamics
    from hyperrl.alignment.networks import AverageL1 as AverageL1
    from hyperrl.alignment.networks import SimNorm as SimNorm
    from hyperrl.alignment.wrapper import AlignedContext as AlignedContext

__getattr__, __dir__ = attach(
    __name__,
    {
        "acting": ("AlignedModel", "find_aligned"),
        "callback": ("AlignmentCallback",),
        "networks": ("AlignedDynamics", "AverageL1", "SimNorm"),
        "wrapper": ("AlignedContext",),
    },
)
