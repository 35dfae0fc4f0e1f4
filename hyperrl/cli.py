"""The command line: ``hyperrl train | tune | evaluate | reference | compare | adapt | record | export | list``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import hyperrl
from hyperrl.files import refuse_existing
from hyperrl.statistics import Estimate, bootstrap_iqm

if TYPE_CHECKING:
    from hyperrl.adaptation.study import Study
    from hyperrl.comparison import Comparison
    from hyperrl.evaluation import Report
    from hyperrl.reference import Reference

Positional = tyro.conf.Positional


def train(
    family: Positional[str],
    agent: Positional[str],
    out: Path | None = None,
    steps: int = 500_000,
    seed: int = 0,
    contexts: int | None = None,
    irrelevant: int = 0,
    resume: bool = False,
    device: str = "auto",
    threads: int = 1,
    progress: bool = True,
) -> None:
    """Train an agent on a family and write a run folder.

    Args:
        family: Name of a family (see `hyperrl list`), or path of a .toml file.
        agent: Name of an agent (see `hyperrl list`), or path of a .toml file.
        out: Run folder to write; must not exist. Default: runs/FAMILY-AGENT-SEED.
        steps: Environment steps to train for, rounded up to whole rollouts.
        seed: Seed of networks, contexts and initial states.
        contexts: Train on a fixed set of this many contexts. Default: a fresh one each episode.
        irrelevant: Append this many features to the context on which nothing depends.
        resume: Continue an interrupted training of the same folder; begin where there is none.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        threads: Threads that torch uses on the CPU; one is the fastest for networks as small as these.
        progress: Show a progress bar.
    """
    import torch

    from hyperrl.families import load_family
    from hyperrl.training import train

    torch.set_num_threads(threads)
    if out is None:
        distractors = f"-irrelevant{irrelevant}" if irrelevant else ""
        out = Path("runs") / f"{Path(family).stem}-{Path(agent).stem}{distractors}-{seed}"
    train(
        load_family(family).with_irrelevant(irrelevant),
        agent,
        steps,
        seed,
        out,
        contexts=contexts,
        resume=resume,
        device=device,
        progress=progress,
    )
    Console().print(f"Wrote {out}. Next: hyperrl evaluate {out}", highlight=False)


def tune(
    family: Positional[str],
    agent: Positional[str],
    out: Path | None = None,
    trials: int = 30,
    steps: int = 100_000,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    threads: int = 1,
    progress: bool = True,
) -> None:
    """Search for the head, rank, embedding and learning rate with which an agent does best, and write its recipe.

    Args:
        family: Name of a family (see `hyperrl list`), or path of a .toml file.
        agent: Name of an agent with policy hyper (see `hyperrl list`), or path of a .toml file.
        out: Folder to write; must not exist. Default: runs/tune-FAMILY-AGENT-SEED.
        trials: Number of trainings, with those before an interruption.
        steps: Environment steps of a trial.
        seed: Seed of the search and of each trial.
        resume: Continue the search of the same folder; begin where there is none.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        threads: Threads that torch uses on the CPU; one is the fastest for networks as small as these.
        progress: Show a progress bar.
    """
    import torch

    from hyperrl.tuning import tune

    torch.set_num_threads(threads)
    if out is None:
        out = Path("runs") / f"tune-{Path(family).stem}-{Path(agent).stem}-{seed}"
    best = tune(family, agent, trials, steps, seed, out=out, resume=resume, device=device, progress=progress)
    Console().print(f"Wrote {best.source}. Next: hyperrl train {family} {best.source}", highlight=False, soft_wrap=True)


def evaluate(
    run: Positional[Path],
    splits: tuple[str, ...] = ("train", "interpolation", "extrapolation"),
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    plane: int = 13,
    sweep: int = 13,
    noise: tuple[float, ...] = (),
    offset: tuple[float, ...] = (),
    other: tuple[float, ...] = (),
    reference: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
    progress: bool = True,
) -> None:
    """Measure the returns of a trained agent on contexts of each split, and what they depend on.

    Args:
        run: Run folder that `hyperrl train` wrote.
        splits: Any of train, interpolation (inside the training range, not trained on), extrapolation (outside it).
        contexts: Number of contexts per split.
        episodes: Number of episodes per context.
        seed: Seed of contexts and initial states.
        deterministic: Take the most likely action rather than a sample.
        plane: Grid points per feature of the context plane; 0 for no grid.
        sweep: Values of each feature to try with the others at their default; 0 for none.
        noise: Also tell the agent noisy contexts: standard deviations, in half training ranges.
        offset: Also tell the agent contexts that are all off by this much, in half training ranges.
        other: Also tell the agent another context than the true one, with these probabilities.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: File to write the numbers to; must not exist. Default: RUN/evaluation.json.
        progress: Show a progress bar.
    """
    from hyperrl.evaluation import evaluate
    from hyperrl.reference import find_reference
    from hyperrl.runs import Run

    opened = Run.open(run)
    target = opened.evaluation_path if out is None else out
    refuse_existing(target, "give another file with --out")
    found = find_reference(opened.family, reference)
    misreports = {k: v for k, v in (("noise", noise), ("offset", offset), ("other", other)) if v}
    report = evaluate(
        opened.model(device),
        opened.family,
        splits,
        contexts,
        episodes,
        seed,
        deterministic,
        plane,
        sweep,
        misreports,
        progress,
    )
    report.provenance["run"] = {"path": str(run), **opened.record}
    report.save(target)
    _print_report(report, found, str(run))


def reference(
    family: Positional[str],
    agent: str = "unaware-ppo",
    steps: int = 200_000,
    splits: tuple[str, ...] = ("train", "interpolation", "extrapolation"),
    contexts: int = 20,
    episodes: int = 100,
    seed: int = 0,
    seeds: int = 1,
    jobs: int = os.cpu_count() or 1,
    work: Path | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> None:
    """Train a specialist for each evaluation context, and write what it and random actions get there.

    With the file, returns become scores: 0 is random, 1 is the specialist. An interrupted call goes on where it was.

    Args:
        family: Name of a family (see `hyperrl list`), or path of a .toml file.
        agent: Recipe of the specialists, each trained in one context alone.
        steps: Environment steps of each specialist.
        splits: The splits whose contexts to take.
        contexts: Number of contexts per split; as in `hyperrl evaluate`.
        episodes: Number of episodes per context.
        seed: Seed of contexts, initial states and the first training; as in `hyperrl evaluate`.
        seeds: Number of trainings in each context; the best of them is the specialist.
        jobs: Trainings at a time, one core each. Default: as many as there are cores.
        work: Folder for the specialists' run folders. Default: runs/reference-FAMILY.
        out: File to write; must not exist. Default: beside the family's file, where it is found.
        progress: Show a progress bar.
    """
    from hyperrl.families import load_family
    from hyperrl.reference import make_reference, reference_path

    loaded = load_family(family)
    target = reference_path(loaded) if out is None else out
    refuse_existing(target, "remove it first, or give another --out")
    folder = Path("runs") / f"reference-{loaded.name}" if work is None else work
    made, left_out = make_reference(
        loaded, folder, agent, steps, seed, splits, contexts, episodes, seeds, jobs, progress
    )
    made.save(target)
    console = Console()
    console.print(f"Wrote {target}: {len(made.contexts)} contexts", highlight=False)
    for context in left_out:
        console.print(f"No reference in {loaded.context_space.as_dict(context)}: the best is no better than random")


def compare(runs: Positional[tuple[Path, ...]], out: Path | None = None, reference: Path | None = None) -> None:
    """Print the evaluations of several runs side by side, seeds of one agent taken together.

    Args:
        runs: Run folders, evaluated alike with `hyperrl evaluate`.
        out: New folder for a report in Markdown with pictures. Default: print only.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
    """
    from hyperrl.comparison import Comparison
    from hyperrl.report import write_report
    from hyperrl.runs import Run

    comparison = Comparison([Run.open(run) for run in runs], reference)
    if out is not None:
        write_report(comparison, out)
    _print_comparison(comparison)
    if out is not None:
        Console().print(f"Wrote {out / 'report.md'} and its pictures", highlight=False)


def adapt(
    runs: Positional[tuple[Path, ...]],
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
    progress: bool = True,
) -> None:
    """Let trained agents adapt to environments that they have not seen, and measure how fast they do.

    Args:
        runs: Run folders of one family that `hyperrl train` wrote.
        context: The new environment, such as `length=0.7 mass=1.2`; features not named at their default.
            Default: several of a split.
        contexts: Number of contexts of the split; they are among the 20 that `hyperrl evaluate` plays.
        split: Where the contexts come from: train, interpolation or extrapolation.
        unknown: The agents are not told the context: only search, identify and scratch.
        method: Any of zero-shot, search, identify, finetune, scratch. Default: all that go.
        episodes: Number of episodes to adapt in.
        seeds: How often each agent adapts to each context.
        evaluations: Number of episodes of a measurement, after 0, 1, 2, 5, 10 and 20 episodes.
        hyperparameters: Of the algorithm, to change for finetune and scratch, such as `learning_rate=1e-4`.
            Default: as in training.
        proximal: How strongly finetune pulls weights back to the generated ones.
        learn_dynamics: Let identify use a learnt model of the dynamics, though the family has physics; one that has
            none needs no telling.
        reference: File of `hyperrl reference`. Default: that beside the family's file, if there is one.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: New folder for the numbers and the picture. Default: RUN/adaptation in the first run folder.
        progress: Show a progress bar.
    """
    import torch

    from hyperrl.adaptation import METHODS, NEED_CONTEXT
    from hyperrl.adaptation.dynamics import learn_dynamics as dynamics_of
    from hyperrl.adaptation.study import study
    from hyperrl.reference import find_reference
    from hyperrl.runs import Run, group_runs

    torch.set_num_threads(1)  # the fastest for networks as small as these
    grouped = group_runs([Run.open(run) for run in runs])
    family = next(iter(grouped.values()))[0].family
    target = runs[0] / "adaptation" if out is None else out
    refuse_existing(target)
    can = [name for name in METHODS if not (unknown and name in NEED_CONTEXT)]
    for name in method:
        if unknown and name in NEED_CONTEXT:
            raise ValueError(f"method {name!r} needs the context: leave out --unknown, or choose from {can}")
    space = family.context_space
    if context is None:
        points = space.sample(split, max(contexts, 20), 0)[:contexts]
    else:
        points = space.vector(_assignments(context, "length=0.7"))[None]
    found = find_reference(family, reference)
    models = {agent: [run.model(device) for run in group] for agent, group in grouped.items()}
    dynamics = None
    if "identify" in (method or can) and (learn_dynamics or family.spec.definition.physics is None):
        dynamics = dynamics_of(family, next(iter(models.values()))[0], device=device, progress=progress)
    result = study(
        models,
        family,
        points,
        method or can,
        episodes,
        seeds,
        evaluations,
        _whole(_assignments(hyperparameters, "learning_rate=1e-4")),
        proximal,
        dynamics,
        found,
        progress,
    )
    result.provenance["runs"] = {
        agent: [{"path": str(run.path), **run.record} for run in group] for agent, group in grouped.items()
    }
    result.save(target)
    _print_study(result)
    Console().print(f"Wrote {', '.join(str(path) for path in sorted(target.iterdir()))}", highlight=False)


def record(
    run: Positional[Path],
    out: Path,
    split: str = "interpolation",
    contexts: int = 4,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Film a trained agent in several contexts side by side, as an animated GIF.

    Args:
        run: Run folder that `hyperrl train` wrote.
        out: File to write, ending in .gif; must not exist.
        split: Where the contexts come from: train, interpolation or extrapolation.
        contexts: Number of contexts, one panel each.
        seed: Seed of contexts and initial states.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
    """
    from hyperrl.recording import record
    from hyperrl.runs import Run

    opened = Run.open(run)
    record(opened.model(device), opened.family, opened.family.context_space.sample(split, contexts, seed), out, seed)
    Console().print(f"Wrote {out}", highlight=False)


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
    from hyperrl.export import save
    from hyperrl.runs import Run

    opened = Run.open(run)
    out = opened.path / f"policy.{format}" if out is None else out
    save(opened.model("cpu"), out, None if context is None else _assignments(context, "length=0.7"), format)
    Console().print(f"Wrote {out}", highlight=False)


