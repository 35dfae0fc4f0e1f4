"""``hyperrl record``."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from hyperrl.cli.agents import load_agent, open_agent
from hyperrl.cli.arguments import draw_without_screen
from hyperrl.cli.console import say


def record(
    agent: Positional[Path],
    out: Path,
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    hidden: bool = False,
    split: str = "interpolation",
    contexts: int = 4,
    seed: int = 0,
    every: int | None = None,
    steps: int | None = None,
    device: str = "cpu",
    trust: bool = False,
    progress: bool = True,
) -> None:
    """Film a trained agent in several contexts side by side, as an animated GIF or as MP4.

    Args:
        agent: Run folder, shared agent (see `hyperrl list`, or a folder, or hf:user/repo), or a model's zip that
            Stable-Baselines3 saved, with --family.
            Loading a zip unpickles, which can run any code: give zips that you trust.
        out: File to write, ending in .gif, or in .mp4 with the extra film; must not exist.
        family: For a zip: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For a zip: what trained it, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For a zip: file that VecNormalize.save wrote, where it was trained with normalised observations.
        hidden: Hide the context: the agent infers it while it acts, once `hyperrl infer` has learnt how.
        split: Where the contexts come from: train, interpolation or extrapolation.
        contexts: Number of contexts, one panel each.
        seed: Seed of contexts and initial states.
        every: Film every so many-th step. Default: every second one for .gif, all for .mp4.
        steps: Film no more steps than these. Default: whole episodes.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
        progress: Show a progress bar.
    """
    from hyperrl.report.films import record

    draw_without_screen()
    opened = open_agent(agent, family, algorithm, normalizer, trust)
    points = opened.family.context_space.sample(split, contexts, seed)
    record(load_agent(opened, device, hidden), opened.family, points, out, seed, every, progress, steps)
    say(f"Wrote {out}")
