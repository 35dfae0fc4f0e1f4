"""What ``config.json`` of a shared agent says, and which of the names in it would run code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from hyperrl.contexts import Feature
from hyperrl.evaluation.reference import Reference, known_scores
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.statistics import Estimate, estimate_iqm
from hyperrl.export.deterministic import ACTIVATIONS
from hyperrl.policies.registry import REGISTRY
from hyperrl.training.arguments import CLASSES
from hyperrl.training.record import Result, Training

KNOWN: Final = frozenset(
    (
        "hyperrl.device:DevicePPO",
        *(f"{entry.package}:{name}" for name, entry in REGISTRY.items()),
        *(f"hyperrl.policies:{policy}" for entry in REGISTRY.values() for policy in entry.policies.values()),
    )
)
"""The algorithms and policies that the recipe of a shared agent may name by module and class."""
KNOWN_CLASSES: Final = frozenset(
    (
        *(f"torch.nn:{name}" for name in ACTIVATIONS),
        *(f"torch.optim:{name}" for name in ("Adam", "AdamW", "RMSprop", "SGD")),
    )
)
"""The classes that the arguments of a shared agent's algorithm and policy may name."""
KNOWN_WRAPPERS: Final = frozenset(
    f"gymnasium.wrappers:{name}"
    for name in ("ClipAction", "FlattenObservation", "RescaleAction", "TimeAwareObservation")
)
"""The wrappers that the family of a shared agent may name."""
_WORD: Final = re.compile(r"[\w.-]*")


@dataclass(frozen=True)
class SplitScores:
    """What an agent reaches on one split.

    :param contexts: how many contexts were played.
    :param episodes: episodes in each.
    :param mean: mean return.
    :param iqm: interquartile mean of the returns; its interval speaks of episodes, not of training seeds.
    :param score: interquartile mean of the scores, in the contexts that have a reference.
    :param scored: how many contexts have one.
    """

    contexts: int
    episodes: int
    mean: float
    iqm: Estimate
    score: Estimate | None
    scored: int


@dataclass(frozen=True)
class AgentConfig:
    """What ``config.json`` of a shared agent says.

    :param training: how it was trained: family, seed, steps, and the recipe with algorithm and policy arguments.
    :param features: of the context, in its order, with units, training ranges and bounds.
    :param result: how the training ended; it has the SHA-256 of the weights.
    :param versions: of the libraries that trained it.
    :param definition: what the family's file says; ``None`` for a family made in Python.
    :param scores: by split, what the agent reaches, where it has been evaluated.
    """

    SCHEMA: ClassVar[str] = "agent-1"

    training: Training
    features: tuple[Feature, ...]
    result: Result
    versions: Mapping[str, str]
    definition: Mapping[str, Any] | None = None
    scores: Mapping[str, SplitScores] = field(default_factory=dict)


def scores_of(report: Report, reference: Reference | None) -> dict[str, SplitScores]:
    """Summarise an evaluation by split.

    :param reference: of the family, for scores.
    """
    summary = {}
    for name, split in report.splits.items():
        scores = known_scores(reference, split.contexts, split.returns[None])
        scored = scores.shape[1]
        score = estimate_iqm(scores) if scored else None
        contexts, episodes = split.returns.shape
        summary[name] = SplitScores(contexts, episodes, split.mean, split.iqm, score, scored)
    return summary


def code_in_recipe(recipe: Mapping[str, Any]) -> list[str]:
    """Return what a recipe names that would be imported, and is no algorithm, policy or class of a fixed list.

    >>> code_in_recipe({"policy": "mine:Policy", "policy_kwargs": {"activation_fn": "torch.nn:ReLU"}})
    ['mine:Policy']
    """
    named = [str(recipe.get(key)) for key in ("algorithm", "policy")]
    foreign = [name for name in named if ":" in name and name not in KNOWN]
    tables = (recipe.get(key) for key in ("hyperparameters", "policy_kwargs"))
    return foreign + [name for table in tables for name in _classes(table) if name not in KNOWN_CLASSES]


def code_in_definition(definition: Mapping[str, Any]) -> list[str]:
    """Return what a family's definition names that would be imported, and is no wrapper of a fixed list.

    The arguments of its environment may be numbers and words, which name no file and no module.

    >>> code_in_definition({"base": "CartPole-v1", "wrappers": ["mine:Wrapper"]})
    ['mine:Wrapper']
    """
    named = [str(definition.get(key)) for key in ("base", "physics")]
    foreign = [name for name in named if ":" in name]
    wrappers = definition.get("wrappers")
    for entry in wrappers if isinstance(wrappers, list) else [] if wrappers is None else [wrappers]:
        name = str(entry.get("wrapper") if isinstance(entry, dict) else entry)
        if name not in KNOWN_WRAPPERS:
            foreign.append(name)
    return foreign + [text for text in _texts(definition.get("base_kwargs")) if not _WORD.fullmatch(text)]


def _classes(table: Any) -> Iterator[str]:
    """Yield the texts of a table that are read as names of classes; those of inner tables too."""
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, dict):
            yield from _classes(value)
        elif isinstance(value, str) and key.endswith(CLASSES):
            yield value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
