"""Arguments as users write them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import arg

from hyperrl.cli.help import retyped
from hyperrl.utils.extras import require
from hyperrl.utils.imports import load_module

if TYPE_CHECKING:
    from hyperrl.experiments.engines import Engine

Modules = Annotated[
    tuple[str, ...],
    arg(name="import", metavar="MODULE", help="Module to import first; it may register environments."),
    tyro.conf.UseAppendAction,
]


def with_imports(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--import MODULE``, which imports modules, of the current directory too, before it runs."""

    @functools.wraps(command)
    def wrapper(*args: Any, import_: tuple[str, ...] = (), **kwargs: Any) -> None:
        if "" not in sys.path:
            sys.path.append("")  # last, so that a file there hides no installed package
        for module in import_:
            load_module(module)
        command(*args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("import_", inspect.Parameter.KEYWORD_ONLY, default=(), annotation=Modules)
    return retyped(wrapper, [*signature.parameters.values(), option])


def assignments(texts: tuple[str, ...], example: str) -> dict[str, float]:
    """Read numbers by name as users write them: ``("length=0.7", "mass=1.2")``."""
    numbers = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ValueError(f"expected a name and its value, such as {example}, got {text!r}") from None
    return numbers


@dataclass(frozen=True)
class EngineOptions:
    """Where trainings run.

    Args:
        engine: local: processes on this machine; ray: a Ray cluster, for which hyperrl needs its extra cluster.
        jobs: Trainings at a time with local, one core each. Default: as many as there are cores.
        address: Of the Ray cluster, such as auto or ray://head:10001. Default: Ray is started on this machine.
        num_cpus: Processors that a training takes with ray.
        num_gpus: GPUs, or parts of one, that a training takes with ray.
        shared_storage: All nodes of the Ray cluster see the output under the same path. Default: it is brought back.
    """

    engine: Literal["local", "ray"] = "local"
    jobs: Annotated[int, arg(metavar="N")] = os.cpu_count() or 1
    address: Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint="")] = None
    num_cpus: Annotated[float, arg(metavar="X")] = 1.0
    num_gpus: Annotated[float, arg(metavar="X")] = 0.0
    shared_storage: bool = False

    def make(self) -> Engine:
        """Make the engine.

        :raises ValueError: where Ray is asked for and not installed.
        """
        from hyperrl.experiments.engines import LocalEngine

        if self.engine == "local":
            return LocalEngine(self.jobs)
        require("the engine 'ray'", "cluster", "ray")
        from hyperrl.experiments.ray_engine import RayEngine

        return RayEngine(self.address, self.num_cpus, self.num_gpus, self.shared_storage)


Engines = Annotated[EngineOptions, arg(name="", prefix_name=False)]
"""An engine as an argument of a command."""

HERE = EngineOptions()
"""This machine."""


def set_threads(threads: int) -> None:
    """Set how many threads torch uses on the CPU.

    :raises ValueError: for less than one, and for more than there are cores, which would only get in each other's way.
    """
    import torch

    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ValueError(f"expected from 1 to {cores} threads, the cores of this machine, got --threads {threads}")
    torch.set_num_threads(threads)


def draw_without_screen() -> None:
    """Let MuJoCo draw by EGL where there is no screen, unless the user has chosen otherwise."""
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not has_screen:
        os.environ.setdefault("MUJOCO_GL", "egl")
