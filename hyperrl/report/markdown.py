"""Report: a comparison as a folder of Markdown, pictures and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hyperrl.evaluation.report import Settings
from hyperrl.evaluation.statistics import estimate_iqm, estimate_profile
from hyperrl.experiments.comparison import Comparison, PooledComparison
from hyperrl.report import plots
from hyperrl.utils.files import new_folder, write_text
from hyperrl.utils.records import write

READING = """\
## How to read this

- **Interval**: 95 %. With several seeds, the unit is the seed, since one network plays all contexts of a seed: a t
  interval with the bootstrap's standard error, corrected for skewness; for the probability of improvement, an interval
  of Wilson's form. With a single seed, the units are the episodes in each context, and the interval says nothing about
  another seed. Bands in pictures are such intervals, at each point by itself.
- **IQM**: interquartile mean over seeds and contexts: the mean without the lowest and the highest quarter.
- **Score**: return on a scale per context where uniformly random actions are 0 and a specialist (or the known optimum)
  is 1. Contexts without a reference have no score; none is interpolated.
- **Optimality gap**: by how much scores fall short of 1 on average; lower is better.
- **Probability of improvement**: of the first agent's seed over the second's in a context drawn at random, ties half.
- **Several families**: each weighs as much as another in every figure; seeds are resampled family by family.
"""


def write_report(comparison: Comparison | PooledComparison, out: str | Path) -> None:
    """Write ``report.md``, its pictures and ``comparison.json`` to a new folder; whole or not at all.

    Of several families, there is a folder for each inside.

    :raises ValueError: where the folder exists.
    """
    with new_folder(out) as folder:
        _write(comparison, folder)


def _write(comparison: Comparison | PooledComparison, out: Path) -> None:
    write(comparison.record, out / "comparison.json")
    if isinstance(comparison, Comparison):
        write_text(out / "report.md", _markdown(comparison, _draw(comparison, out)))
        return
    for of_family in comparison.comparisons:
        _write(of_family, out / of_family.family.name)
    write_text(out / "report.md", _pooled_markdown(comparison, _draw_pooled(comparison, out)))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _draw(comparison: Comparison, out: Path) -> list[tuple[str, str]]:
    """Write the pictures and return title and file name of each."""
    what = "score" if comparison.is_scored else "return"
    values = {
        split: {agent: comparison.values(agent, split) for agent in comparison.agents} for split in comparison.splits
    }
    every = np.concatenate([v.mean(axis=2).ravel() for agents in values.values() for v in agents.values()])
    thresholds = np.linspace(every.min(), every.max(), 101)
    space, name = comparison.family.context_space, comparison.family.name
    iqms = {agent: {s: estimate_iqm(values[s][agent]) for s in values} for agent in comparison.agents}
    profiles = {
        split: {agent: estimate_profile(v, thresholds) for agent, v in agents.items()}
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
    if after_switch := comparison.after_switch:
        title = "Reward a step since the context began, where it changes within the episode"
        figures["switches"] = title, plots.plot_after_switch(after_switch)
    if by_irrelevant := comparison.by_irrelevant:
        title = "Features on which nothing depends, in training and evaluation"
        figures["irrelevant"] = title, plots.plot_irrelevant(by_irrelevant, f"IQM of {what}s")
    for file, (_, figure) in figures.items():
        plots.save(figure, out / f"{file}.png")
    return [(title, f"{file}.png") for file, (title, _) in figures.items()]


def _markdown(comparison: Comparison, pictures: Iterable[tuple[str, str]]) -> str:
    settings = comparison.settings
    after = "" if comparison.steps is None else f": agents after {comparison.steps:,} steps"
    scored = {row.split: row.scored for row in comparison.rows}
    played = {split: comparison.returns(comparison.agents[0], split).shape[1] for split in scored}
    lines = [
        f"# {comparison.family.name}{after}",
        _settings(settings),
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
                    "-" if row.parameters is None else f"{row.parameters:,}",
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
            f"- {split}: {n} of {played[split]} contexts have a reference{'' if n else ', so returns are raw'}."
            for split, n in scored.items()
        ),
    ]
    lines += _improvements(comparison)
    for title, file in pictures:
        lines += [f"## {title}", f"![{title}]({file})"]
    lines += [
        READING.rstrip(),
        "## Runs",
        markdown_table(
            ("run", "agent", "seed", "parameters' SHA-256", "hyperrl", "torch"),
            [
                (
                    "-" if entry.run is None else f"`{entry.run.path}`",
                    f"`{agent}`",
                    str(entry.report.seed),
                    "-" if entry.report.model is None else (entry.report.model.sha256 or "-")[:12],
                    entry.report.versions.get("hyperrl", "-"),
                    entry.report.versions.get("torch", "-"),
                )
                for agent, group in comparison.entries.items()
                for entry in group
            ],
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _settings(settings: Settings | None) -> str:
    if settings is None:
        return "Intervals are 95 %; see the end."
    played = f"{settings.contexts} contexts a split, {settings.episodes} episodes a context"
    actions = "most likely actions" if settings.deterministic else "sampled actions"
    return f"{played}, {actions}, evaluation seed {settings.seed}. Intervals are 95 %; see the end."


def _improvements(comparison: Comparison | PooledComparison) -> list[str]:
    if not comparison.improvements:
        return []
    table = markdown_table(
        ("first", "second", "split", "probability that the first is better"),
        [(f"`{i.first}`", f"`{i.second}`", i.split, str(i.probability)) for i in comparison.improvements],
    )
    return ["## Probability of improvement", table]


def _draw_pooled(comparison: PooledComparison, out: Path) -> list[tuple[str, str]]:
    scores = [comparison.scores(agent, split) for agent in comparison.agents for split in comparison.splits]
    every = np.concatenate([family.mean(axis=2).ravel() for families in scores for family in families])
    thresholds = np.linspace(every.min(), every.max(), 101)
    iqms = {
        agent: {row.split: row.score for row in comparison.rows if row.agent == agent} for agent in comparison.agents
    }
    plots.save(plots.plot_splits(iqms, "IQM of scores"), out / "splits.png")
    plots.save(plots.plot_profiles(thresholds, comparison.profiles(thresholds), "score"), out / "profiles.png")
    return [("Contexts of each split", "splits.png"), ("Performance profiles", "profiles.png")]


def _pooled_markdown(comparison: PooledComparison, pictures: Iterable[tuple[str, str]]) -> str:
    lines = [
        f"# Agents over {len(comparison.families)} families",
        "Scores of all families together, each family counting as much as another. By family: "
        + ", ".join(f"[{name}]({name}/report.md)" for name in comparison.families)
        + ".",
        "## Scores",
        markdown_table(
            ("agent", "seeds by family", "split", "IQM of scores", "optimality gap"),
            [
                (f"`{row.agent}`", ", ".join(map(str, row.seeds)), row.split, str(row.score), str(row.gap))
                for row in comparison.rows
            ],
        ),
    ]
    if comparison.left_out:
        lines.append(f"Left out, since not on every family: {', '.join(f'`{name}`' for name in comparison.left_out)}.")
    lines += _improvements(comparison)
    for title, file in pictures:
        lines += [f"## {title}", f"![{title}]({file})"]
    return "\n\n".join([*lines, READING.rstrip()]) + "\n"
