"""Experiments of many trainings: references, tuning, comparison."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.experiments.comparison import Comparison as Comparison
    from hyperrl.experiments.comparison import PooledComparison as PooledComparison
    from hyperrl.experiments.comparison import Row as Row
    from hyperrl.experiments.comparison import compare_by_family as compare_by_family
    from hyperrl.experiments.specialists import make_reference as make_reference
    from hyperrl.experiments.specialists import optimum as optimum
    from hyperrl.experiments.tuning import tune as tune

__getattr__, __dir__ = attach(
    __name__,
    {
        "comparison": (
            "Comparison",
            "PooledComparison",
            "Row",
            "compare_by_family",
        ),
        "specialists": (
            "make_reference",
            "optimum",
        ),
        "tuning": ("tune",),
    },
)