def list_() -> None:
    """List families with their features, and agents."""
    from hyperrl.catalog import agent_spec, names
    from hyperrl.contexts import show_range
    from hyperrl.families import load_family

    console = Console()
    for name in names("envs"):
        table = Table(
            "feature", "default", "training range", "bounds", "unit", title=f"family {name}", title_justify="left"
        )
        for feature in load_family(name).context_space.features:
            train, bounds = show_range(feature.train), show_range(feature.bounds)
            table.add_row(feature.name, f"{feature.default:g}", train, bounds, feature.unit)
        console.print(table)
    table = Table("agent", "algorithm", "policy", title="agents", title_justify="left")
    for name in names("agents"):
        definition = agent_spec(name).definition
        table.add_row(name, definition.algorithm, definition.policy)
    console.print(table)


def _assignments(assignments: tuple[str, ...], example: str) -> dict[str, float]:
    """Read numbers by name as users write them: ``("length=0.7", "mass=1.2")``."""
    numbers = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ValueError(f"expected a name and its value, such as {example}, got {assignment!r}") from None
    return numbers


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
    costs = Table("agent, method", "earned per episode while adapting", title="The cost of adapting")
    targets = result.targets
    if targets is not None:
        costs.add_column("regret per episode")
        costs.add_column("episodes to 90 %")
        costs.add_column("steps to 90 %")
    for line in result.lines:
        cells = [f"{line.earned.mean():.1f}"]
        if targets is not None and result.best is not None:
            cells.append(f"{(result.best[:, None] - line.earned).mean():.1f}")
            cells += [_count(estimate) for estimate in line.reached(targets)]
        costs.add_row(line.label, *cells)
    console = Console()
    console.print(table, costs, sep="\n")
    console.print("Intervals: 95 %, over trainings; of a single one, over its adaptations.")
    if targets is None:
        console.print("No reference in these contexts, so nothing is known of specialists: see `hyperrl reference`.")
    else:
        console.print("A score of 0 is random, 1 a specialist's. 90 %: of the way there; the median over all.")


