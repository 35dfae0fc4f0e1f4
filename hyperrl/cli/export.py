"""``hyperrl export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from tyro.conf import Positional

from hyperrl.cli.arguments import assignments

if TYPE_CHECKING:
    pass


def export(
    run: Positional[Path],
    context: tuple[str, ...] | None = None,
    format: Literal["onnx", "pt2", "safetensors"] = "onnx",
    out: Path | None = None,
) -> None:
    """Write a trained agent's policy to a file that runs without hyperrl.

    Args:
        run: Run folder that `hyperrl train` wrote.
        context: Context to freeze the policy at, such as `length=0.7 mass=1.2`; features not named at their default.
            Default: left open, the context is a second input (not with safetensors).
        format: onnx, for ONNX Runtime; pt2, for torch.export.load; safetensors, for hyperrl.export.load.
        out: File to write; must not exist. Default: RUN/policy.FORMAT.
    """
    from hyperrl.export.formats import save
    from hyperrl.training.run import Run

    opened = Run.open(run)
    out = opened.path / f"policy.{format}" if out is None else out
    with Console(stderr=True).status(f"Writing {format}, and checking that it acts as the model does"):
        save(opened.model("cpu"), out, None if context is None else assignments(context, "length=0.7"), format)
    Console().print(f"Wrote {out}", highlight=False)
