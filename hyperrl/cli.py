"""The command line: ``hyperrl train | tune | evaluate | compare | record | export | list``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from hyperrl.comparison import Comparison

Positional = tyro.conf.Positional


def train(
    family: Positional[str],
    agent: Positional[str],
    out: Path | None = None,
    steps: int = 500_000,
    seed: int = 0,
    contexts: int | None = None,
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
        resume: Continue an interrupted training of the same folder; begin where there is none.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        threads: Threads that torch uses on the CPU; one is the fastest for networks as small as these.
        progress: Show a progress bar.
    """
    import torch

    from hyperrl.training import train

    torch.set_num_threads(threads)
    if out is None:
        out = Path("runs") / f"{Path(family).stem}-{Path(agent).stem}-{seed}"
    train(family, agent, steps, seed, out, contexts=contexts, resume=resume, device=device, progress=progress)
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
    device: str = "auto",
    out: Path | None = None,
    progress: bool = True,
) -> None:
    """Measure the returns of a trained agent on contexts of each split, and over the context plane.

    Args:
        run: Run folder that `hyperrl train` wrote.
        splits: Any of train, interpolation (inside the training range, not trained on), extrapolation (outside it).
        contexts: Number of contexts per split.
        episodes: Number of episodes per context.
        seed: Seed of contexts and initial states.
        deterministic: Take the most likely action rather than a sample.
        plane: Grid points per feature of the context plane; 0 for no grid.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: File to write the numbers to; must not exist. Default: RUN/evaluation.json.
        progress: Show a progress bar.
    """
    from hyperrl.evaluation import evaluate
    from hyperrl.runs import Run

    opened = Run.open(run)
    target = opened.evaluation_path if out is None else out
    if target.exists():
        raise ValueError(f"{target} exists already and is never overwritten: give another file with --out")
    model = opened.model(device)
    report = evaluate(model, opened.family, splits, contexts, episodes, seed, deterministic, plane, progress)
    report.save(target)
    table = Table("split", "mean return", "IQM [95 % interval]", title=f"{run}: {opened.family.name}")
    for name, split in report.splits.items():
        table.add_row(name, f"{split.mean:.1f}", "{:.1f} [{:.1f}, {:.1f}]".format(*split.iqm))
    console = Console()
    console.print(table)
    console.print("Interval over episodes of this one training; compare several seeds with `hyperrl compare`.")


def compare(runs: Positional[tuple[Path, ...]], out: Path | None = None) -> None:
    """Print the evaluations of several runs side by side, seeds of one agent taken together.

    Args:
        runs: Run folders, evaluated alike with `hyperrl evaluate`.
        out: New folder for the table and the picture of returns over the context plane. Default: print only.
    """
    from hyperrl.comparison import Comparison
    from hyperrl.runs import Run

    comparison = Comparison([Run.open(run) for run in runs])
    if out is not None:
        comparison.save(out)
    _print_comparison(comparison)
    if out is not None:
        Console().print(f"Wrote {', '.join(str(path) for path in sorted(out.iterdir()))}", highlight=False)


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
    save(opened.model("cpu"), out, None if context is None else _context(context), format)
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


def _context(assignments: tuple[str, ...]) -> dict[str, float]:
    """Read a context as users write it: ``("length=0.7", "mass=1.2")``."""
    context = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        try:
            context[name] = float(value)
        except ValueError:
            raise ValueError(f"expected a feature and its value, such as length=0.7, got {assignment!r}") from None
    return context


def _print_comparison(comparison: Comparison) -> None:
    title = f"{comparison.family.name}, {comparison.steps:,} steps"
    table = Table("agent", "seeds", "split", "mean", "IQM [95 % interval]", title=f"{title}: return")
    for column in table.columns:
        column.no_wrap = True
    previous = None
    for row in comparison.rows:
        if previous not in (None, row.agent):
            table.add_section()
        head = ("", "") if previous == row.agent else (row.agent, str(row.seeds))
        table.add_row(*head, row.split, f"{row.mean:.1f}", "{:.1f} [{:.1f}, {:.1f}]".format(*row.iqm))
        previous = row.agent
    console = Console()
    console.print(table)
    one = any(row.seeds == 1 for row in comparison.rows)
    parameters = {row.agent: row.parameters for row in comparison.rows}
    console.print("Parameters: " + ", ".join(f"{agent} {n:,}" for agent, n in parameters.items()), highlight=False)
    console.print(f"IQM: interquartile mean over contexts. Interval: bootstrap over {'episodes' if one else 'seeds'}.")


def main() -> None:
    """Run the command line; errors of the user's are one line and exit status 2."""
    commands = {
        "train": train,
        "tune": tune,
        "evaluate": evaluate,
        "compare": compare,
        "record": record,
        "export": export,
        "list": list_,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="hyperrl", description=__doc__)
    except ValueError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)
