"""``hyperrl adapt``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from tyro.conf import Positional

from hyperrl.cli.agents import SavedModel, load_agent, open_agent
from hyperrl.cli.arguments import assignments
from hyperrl.cli.console import console, say
from hyperrl.training.record import ESTIMATOR
from hyperrl.utils.files import refuse_existing

if TYPE_CHECKING:
    from hyperrl.adaptation.studies import Study
    from hyperrl.evaluation.statistics import Estimate


def adapt(
    agents: Positional[tuple[Path, ...]],
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    context: tuple[str, ...] | None = None,
    contexts: int = 5,
    split: str = "extrapolation",
    unknown: bool = False,
    method: tuple[str, ...] = (),
    episodes: int = 20,
    seeds: int = 3,
    evaluations: int = 10,
    hyperparameters: tuple[str, ...] = (),
    proximal: float = 0.0,
    learn_dynamics: bool = False,
    reference: Path | None = None,
    device: str = "cpu",
    out: Path | None = None,
    trust: bool = False,
    progress: bool = True,
) -> None:
    """Let trained agents adapt to environments that they have not seen, and measure how fast they do.

    Args:
        agents: Run folders of one family, shared agents (see `hyperrl list`), or zips of Stable-Baselines3's models,
            with --family. Loading a zip unpickles, which can run any code: give zips that you trust.
        family: For zips: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For zips: what trained them, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For zips: file that VecNormalize.save wrote, where they were trained with normalised observations.
        context: The new environment, such as `length=0.7 mass=1.2`; features not named at their default.
            Default: several of a split.
        contexts: Number of contexts of the split; they are among the 20 that `hyperrl evaluate` plays.
        split: Where the contexts come from: train, interpolation or extrapolation.
        unknown: The agents are not given the context: only search, identify, scratch and infer.
        method: Any of zero-shot, search, identify, finetune, scratch, infer. Default: all that go;
            finetune and scratch are for agents without memory, infer once `hyperrl infer` has learnt how.
        episodes: Number of episodes to adapt in.
        seeds: How often each agent adapts to each context.
        evaluations: Number of episodes of a measurement, after 0, 1, 2, 5, 10 and 20 episodes.
        hyperparameters: Of the algorithm, to change for finetune and scratch, such as `learning_rate=1e-4`.
            Default: as in training.
        proximal: How strongly finetune pulls weights back to the generated ones.
        learn_dynamics: Let identify use a learnt model of the dynamics, though the family has physics; one that has
            none, or MuJoCo's, needs no telling.
        reference: File of `hyperrl reference`. Default: that beside the family's file, if there is one.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: New folder for the numbers and the picture. Default: RUN/adaptation in the first run folder, or
            AGENT.adaptation beside the first zip.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
        progress: Show a progress bar.
    """
    import torch

    from hyperrl.adaptation.dynamics import learn_dynamics as dynamics_of
    from hyperrl.adaptation.methods import LEARNING, METHODS, NEED_CONTEXT, OF_MODELS, check_method
    from hyperrl.adaptation.studies import study
    from hyperrl.alignment.acting import find_aligned
    from hyperrl.evaluation.reference import find_reference
    from hyperrl.inference.agent import InferringAgent
    from hyperrl.report.adaptation import write_study
    from hyperrl.rollouts.agent import has_memory
    from hyperrl.training.run import group_runs

    torch.set_num_threads(1)  # the fastest for networks as small as these
    if contexts < 1:
        raise ValueError(f"expected at least one context, got --contexts {contexts}")
    opened = [open_agent(agent, family, algorithm, normalizer, trust) for agent in agents]
    grouped: dict[str, list[Any]] = {}
    trained = [agent for agent in opened if not isinstance(agent, SavedModel)]
    if len(trained) == len(opened):
        grouped |= group_runs(trained)
    elif trained:
        raise ValueError("expected run folders or zips, got both: what they were trained on cannot be compared")
    else:
        grouped |= {agent.name: [agent] for agent in opened}
    if len(grouped) < len(opened) and not trained:
        raise ValueError(f"expected zips of different names, by which to call them, got {[str(a) for a in agents]}")
    met = opened[0].family
    target = opened[0].beside("adaptation") if out is None else out
    refuse_existing(target)
    for name in method or ("search",):
        check_method(name)
    hidden = "infer" in method or (not method and all(agent.beside(ESTIMATOR).is_file() for agent in opened))
    models = {name: [load_agent(agent, device, hidden) for agent in group] for name, group in grouped.items()}
    told = [m.model if isinstance(m, InferringAgent) else m for group in models.values() for m in group]
    recurrent = any(map(has_memory, told))
    can = [
        m
        for m in (METHODS if hidden else OF_MODELS)
        if not ((unknown and m in NEED_CONTEXT) or (recurrent and m in LEARNING))
    ]
    if any(find_aligned(model) is not None for model in told):
        can = ["zero-shot"]
    for name in method:
        if unknown and name in NEED_CONTEXT:
            raise ValueError(f"method {name!r} needs the context: leave out --unknown, or choose from {can}")
    space = met.context_space
    if context is None:
        points = space.sample(split, max(contexts, 20), 0)[:contexts]
    else:
        points = space.vector(assignments(context, "length=0.7"))[None]
    found = find_reference(met, reference)
    dynamics = None
    has_gradients = met.has_physics and met.physics().device is None
    if "identify" in (method or can) and (learn_dynamics or not has_gradients):
        dynamics = dynamics_of(met, told[0], device=device, progress=progress)
    result = study(
        models,
        met,
        points,
        method or can,
        episodes,
        seeds,
        evaluations,
        _whole(assignments(hyperparameters, "learning_rate=1e-4")),
        proximal,
        dynamics,
        found,
        progress,
    )
    trainings = {agent: tuple(a.training for a in group) for agent, group in grouped.items()} if trained else {}
    result = replace(result, trainings=trainings)
    write_study(result, target)
    _print_study(result)
    say(f"Wrote {', '.join(str(path) for path in sorted(target.iterdir()))}")


def _whole(numbers: dict[str, float]) -> dict[str, float]:
    """Make whole numbers integers, as hyperparameters such as n_steps must be."""
    return {name: int(value) if value.is_integer() else value for name, value in numbers.items()}


def _print_study(result: Study) -> None:
    what = "scores" if result.is_scored else "returns"
    title = f"{result.family}: IQM of {what} after so many episodes in {len(result.contexts)} unseen contexts"
    table = Table("agent, method", *map(str, result.after), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in result.lines:
        table.add_row(line.label, *(str(estimate).replace(" [", "\n[") for estimate in result.curves[line.label]))
    costs = Table("agent, method", "return per episode while adapting", title="The cost of adapting")
    targets = result.targets
    if targets is not None:
        costs.add_column("regret per episode")
        costs.add_column("episodes to 90 %")
        costs.add_column("steps to 90 %")
    for line in result.lines:
        cells = [f"{line.episode_returns.mean():.1f}"]
        if targets is not None and result.best is not None:
            cells.append(f"{(result.best[:, None] - line.episode_returns).mean():.1f}")
            cells += [_count(estimate) for estimate in line.reached(targets)]
        costs.add_row(line.label, *cells)
    terminal = console()
    terminal.print(table, costs, sep="\n")
    terminal.print("Intervals: 95 %, over trainings; of a single one, over its adaptations.")
    if targets is None:
        terminal.print("No reference in these contexts, so nothing is known of specialists: see `hyperrl reference`.")
    else:
        terminal.print("A score of 0 is random, 1 a specialist's. 90 %: of the way there; the median over all.")


def _count(estimate: Estimate) -> str:
    value, low, high = (f"{count:.0f}" if np.isfinite(count) else "never" for count in estimate)
    return f"{value} [{low}, {high}]"
