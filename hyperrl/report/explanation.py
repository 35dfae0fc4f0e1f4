"""An explanation as a folder of Markdown, pictures and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hyperrl.analysis.actions import ALIKE
from hyperrl.analysis.explanation import Explanation
from hyperrl.contexts import ContextSpace
from hyperrl.report import explanation_plots as pictures
from hyperrl.report import plots
from hyperrl.report.markdown import markdown_table
from hyperrl.utils.files import new_folder, write_text

READING: Final = f"""\
## How to read this

- **Visited states**: those of one episode in each context of the training range, with the most likely actions.
- **Difference of actions**: mean over the entries of an action, in units of its range; of two different choices, 1.
- **Reversed**: share of the states in which an entry of the action lies on both sides of the middle of its range, by
  more than a twentieth of it, for two values of the training range.
- **Weights**: the norm of the Jacobian of a layer's generated numbers for half a training range, in % of their norm; of
  a feature with choices, half the difference between the ends.
- **Effective rank**: the number of directions in which weights vary with the context.
- **Groups**: contexts whose policies differ by less than {100 * ALIKE:.0f} % of the actions' range, by average linkage.
- **Abrupt**: between two neighbouring values of 25, a change of at least 10 % of the range, and four times the median.
"""


def write_explanation(explanation: Explanation, space: ContextSpace, title: str, out: str | Path) -> None:
    """Write ``report.md``, its pictures and ``explanation.json`` to a new folder; whole or not at all.

    :param space: the features.
    :param title: what the agent is called.
    :raises ValueError: where the folder exists.
    """
    figures = {
        "actions": ("How far each feature moves the actions", pictures.plot_actions(explanation)),
        "responses": ("The actions along each feature", pictures.plot_responses(explanation, space)),
        "policies": ("Which contexts share a policy", pictures.plot_policies(explanation, space)),
    }
    if explanation.told:
        figures["told"] = "One feature told wrongly", pictures.plot_told(explanation, space)
    weights = explanation.weights
    if weights is not None:
        sensitivity = pictures.plot_sensitivity_of_weights(weights, explanation.features)
        figures["weights"] = "How far each feature moves the weights", sensitivity
        figures["map"] = "The weights over contexts", pictures.plot_map(weights, space)
        if weights.directions:
            figures["directions"] = (
                "What each direction does",
                pictures.plot_directions(weights, explanation.features),
            )
    with new_folder(out) as folder:
        explanation.save(folder / "explanation.json")
        for file, (_, figure) in figures.items():
            plots.save(figure, folder / f"{file}.png")
        lines = [f"# {title} on {explanation.family}", *_introduction(explanation)]
        for file, (heading, _) in figures.items():
            lines += [f"## {heading}", *_tables(explanation, file), f"![{heading}]({file}.png)"]
        write_text(folder / "report.md", "\n\n".join([*lines, READING.rstrip()]) + "\n")


def action_rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """Return for each feature what it does to the actions, as text: mean, largest, reversed, abrupt changes."""
    return [
        (
            name,
            f"{100 * effect.mean:.1f} %",
            f"{100 * effect.largest:.1f} %",
            f"{100 * effect.reversed:.0f} %",
            "; ".join(f"{jump.low:.3g} → {jump.high:.3g}: {100 * jump.change:.0f} %" for jump in effect.jumps) or "-",
        )
        for name, effect in explanation.actions.items()
    ]


ACTIONS: Final = ("feature", "moves actions", "at most", "reversed", "abrupt between")


def weight_rows(explanation: Explanation) -> list[tuple[str, ...]]:
    """Return for each layer how far half a training range of each feature moves it, and its effective rank."""
    return [
        (
            f"{layer.network}, layer {layer.layer}",
            *(f"{100 * moved:.0f} %" for moved in layer.sensitivity),
            f"{layer.rank:.1f}",
        )
        for layer in (() if explanation.weights is None else explanation.weights.layers)
    ]


def _introduction(explanation: Explanation) -> list[str]:
    model = explanation.model
    size = "" if model.parameters is None else f", {model.parameters:,} parameters"
    what = model.algorithm if model.policy is None else f"{model.algorithm} with {model.policy}"
    lines = [f"{what}{size}. {len(explanation.contexts)} contexts of the training range, {explanation.states} states."]
    if explanation.without_weights is not None:
        lines.append(f"Nothing about weights: {explanation.without_weights}.")
    return lines


def _tables(explanation: Explanation, file: str) -> list[str]:
    weights = explanation.weights
    if file == "actions":
        return [markdown_table(ACTIONS, action_rows(explanation))]
    if file == "policies":
        rows = [
            (
                str(len(group.contexts)),
                *(f"{low:.3g} to {high:.3g}" for low, high in zip(group.low, group.high, strict=True)),
            )
            for group in explanation.groups
        ]
        return [markdown_table(("contexts", *explanation.features), rows)]
    if file == "weights" and weights is not None:
        text = (
            f"Head `{weights.head}`. Over the contexts, all weights of the network that acts vary in "
            f"{weights.rank:.1f} directions (effective rank), the embedding in {weights.embedding_rank:.1f}."
        )
        return [markdown_table(("layer", *explanation.features, "rank"), weight_rows(explanation)), text]
    if file == "directions" and weights is not None:
        shown = min(pictures.DIRECTIONS, len(weights.directions))
        return [f"`W = W₀ + Σ g·u·vᵀ`, g from the context. {shown} of {len(weights.directions)} directions."]
    return []
