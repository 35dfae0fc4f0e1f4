"""``hyperrl infer``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from hyperrl.cli.agents import load_agent, open_agent
from hyperrl.cli.arguments import assignments
from hyperrl.cli.console import say
from hyperrl.training.record import ESTIMATOR
from hyperrl.utils.files import refuse_existing


def infer(
    agent: Positional[Path],
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    steps: int = 1_500_000,
    seed: int = 0,
    contexts: Literal["train", "bounds"] = "train",
    switch: tuple[int, ...] = (20, 200),
    context: tuple[str, ...] | None = None,
    out: Path | None = None,
    device: str = "cpu",
    trust: bool = False,
    progress: bool = True,
) -> None:
    """Learn to infer a trained agent's context while it acts, so that evaluate, adapt, record and export can hide it.

    Args:
        agent: Run folder that `hyperrl train` wrote, or a model's zip that Stable-Baselines3 saved, with --family.
            Loading a zip unpickles, which can run any code: give zips that you trust.
        family: For a zip: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For a zip: what trained it, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For a zip: file that VecNormalize.save wrote, where it was trained with normalised observations.
        steps: Environment steps to learn from.
        seed: Seed of the learning, or with --context of the episode.
        contexts: Where contexts are drawn from to learn: the training range, or all of the bounds.
        switch: While learning, the context changes within episodes, after so many steps, or after a random number
            between two. No number: never.
        context: Learn nothing, but draw what the agent believes during an episode in this context, such as
            `length=0.7 mass=1.2`; features not named at their default. It needs --out.
        out: With --context: picture to write, ending in .png; must not exist.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
        progress: Show a progress bar.
    """
    import torch

    torch.set_num_threads(1)  # the fastest for networks as small as these
    opened = open_agent(agent, family, algorithm, normalizer, trust)
    if (context is None) != (out is None):
        raise ValueError("expected both --context and --out, for a picture, or neither, to learn")
    if context is not None and out is not None:
        from hyperrl.inference import InferringAgent
        from hyperrl.report.beliefs import picture_beliefs

        if out.suffix != ".png":
            raise ValueError(f"expected the name of a .png file, got {str(out)!r}")
        model = load_agent(opened, device, hidden=True)
        assert isinstance(model, InferringAgent)
        picture_beliefs(
            model, opened.family, opened.family.context_space.vector(assignments(context, "length=0.7")), out, seed
        )
        say(f"Wrote {out}")
        return
    from hyperrl.inference import infer_context

    target = opened.beside(ESTIMATOR)
    refuse_existing(target, "remove it to learn another")
    between = None if not switch else switch[0] if len(switch) == 1 else switch
    inferring = infer_context(
        opened.model(device),
        opened.family,
        steps,
        seed,
        contexts=contexts,
        switch=between,
        device=device,
        progress=progress,
    )
    inferring.save(target)
    say(f"Wrote {target}. Next: hyperrl evaluate {agent} --hidden")
