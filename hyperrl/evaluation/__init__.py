"""Evaluation: returns over contexts, scores, their statistics, and what wrong contexts do to them."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.evaluation.perturbations import PERTURBATIONS as PERTURBATIONS
    from hyperrl.evaluation.perturbations import perturb as perturb
    from hyperrl.evaluation.pooling import pooled_gap as pooled_gap
    from hyperrl.evaluation.pooling import pooled_improvement as pooled_improvement
    from hyperrl.evaluation.pooling import pooled_iqm as pooled_iqm
    from hyperrl.evaluation.pooling import pooled_profile as pooled_profile
    from hyperrl.evaluation.protocol import evaluate as evaluate
    from hyperrl.evaluation.reference import Reference as Reference
    from hyperrl.evaluation.reference import find_reference as find_reference
    from hyperrl.evaluation.reference import known_scores as known_scores
    from hyperrl.evaluation.reference import reference_path as reference_path
    from hyperrl.evaluation.report import Plane as Plane
    from hyperrl.evaluation.report import Report as Report
    from hyperrl.evaluation.report import Series as Series
    from hyperrl.evaluation.report import Settings as Settings
    from hyperrl.evaluation.report import Split as Split
    from hyperrl.evaluation.statistics import Estimate as Estimate
    from hyperrl.evaluation.statistics import bootstrap_gap as bootstrap_gap
    from hyperrl.evaluation.statistics import bootstrap_improvement as bootstrap_improvement
    from hyperrl.evaluation.statistics import bootstrap_iqm as bootstrap_iqm
    from hyperrl.evaluation.statistics import bootstrap_mean as bootstrap_mean
    from hyperrl.evaluation.statistics import bootstrap_median as bootstrap_median
    from hyperrl.evaluation.statistics import bootstrap_profile as bootstrap_profile
    from hyperrl.evaluation.statistics import interquartile_mean as interquartile_mean
    from hyperrl.evaluation.statistics import optimality_gap as optimality_gap
    from hyperrl.evaluation.statistics import performance_profile as performance_profile
    from hyperrl.evaluation.statistics import probability_of_improvement as probability_of_improvement

__getattr__, __dir__ = attach(
    __name__,
    {
        "perturbations": (
            "PERTURBATIONS",
            "perturb",
        ),
        "pooling": (
            "pooled_gap",
            "pooled_improvement",
            "pooled_iqm",
            "pooled_profile",
        ),
        "protocol": ("evaluate",),
        "reference": (
            "Reference",
            "find_reference",
            "known_scores",
            "reference_path",
        ),
        "report": (
            "Plane",
            "Report",
            "Series",
            "Settings",
            "Split",
        ),
        "statistics": (
            "Estimate",
            "bootstrap_gap",
            "bootstrap_improvement",
            "bootstrap_iqm",
            "bootstrap_mean",
            "bootstrap_median",
            "bootstrap_profile",
            "interquartile_mean",
            "optimality_gap",
            "performance_profile",
            "probability_of_improvement",
        ),
    },
)