def _count(estimate: Estimate) -> str:
    value, low, high = (f"{count:.0f}" if np.isfinite(count) else "never" for count in estimate)
    return escape(f"{value} [{low}, {high}]")  # rich would take [never, never] for markup


def _print_report(report: Report, reference: Reference | None, title: str) -> None:
    from hyperrl.reference import known_scores

    returns = Table("split", "mean", "IQM of returns", "IQM of scores", title=f"{title}: {report.family}")
    critic = Table("split", "explained variance", "bias")
    notes = []
    for name, split in report.splits.items():
        scores = known_scores(reference, split.contexts, split.returns[None])
        missing = len(split.contexts) - scores.shape[1]
        if missing:
            notes.append(f"{name}: raw returns, {missing} of {len(split.contexts)} contexts have no reference.")
        returns.add_row(name, f"{split.mean:.1f}", str(split.iqm), str(bootstrap_iqm(scores)) if scores.size else "-")
        if split.values is not None:
            known = split.values.explained_variance[np.isfinite(split.values.explained_variance)]
            explained = f"{np.median(known):.2f}" if len(known) else "-"
            critic.add_row(name, explained, f"{np.median(split.values.bias):+.2f}")
    console = Console()
    console.print(returns, *notes, sep="\n")
    if critic.rows:
        console.print("The critic's values against the discounted returns seen, medians over contexts:", critic)
    for kind, told in report.misreports.items():
        table = Table(kind, "IQM [95 % interval]")
        for level, returns in zip(told.values, told.returns, strict=True):
            table.add_row(f"{level:g}", str(bootstrap_iqm(returns[None])))
        console.print(f"Told a wrong context, on interpolation: {kind}", table)
    console.print("Interval over episodes of this one training; compare several seeds with `hyperrl compare`.")


