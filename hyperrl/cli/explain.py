"""``hyperrl explain``."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from tyro.conf import Positional

from hyperrl.cli.agents import open_agent
from hyperrl.cli.console import console, say
from hyperrl.utils.files import refuse_existing


def explain(
    agent: Positional[Path],
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    contexts: int = 64,
    states: int = 1024,
    episodes: int = 2,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
    trust: bool = False,
) -> None:
    """Explain what each feature of the context does to an agent's weights and actions.

    Args:
        agent: Run folder, shared agent (see `hyperrl list`, or a folder, or hf:user/repo), or a model's zip that
            Stable-Baselines3 saved, with --family.
            Loading a zip unpickles, which can run any code: give zips that you trust.
        family: For a zip: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For a zip: what trained it, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For a zip: file that VecNormalize.save wrote, where it was trained with normalised observations.
        contexts: Number of contexts of the training range to look at.
        states: Number of visited states to look at.
        episodes: Episodes in each of 20 contexts while one feature is told wrongly; 0 for none.
        seed: Seed of contexts and initial states.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: New folder for a report in Markdown with pictures, and the numbers. Default: print only.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
    """
    import torch

    from hyperrl.analysis import explain
    from hyperrl.report.explanation import ACTIONS, action_rows, weight_rows, write_explanation

    torch.set_num_threads(1)  # the fastest for networks as small as these
    if out is not None:
        refuse_existing(out)
    opened = open_agent(agent, family, algorithm, normalizer, trust)
    terminal = console()
    with console(stderr=True).status("Playing, and comparing weights and actions"):
        explanation = explain(opened.model(device), opened.family, contexts, states, episodes, seed)
        if out is not None:
            write_explanation(explanation, opened.family.context_space, opened.name, out)
    title = f"{opened.name} on {opened.family.name}"
    actions = Table(*ACTIONS, title=f"{title}: actions")
    for row in action_rows(explanation):
        actions.add_row(*row)
    terminal.print(actions)
    weights = explanation.weights
    if weights is None:
        terminal.print(f"Nothing about weights: {explanation.without_weights}.")
    else:
        table = Table("layer", *explanation.features, "rank", title=f"{title}: weights, head {weights.head}")
        for row in weight_rows(explanation):
            table.add_row(*row)
        terminal.print(table)
    if explanation.told:
        table = Table("feature", "told right", "told wrongly, worst", title=f"{title}: mean return")
        for name, told in explanation.told.items():
            right = told.returns[told.offsets == 0][0]
            table.add_row(name, f"{right:.1f}", f"{told.returns.min():.1f}")
        terminal.print(table)
    groups = [len(group.contexts) for group in explanation.groups]
    terminal.print(f"Groups of contexts that share a policy: {len(groups)}, of {', '.join(map(str, groups))} contexts.")
    terminal.print(
        "Moves actions: mean difference between two values of the training range, in visited states, in % of the "
        "actions' range. Weights: change for half a training range, in % of their norm."
    )
    if out is not None:
        say(f"Wrote {out / 'report.md'} and its pictures")
