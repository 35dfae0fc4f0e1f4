"""Report: a comparison as a folder of Markdown, pictures and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hyperrl.evaluation.statistics import Estimate, bootstrap_iqm, bootstrap_profile
from hyperrl.experiments.comparison import Comparison
from hyperrl.report import plots
from hyperrl.utils.files import refuse_existing, write_text

READING = """\
## How to read this

- **Interval**: 95 %, percentile bootstrap. Of an agent with several seeds, whole seeds are resampled, since the
  contexts of one seed are played by one network; of one with a single seed, episodes within each context, which says
  nothing about another seed. Bands in pictures are such intervals, at each point by itself.
- **IQM**: interquartile mean over seeds and contexts: the mean without the lowest and the highest quarter.
- **Score**: return on a scale per context where uniformly random actions are 0 and a specialist (or the known optimum)
  is 1. Contexts without a reference have no score; none is interpolated.
- **Optimality gap**: by how much scores fall short of 1 on average; lower is better.
- **Probability of improvement**: of the first agent's seed over the second's in a context drawn at random, ties half.
"""


def write_report(comparison: Comparison, out: str | Path) -> None:
    """Write ``report.md``, its pictures and ``comparison.json`` to a new folder.

    :raises ValueError: where the folder exists.
    """
    out = Path(out)
    refuse_existing(out)
    out.mkdir(parents=True)
    rows = [asdict(row) | {k: v and v._asdict() for k, v in _estimates(row).items()} for row in comparison.rows]
    improvements = [
        {"first": first, "second": second, "split": split, **estimate._asdict()}
        for (first, second, split), estimate in comparison.improvements.items()
    ]
    data = {"family": comparison.family.name, "steps": comparison.steps, "settings": comparison.settings}
    text = json.dumps(data | {"rows": rows, "improvements": improvements}, indent=1)
    write_text(out / "comparison.json", text)
    pictures = _draw(comparison, out)
    write_text(out / "report.md", _markdown(comparison, pictures))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _draw(comparison: Comparison, out: Path) -> list[tuple[str, str]]:
    """Write the pictures and return title and file name of each."""
    what = "score" if comparison.is_scored else "return"
    values = {
        split: {agent: comparison.values(agent, split) for agent in comparison.runs} for split in comparison.splits
    }
    every = np.concatenate([v.mean(axis=2).ravel() for agents in values.values() for v in agents.values()])
    thresholds = np.linspace(every.min(), every.max(), 101)
    space, name = comparison.family.context_space, comparison.family.name
    iqms = {agent: {s: bootstrap_iqm(values[s][agent]) for s in values} for agent in comparison.runs}
    profiles = {
        split: {agent: bootstrap_profile(v, thresholds) for agent, v in agents.items()}
        for split, agents in values.items()
    }
    figures = {"splits": ("Contexts of each split", plots.plot_splits(iqms, f"IQM of {what}s"))}
    if curves := comparison.curves:
        figures["curves"] = "Learning curves", plots.plot_curves(curves)
    figures["profiles"] = "Performance profiles", plots.plot_profiles(thresholds, profiles, what)
    if planes := comparison.planes:
        figures["planes"] = "Return over the context plane", plots.plot_planes(planes, space, name)
    if sensitivity := comparison.sensitivity:
        title = "Sensitivity to each feature, the others at their default (training range shaded)"
        figures["sensitivity"] = title, plots.plot_sensitivity(sensitivity, space)
    if perturbed := comparison.perturbed:
        figures["perturbations"] = (
            "Given a wrong context, in the contexts of interpolation",
            plots.plot_perturbations(perturbed),
        )
    if by_irrelevant := comparison.by_irrelevant:
        title = "Features on which nothing depends, in training and evaluation"
        figures["irrelevant"] = title, plots.plot_irrelevant(by_irrelevant, f"IQM of {what}s")
    for file, (_, figure) in figures.items():
        plots.save(figure, out / f"{file}.png")
    return [(title, f"{file}.png") for file, (title, _) in figures.items()]


def _markdown(comparison: Comparison, pictures: Iterable[tuple[str, str]]) -> str:
    settings = comparison.settings
    played = f"{settings['contexts']} contexts a split, {settings['episodes']} episodes a context"
    actions = "most likely actions" if settings["deterministic"] else "sampled actions"
    scored = {row.split: row.scored for row in comparison.rows}
    lines = [
        f"# {comparison.family.name}: agents after {comparison.steps:,} steps",
        f"{played}, {actions}, evaluation seed {settings['seed']}. Intervals are 95 %; see the end.",
        "## Returns",
        markdown_table(
            (
                "agent",
                "parameters",
                "seeds",
                "split",
                "mean return",
                "IQM of returns",
                "IQM of scores",
                "optimality gap",
            ),
            [
                (
                    f"`{row.agent}`",
                    f"{row.parameters:,}",
                    str(row.seeds),
                    row.split,
                    f"{row.mean:.1f}",
                    str(row.iqm),
                    str(row.score or "-"),
                    str(row.gap or "-"),
                )
                for row in comparison.rows
            ],
        ),
        "\n".join(
            f"- {split}: {n} of {settings['contexts']} contexts have a reference{'' if n else ', so returns are raw'}."
            for split, n in scored.items()
        ),
    ]
    if comparison.improvements:
        lines += [
            "## Probability of improvement",
            markdown_table(
                ("first", "second", "split", "probability that the first is better"),
                [
                    (f"`{first}`", f"`{second}`", split, str(estimate))
                    for (first, second, split), estimate in comparison.improvements.items()
                ],
            ),
        ]
    for title, file in pictures:
        lines += [f"## {title}", f"![{title}]({file})"]
    lines += [
        READING.rstrip(),
        "## Runs",
        markdown_table(
            ("run", "agent", "seed", "parameters' SHA-256", "hyperrl", "torch"),
            [
                (
                    f"`{run.path}`",
                    f"`{agent}`",
                    str(run.record["seed"]),
                    report.provenance["model"]["sha256"][:12],
                    report.provenance["versions"]["hyperrl"],
                    report.provenance["versions"]["torch"],
                )
                for agent, runs in comparison.runs.items()
                for run, report in zip(runs, comparison.reports[agent], strict=True)
            ],
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _estimates(row: object) -> dict[str, Estimate | None]:
    return {key: value for key, value in vars(row).items() if key in ("iqm", "score", "gap")}
