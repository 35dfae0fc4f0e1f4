"""``hyperrl export``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from hyperrl.cli.agents import load_agent, open_agent
from hyperrl.cli.arguments import assignments
from hyperrl.cli.console import console, say
from hyperrl.utils.files import refuse_existing


def export(
    agent: Positional[Path],
    context: tuple[str, ...] | None = None,
    hidden: bool = False,
    format: Literal["onnx", "pt2", "safetensors"] = "onnx",
    out: Path | None = None,
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    trust: bool = False,
) -> None:
    """Write a trained agent's policy to a file that runs without hyperrl.

    Args:
        agent: Run folder, shared agent (see `hyperrl list`, or a folder, or hf:user/repo), or a model's zip that
            Stable-Baselines3 saved.
            Loading a zip unpickles, which can run any code: give zips that you trust.
        context: Context to freeze the policy at, such as `length=0.7 mass=1.2`; features not named at their default.
            Default: left open, the context is a second input (not with safetensors).
        hidden: Hide the context, after `hyperrl infer`: the file infers it, and has a state as input and output.
        format: onnx, for ONNX Runtime; pt2, for torch.export.load; safetensors, for hyperrl.export.load.
        out: File to write; must not exist. Default: RUN/policy.FORMAT, or AGENT.policy.FORMAT.
        family: For a zip with --normalizer: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For a zip: what trained it, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For a zip: file that VecNormalize.save wrote, where it was trained with normalised observations.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
    """
    from hyperrl.export.formats import require_format, save

    opened = open_agent(agent, family, algorithm, normalizer, trust)
    out = opened.beside(f"policy.{format}") if out is None else out
    require_format(format)
    refuse_existing(out, "choose another file, or remove it")
    if hidden:
        from hyperrl.inference import InferringAgent, formats

        if context is not None:
            raise ValueError("with --hidden the context is inferred: leave out --context")
        inferring = load_agent(opened, "cpu", hidden=True)
        assert isinstance(inferring, InferringAgent)
        formats.save(inferring, out, format)
        say(f"Wrote {out}")
        return
    with console(stderr=True).status(f"Writing {format}, and checking that it acts as the model does"):
        save(opened.model("cpu"), out, None if context is None else assignments(context, "length=0.7"), format)
    say(f"Wrote {out}")
