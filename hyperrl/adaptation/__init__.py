"""Adaptation: how an agent fares in one environment that it has not seen, after 0, 1, 2, … episodes there."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.adaptation.dynamics import Dynamics as Dynamics
    from hyperrl.adaptation.dynamics import learn_dynamics as learn_dynamics
    from hyperrl.adaptation.identification import Identified as Identified
    from hyperrl.adaptation.identification import Transitions as Transitions
    from hyperrl.adaptation.identification import identify as identify
    from hyperrl.adaptation.methods import AFTER as AFTER
    from hyperrl.adaptation.methods import METHODS as METHODS
    from hyperrl.adaptation.methods import NEED_CONTEXT as NEED_CONTEXT
    from hyperrl.adaptation.methods import OF_MODELS as OF_MODELS
    from hyperrl.adaptation.methods import Adaptation as Adaptation
    from hyperrl.adaptation.methods import Curve as Curve
    from hyperrl.adaptation.methods import adapt as adapt
    from hyperrl.adaptation.methods import check_method as check_method
    from hyperrl.adaptation.search import ContextSearch as ContextSearch
    from hyperrl.adaptation.studies import Line as Line
    from hyperrl.adaptation.studies import Study as Study
    from hyperrl.adaptation.studies import StudySettings as StudySettings
    from hyperrl.adaptation.studies import study as study

__getattr__, __dir__ = attach(
    __name__,
    {
        "dynamics": (
            "Dynamics",
            "learn_dynamics",
        ),
        "identification": (
            "Identified",
            "Transitions",
            "identify",
        ),
        "methods": (
            "AFTER",
            "METHODS",
            "NEED_CONTEXT",
            "OF_MODELS",
            "Adaptation",
            "Curve",
            "adapt",
            "check_method",
        ),
        "search": ("ContextSearch",),
        "studies": (
            "Line",
            "Study",
            "StudySettings",
            "study",
        ),
    },
)
