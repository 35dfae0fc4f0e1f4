"""Evaluation: returns over contexts, scores, their statistics, and what wrong contexts do to them."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.evaluation.novelty import ByNovelty as ByNovelty
    from hyperrl.evaluation.novelty import NoveltyClass as NoveltyClass
    from hyperrl.evaluation.novelty import by_novelty as by_novelty
    from hyperrl.evaluation.novelty import rank_correlation as rank_correlation
    from hyperrl.evaluation.perturbations import PERTURBATIONS as PERTURBATIONS
    from hyperrl.evaluation.perturbations import perturb as perturb
    from hyperrl.evaluation.pooling import pooled_difference as pooled_difference
    from hyperrl.evaluation.pooling import pooled_gap as pooled_gap
    from hyperrl.evaluation.pooling import pooled_improvement as pooled_improvement
    from hyperrl.evaluation.pooling import pooled_iqm as pooled_iqm
    from hyperrl.evaluation.pooling import pooled_profile as pooled_profile
    from hyperrl.evaluation.protocol import evaluate as evaluate
    from hyperrl.evaluation.reference import Reference as Reference
    from hyperrl.evaluation.reference import find_reference as find_reference
    from hyperrl.evaluation.reference import known_scores as known_scores
    from hyperrl.evaluation.reference import reference_path as reference_path
    from hyperrl.evaluation.report import AfterSwitch as AfterSwitch
    from hyperrl.evaluation.report import Plane as Plane
    from hyperrl.evaluation.report import Report as Report
    from hyperrl.evaluation.report import Series as Series
    from hyperrl.evaluation.report import Settings as Settings
    from hyperrl.evaluation.report import Split as Split
    from hyperrl.evaluation.statistics import Estimate as Estimate
    from hyperrl.evaluation.statistics import estimate_gap as estimate_gap
    from hyperrl.evaluation.statistics import estimate_improvement as estimate_improvement
    from hyperrl.evaluation.statistics import estimate_iqm as estimate_iqm
    from hyperrl.evaluation.statistics import estimate_mean as estimate_mean
    from hyperrl.evaluation.statistics import estimate_median as estimate_median
    from hyperrl.evaluation.statistics import estimate_profile as estimate_profile
    from hyperrl.evaluation.statistics import interquartile_mean as interquartile_mean
    from hyperrl.evaluation.statistics import optimality_gap as optimality_gap
    from hyperrl.evaluation.statistics import performance_profile as performance_profile
    from hyperrl.evaluation.statistics import probability_of_improvement as probability_of_improvement
    from hyperrl.evaluation.switches import after_switch as after_switch

__getattr__, __dir__ = attach(
    __name__,
    {
        "novelty": (
            "ByNovelty",
            "NoveltyClass",
            "by_novelty",
            "rank_correlation",
        ),
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
            "AfterSwitch",
            "Plane",
            "Report",
            "Series",
            "Settings",
            "Split",
        ),
        "statistics": (
            "Estimate",
            "estimate_gap",
            "estimate_improvement",
            "estimate_iqm",
            "estimate_mean",
            "estimate_median",
            "estimate_profile",
            "interquartile_mean",
            "optimality_gap",
            "performance_profile",
            "probability_of_improvement",
        ),
        "switches": ("after_switch",),
    },
)
