"""One agent taken out of hyperrl: specialised to one context, or written to a file that runs by itself."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.export.deterministic import FrozenPolicy as FrozenPolicy
    from hyperrl.export.deterministic import OpenPolicy as OpenPolicy
    from hyperrl.export.formats import FORMATS as FORMATS
    from hyperrl.export.formats import load as load
    from hyperrl.export.formats import save as save
    from hyperrl.export.specialization import specialize as specialize

__getattr__, __dir__ = attach(
    __name__,
    {
        "deterministic": (
            "FrozenPolicy",
            "OpenPolicy",
        ),
        "formats": (
            "FORMATS",
            "load",
            "save",
        ),
        "specialization": ("specialize",),
    },
)
