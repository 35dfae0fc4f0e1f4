"""``hyperrl evaluate``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from tyro.conf import Positional

from hyperrl.cli.agents import load_agent, open_agent
from hyperrl.cli.console import console
from hyperrl.training.record import HIDDEN_EVALUATION
from hyperrl.utils.files import refuse_existing

if TYPE_CHECKING:
    from hyperrl.evaluation.reference import Reference
    from hyperrl.evaluation.report import Report


def evaluate(
    agent: Positional[Path],
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    hidden: bool = False,
    splits: tuple[str, ...] = ("train", "interpolation", "extrapolation"),
    contexts: int = 20,
    episodes: int = 10,
    seed: int = 0,
    deterministic: bool = True,
    plane: int = 13,
    sensitivity: int = 13,
    noise: tuple[float, ...] = (),
    offset: tuple[float, ...] = (),
    other: tuple[float, ...] = (),
    switch: int = 0,
    reference: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
    trust: bool = False,
    progress: bool = True,
) -> None:
    """Measure the returns of a trained agent on contexts of each split, and what they depend on.

    Args:
        agent: Run folder, shared agent (see `hyperrl list`, or a folder, or hf:user/repo), or a model's zip that
            Stable-Baselines3 saved, with --family.
            Loading a zip unpickles, which can run any code: give zips that you trust.
        family: For a zip: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For a zip: what trained it, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For a zip: file that VecNormalize.save wrote, where it was trained with normalised observations.
        hidden: Hide the context: the agent infers it while it acts, once `hyperrl infer` has learnt how.
        splits: Any of train, interpolation (inside the training range, not trained on), extrapolation (outside it), and
            the same of the Actuator Inversion Benchmark: mesh-train, mesh-interpolation, mesh-extrapolation.
        contexts: Number of contexts per split.
        episodes: Number of episodes per context.
        seed: Seed of contexts and initial states.
        deterministic: Take the most likely action rather than a sample.
        plane: Grid points per feature of the context plane; 0 for no grid.
        sensitivity: Values of each feature to try with the others at their default; 0 for none.
        noise: Also tell the agent noisy contexts: standard deviations, in half training ranges.
        offset: Also tell the agent contexts that are all off by this much, in half training ranges.
        other: Also tell the agent another context than the true one, with these probabilities.
        switch: Also play episodes whose context changes after so many steps, each time; 0 for none.
        reference: File of `hyperrl reference` for scores. Default: that beside the family's file, if there is one.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        out: File to write the numbers to; must not exist. Default: RUN/evaluation.json, or AGENT.evaluation.json;
            with --hidden, evaluation-hidden.json.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
        progress: Show a progress bar.
    """
    from hyperrl.evaluation.protocol import evaluate
    from hyperrl.evaluation.reference import find_reference
    from hyperrl.evaluation.report import HIDDEN

    opened = open_agent(agent, family, algorithm, normalizer, trust)
    target = opened.beside(HIDDEN_EVALUATION if hidden else "evaluation.json") if out is None else out
    refuse_existing(target, "give another file with --out")
    found = find_reference(opened.family, reference)
    perturbations = {k: v for k, v in (("noise", noise), ("offset", offset), ("other", other)) if v}
    if hidden and perturbations:
        raise ValueError(
            f"with --hidden the agent is told no context, so none that is wrong: leave out {[*perturbations]}"
        )
    model = load_agent(opened, device, hidden)
    report = evaluate(
        model,
        opened.family,
        splits,
        contexts,
        episodes,
        seed,
        deterministic,
        plane,
        sensitivity,
        perturbations,
        progress,
        switch,
    )
    if opened.training is None:
        report = replace(report, seed=getattr(model, "seed", None))
    else:
        report = report.of(opened.training)
    # The report alone does not know that the agent was told nothing: older estimators do not say how they were learnt.
    report = replace(report, agent=opened.name + HIDDEN * hidden)
    report.save(target)
    _print_report(report, found, str(agent))


def _print_report(report: Report, reference: Reference | None, title: str) -> None:
    from hyperrl.evaluation.novelty import by_novelty
    from hyperrl.evaluation.reference import known_scores
    from hyperrl.evaluation.statistics import Estimate, estimate_iqm, estimate_mean

    returns = Table("split", "mean", "IQM of returns", "IQM of scores", title=f"{title}: {report.family}")
    critic = Table("split", "explained variance", "bias")
    notes = []
    for name, split in report.splits.items():
        scores = known_scores(reference, split.contexts, split.returns[None])
        missing = len(split.contexts) - scores.shape[1]
        if missing:
            notes.append(f"{name}: raw returns, {missing} of {len(split.contexts)} contexts have no reference.")
        returns.add_row(name, f"{split.mean:.1f}", str(split.iqm), str(estimate_iqm(scores)) if scores.size else "-")
        if split.values is not None:
            known = split.values.explained_variance[np.isfinite(split.values.explained_variance)]
            explained = f"{np.median(known):.2f}" if len(known) else "-"
            critic.add_row(name, explained, f"{np.median(split.values.bias):+.2f}")
    terminal = console()
    terminal.print(returns, *notes, sep="\n")
    novelty = by_novelty(report, reference)
    if len(novelty.classes) > 1:
        what = "scores" if novelty.is_scored else "returns"
        table = Table("distance", "contexts", f"IQM of {what}")
        for of in novelty.classes:
            table.add_row(str(of), str(of.contexts), str(of.iqm))
        terminal.print("By distance of the farthest feature from the training range, in widths of that range:", table)
        is_constant = math.isnan(novelty.correlation)
        correlation = f"none, all {what} are alike" if is_constant else f"{novelty.correlation:+.2f}"
        terminal.print(f"Rank correlation of distance and {what}: {correlation}")
    if critic.rows:
        terminal.print("The critic's values against the discounted returns seen, medians over contexts:", critic)
    for kind, reported in report.perturbations.items():
        table = Table(kind, "IQM [95 % interval]")
        for level, returns in zip(reported.values, reported.returns, strict=True):
            table.add_row(f"{level:g}", str(estimate_iqm(returns[None])))
        terminal.print(f"Told a wrong context, on interpolation: {kind}", table)
    if report.after_switch and report.settings is not None:
        table = Table("split", "first context", "later contexts")
        for name, rewards in report.after_switch.items():
            means = [estimate_mean(r.mean(axis=1)[None, None])[:, 0] for r in (rewards.first, rewards.later)]
            table.add_row(name, *(str(Estimate(*mean.tolist())) for mean in means))
        terminal.print(f"Mean reward of a step, with another context every {report.settings.switch} steps:", table)
    terminal.print("Interval over episodes of this one training; compare several seeds with `hyperrl compare`.")
