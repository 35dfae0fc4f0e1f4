"""Experiments of many trainings: sweeps, references, tuning, comparison, and the engines that run them."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.experiments.comparison import Comparison as Comparison
    from hyperrl.experiments.comparison import PooledComparison as PooledComparison
    from hyperrl.experiments.comparison import Row as Row
    from hyperrl.experiments.comparison import compare_by_family as compare_by_family
    from hyperrl.experiments.counting import CountSteps as CountSteps
    from hyperrl.experiments.engines import Engine as Engine
    from hyperrl.experiments.engines import LocalEngine as LocalEngine
    from hyperrl.experiments.ray_engine import RayEngine as RayEngine
    from hyperrl.experiments.specialists import make_reference as make_reference
    from hyperrl.experiments.specialists import optimum as optimum
    from hyperrl.experiments.sweeps import Cell as Cell
    from hyperrl.experiments.sweeps import SweepDefinition as SweepDefinition
    from hyperrl.experiments.sweeps import SweepResult as SweepResult
    from hyperrl.experiments.sweeps import sweep as sweep
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
        "counting": ("CountSteps",),
        "engines": ("Engine", "LocalEngine"),
        "ray_engine": ("RayEngine",),
        "specialists": (
            "make_reference",
            "optimum",
        ),
        "sweeps": ("Cell", "SweepDefinition", "SweepResult", "sweep"),
        "tuning": ("tune",),
    },
)
