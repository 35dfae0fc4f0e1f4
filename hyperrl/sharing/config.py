"""What ``config.json`` of a shared agent says, and which of the names in it would run code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hyperrl.alignment.wrapper import AlignedContext
from hyperrl.contexts import Feature
from hyperrl.device.algorithms import ON_DEVICE
from hyperrl.evaluation.reference import Reference, known_scores
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.statistics import Estimate, estimate_iqm
from hyperrl.export.deterministic import ACTIVATIONS
from hyperrl.policies.registry import REGISTRY
from hyperrl.training.arguments import CLASSES
from hyperrl.training.models import GIVEN, OF_ALIGNMENT, SPACES
from hyperrl.training.recipe import AgentDefinition
from hyperrl.training.record import Result, Training
from hyperrl.training.weights import SIZES
from hyperrl.utils.imports import load_object

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

KNOWN: Final = frozenset(
    (
        *(f"hyperrl.device:{algorithm.__name__}" for algorithm in ON_DEVICE.values()),
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
TABLES: Final = ("hyperparameters", "policy_kwargs", "alignment")
"""What of a recipe are keyword arguments of a constructor."""
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
    :param defaults: what the recipe leaves at its default, and the defaults when the agent was shared: they may change.
    """

    SCHEMA: ClassVar[str] = "agent-1"

    training: Training
    features: tuple[Feature, ...]
    result: Result
    versions: Mapping[str, str]
    definition: Mapping[str, Any] | None = None
    scores: Mapping[str, SplitScores] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe with its defaults; the sizes that ``match_parameters`` sets are in the file of the weights."""
        said = {key: value for key, value in self.training.recipe.items() if key != "match_parameters"}
        whole = {**self.defaults, **said}
        for table in TABLES:
            one, other = self.defaults.get(table), said.get(table)
            if isinstance(one, Mapping) and isinstance(other, Mapping):
                whole[table] = {**one, **other}
        return whole


def defaults_of(definition: AgentDefinition, model: BaseAlgorithm) -> dict[str, Any]:
    """Return what a recipe leaves at its default, as its file would say it.

    Left out are None, what no file can say, such as a class that a shared agent may not name, and the optimiser, which
    depends on the algorithm and the device.

    :param model: the model of the recipe.
    """
    policy = model.policy._get_constructor_parameters()
    hidden = (
        *SPACES,
        "use_sde",
        "optimizer_class",
        "optimizer_kwargs",
        *(SIZES if definition.match_parameters is not None else ()),
    )
    constructors = {
        "hyperparameters": (_defaults(type(model)), GIVEN),
        "policy_kwargs": ({name: policy.get(name) for name in _defaults(type(model.policy))}, hidden),
        "alignment": (_defaults(AlignedContext), OF_ALIGNMENT),
    }
    found: dict[str, Any] = {
        entry.name: entry.default
        for entry in fields(definition)
        if entry.default is not None and getattr(definition, entry.name) == entry.default
    }
    for table, (values, not_of_it) in constructors.items():
        said = getattr(definition, table)
        if said is not None:
            unsaid = {name: _plain(x) for name, x in values.items() if name not in said and name not in not_of_it}
            found[table] = {name: value for name, value in unsaid.items() if value is not None}
    return found


def _defaults(cls: type[Any]) -> dict[str, Any]:
    """Return the arguments of a constructor that have a default, and these."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _plain(value: Any) -> Any:
    """Return a value as a file says it, or None where none can."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return None if None in items else items
    if isinstance(value, Mapping):
        table = {str(key): _plain(item) for key, item in value.items()}
        return None if None in table.values() else table
    return next((name for name in sorted(KNOWN_CLASSES) if load_object(name) is value), None)


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
