"""Training: a recipe becomes a model, and the model a run folder."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.training.diagnostics import HyperDiagnostics as HyperDiagnostics
    from hyperrl.training.loop import train as train
    from hyperrl.training.models import build as build
    from hyperrl.training.models import matched_width as matched_width
    from hyperrl.training.recipe import AgentDefinition as AgentDefinition
    from hyperrl.training.recipe import AgentSpec as AgentSpec
    from hyperrl.training.recipe import agent_spec as agent_spec
    from hyperrl.training.recipe import read_overrides as read_overrides
    from hyperrl.training.record import Result as Result
    from hyperrl.training.record import RunRecord as RunRecord
    from hyperrl.training.record import Training as Training
    from hyperrl.training.run import Run as Run
    from hyperrl.training.run import group_runs as group_runs
    from hyperrl.training.seeds import train_seeds as train_seeds

__getattr__, __dir__ = attach(
    __name__,
    {
        "models": (
            "build",
            "matched_width",
        ),
        "diagnostics": ("HyperDiagnostics",),
        "loop": ("train",),
        "recipe": (
            "AgentDefinition",
            "AgentSpec",
            "agent_spec",
            "read_overrides",
        ),
        "record": (
            "Result",
            "RunRecord",
            "Training",
        ),
        "run": (
            "Run",
            "group_runs",
        ),
        "seeds": ("train_seeds",),
    },
)