def _print_comparison(comparison: Comparison) -> None:
    rows = comparison.rows
    title = f"{comparison.family.name}, {comparison.steps:,} steps"
    returns = Table("agent", "seeds", "split", "mean", "IQM [95 % interval]", title=f"{title}: return")
    scores = Table("agent", "split", "IQM [95 % interval]", "optimality gap", title=f"{title}: score")
    previous = None
    for row in rows:
        if previous not in (None, row.agent):
            returns.add_section()
            scores.add_section()
        agent, seeds = ("", "") if previous == row.agent else (row.agent, str(row.seeds))
        returns.add_row(agent, seeds, row.split, f"{row.mean:.1f}", str(row.iqm))
        scores.add_row(agent, row.split, str(row.score or "-"), str(row.gap or "-"))
        previous = row.agent
    console = Console()
    for table in (returns, scores) if any(row.scored for row in rows) else (returns,):
        for column in table.columns[1:]:  # an agent's name may wrap, numbers may not
            column.no_wrap = True
        console.print(table)
    one = any(row.seeds == 1 for row in rows)
    parameters = {row.agent: row.parameters for row in rows}
    console.print("Parameters: " + ", ".join(f"{agent} {n:,}" for agent, n in parameters.items()), highlight=False)
    console.print(f"IQM: interquartile mean over contexts. Interval: bootstrap over {'episodes' if one else 'seeds'}.")


def main() -> None:
    """Run the command line; errors of the user's are one line and exit status 2."""
    commands = {
        "train": train,
        "tune": tune,
        "evaluate": evaluate,
        "reference": reference,
        "compare": compare,
        "adapt": adapt,
        "record": record,
        "export": export,
        "list": list_,
    }
    if sys.argv[1:] == ["--version"]:
        Console().print(hyperrl.__version__, highlight=False)
        return
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="hyperrl", description=__doc__)
    except ValueError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)
