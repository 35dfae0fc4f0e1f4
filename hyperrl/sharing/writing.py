"""A run becomes a folder to give away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hyperrl.alignment.acting import find_aligned
from hyperrl.evaluation.reference import find_reference
from hyperrl.evaluation.report import Report
from hyperrl.inference.agent import InferringAgent
from hyperrl.sharing.agent import SharedAgent, check_finite
from hyperrl.sharing.card import card_of
from hyperrl.sharing.config import (
    AgentConfig,
    SplitScores,
    code_in_definition,
    code_in_recipe,
    defaults_of,
    scores_of,
)
from hyperrl.sharing.places import CONFIG
from hyperrl.training.record import ENCODER, ESTIMATOR, FAMILY, WEIGHTS
from hyperrl.training.run import Run
from hyperrl.utils.definitions import read_toml
from hyperrl.utils.files import new_folder, refuse_existing, write_text
from hyperrl.utils.records import write

if TYPE_CHECKING:
    from hyperrl.evaluation.reference import Reference

CARD = "README.md"


def share(run: Run | str | Path, out: str | Path, reference: Reference | None = None) -> SharedAgent:
    """Write the agent of a run as a folder to give away, in the layout of the Hugging Face Hub.

    The folder holds numbers and text, and is loaded before it gets its name, see :func:`hyperrl.load_agent`. The scores
    are those of the run's evaluation, if there is one.

    :param run: the run, or its folder.
    :param out: the new folder.
    :param reference: for the scores; by default that of the family, if there is one.
    :raises ValueError: where the folder exists, the recipe names code, or a parameter is not finite.
    """
    from hyperrl.training.weights import save_weights

    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out)
    refuse_existing(out)
    if code := code_in_recipe(run.training.recipe):
        raise ValueError(
            f"{run.path} cannot be shared: its recipe names code, {code}, and a shared agent runs none of its own"
        )
    source = run.path / FAMILY
    definition = read_toml(source) if source.is_file() else None
    model = run.model("cpu")
    check_finite(model, run.path / WEIGHTS)
    scores = _scores(run, find_reference(run.family) if reference is None else reference)
    features = run.family.context_space.features
    defaults = defaults_of(run.agent.definition, model)
    config = AgentConfig(run.training, features, run.result, run.record.versions, definition, scores, defaults)
    aligned = find_aligned(model)
    with new_folder(out) as folder:
        save_weights(model, run.agent, folder / WEIGHTS, optimizers=False)
        if aligned is not None:
            aligned.save(folder / ENCODER)
        if (run.path / ESTIMATOR).is_file():
            InferringAgent.load(run.path / ESTIMATOR, model)  # a damaged one is named here
            shutil.copyfile(run.path / ESTIMATOR, folder / ESTIMATOR)
        write(config, folder / CONFIG)
        write_text(folder / CARD, card_of(config, out.name))
        needs_family = definition is None or code_in_definition(definition)
        SharedAgent(folder, str(out), run.family.with_irrelevant(0) if needs_family else None).model("cpu")
    return SharedAgent(out, str(out), run.given)


def _scores(run: Run, reference: Reference | None) -> dict[str, SplitScores]:
    if not run.evaluation_path.is_file():
        return {}
    return scores_of(Report.load_of(run.evaluation_path, run.result.model, run.path), reference)
