"""What a run is: the record of a training, and the digest of all that decided its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.families.family import Family
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.utils.provenance import ModelDescription
from hyperrl.utils.records import plain

RECORD: Final = "run.json"
FAMILY: Final = "family.toml"
AGENT: Final = "agent.toml"
WEIGHTS: Final = "model.safetensors"
MODEL: Final = "model.zip"
NORMALIZER: Final = "vecnormalize.pkl"
ENCODER: Final = "encoder.safetensors"
ESTIMATOR: Final = "estimator.safetensors"
"""What ``hyperrl infer`` writes."""
HIDDEN_EVALUATION: Final = "evaluation-hidden.json"
"""The evaluation of an agent that is not told the context, but infers it."""


@dataclass(frozen=True)
class Training:
    """A training: everything that decides its result but the versions of the code.

    :param family: name of the family.
    :param definition: digest of the family's definition, :attr:`Family.digest <hyperrl.Family.digest>`.
    :param irrelevant: how many features were appended that do nothing.
    :param agent: name of the recipe.
    :param recipe: what the recipe says; ``match_parameters`` is what that recipe says, not its name.
    :param contexts: how many fixed contexts there were, or which; ``None`` for a fresh one each episode.
    :param steps: environment steps asked for.
    :param seed: its seed.
    :param overrides: what was set in place of what the recipe's file says; ``recipe`` holds it already.
    """

    family: str
    definition: str
    irrelevant: int
    agent: str
    recipe: Mapping[str, Any]
    contexts: int | tuple[tuple[float, ...], ...] | None
    steps: int
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, family: Family, agent: AgentSpec, steps: int, seed: int, contexts: int | ArrayLike | None = None
    ) -> Training:
        """Describe a training; the arguments are those of :func:`hyperrl.train`."""
        if isinstance(contexts, int | np.integer):
            contexts = int(contexts)
        elif contexts is not None:
            contexts = tuple(tuple(row) for row in np.asarray(contexts, dtype=np.float64).tolist())
        recipe = plain(contents(agent))
        return cls(
            family.name, family.digest, family.irrelevant, agent.name, recipe, contexts, steps, seed, agent.overrides
        )

    @cached_property
    def agent_digest(self) -> str:
        """The SHA-256 of what the agent is, whatever the family: the recipe's contents, and what it is trained on.

        Names count for nothing.
        """
        return _sha256({"recipe": self.recipe, "contexts": self.contexts, "irrelevant": self.irrelevant})

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what was trained: two runs of one digest differ in nothing but the seed."""
        return _sha256({"agent": self.agent_digest, "definition": self.definition, "steps": self.steps})

    def differences(self, other: Training) -> list[str]:
        """Say in words what is different in another training, whatever files and recipes are called.

        >>> from dataclasses import replace
        >>> from hyperrl import load_family
        >>> from hyperrl.training import agent_spec
        >>> one = Training.of(load_family("ode"), agent_spec("hyper-ppo"), steps=1000, seed=0)
        >>> one.differences(replace(one, steps=2000, agent="renamed"))
        ['steps was 1000, now 2000']
        """
        mine, others = (_flat(plain(replace(t, overrides={}, family="", agent=""))) for t in (self, other))
        return changes(mine, others)


@dataclass(frozen=True)
class Result:
    """How a training ended.

    :param model: the model.
    :param seconds: how long it took, without what was lost by interruptions.
    :param device: where its networks were.
    :param encoder: SHA-256 of the parameters of the encoder that finds its context; ``None`` where it has none.
    """

    model: ModelDescription
    seconds: float
    device: str
    encoder: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` says.

    :param training: what is trained.
    :param command: the command that began it.
    :param versions: of the libraries that decide the result.
    :param result: how it ended; ``None`` while it is under way.
    :param family_source: ``"module:attribute"`` of a family made in Python; ``None`` for one of a file, and where
        nobody said.
    :param restarts: environment steps at which it was resumed with new episodes, the state of its environments being
        of a kind that no checkpoint can keep.
    :param trainer: what trains, ``"device"`` or ``"sb3"``: of PPO, results agree but for rounding.
    """

    SCHEMA: ClassVar[str] = "run-1"

    training: Training
    command: str
    versions: Mapping[str, str]
    result: Result | None = None
    family_source: str | None = None
    restarts: tuple[int, ...] = ()
    trainer: str = "sb3"


def distinguish(trainings: Mapping[str, Training]) -> dict[str, str]:
    """Give agents names that tell them apart.

    :param trainings: a training of each, by digest; they differ in more than the family and steps.
    :return: by digest, the recipe's name, and what in it is unlike others of that name.

    >>> from dataclasses import replace
    >>> from hyperrl import load_family
    >>> from hyperrl.training import agent_spec
    >>> one = Training.of(load_family("ode"), agent_spec("hyper-ppo"), steps=1000, seed=0)
    >>> distinguish({"1": one, "2": replace(one, contexts=20)})
    {'1': 'hyper-ppo (contexts=None)', '2': 'hyper-ppo (contexts=20)'}
    """
    names = {
        digest: t.agent + (f" +{t.irrelevant} irrelevant" if t.irrelevant else "") for digest, t in trainings.items()
    }
    labels = {}
    for digest, name in names.items():
        alike = [_flat(plain(replace(trainings[other], overrides={}))) for other in names if names[other] == name]
        mine = _flat(plain(trainings[digest]))
        unlike = [
            key
            for key in dict.fromkeys(key for other in alike for key in other)
            if key not in ("family", "definition", "agent", "steps", "seed")
            and any(o.get(key) != mine.get(key) for o in alike)
        ]
        told = ", ".join(f"{key.rpartition('.')[2]}={mine.get(key, 'not given')}" for key in unlike)
        if unlike:
            name += f" ({told})" if len(told) <= 50 else f" ({digest[:6]})"
        labels[digest] = name
    return labels


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words which values are different.

    >>> changes({"steps": 1000, "seed": 0}, {"steps": 2000, "seed": 0})
    ['steps was 1000, now 2000']
    """
    return [
        f"{key} was {before.get(key, 'not given')!r}, now {now.get(key, 'not given')!r}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]


def contents(agent: AgentSpec) -> dict[str, Any]:
    """Return what a recipe says, with what the recipe says whose number of parameters it is given.

    What is left at its default is left out, so that a later version's new keys do not change what an old recipe says.
    """
    definition = agent.definition
    said = {
        field.name: value for field in fields(definition) if (value := getattr(definition, field.name)) != field.default
    }
    if definition.match_parameters is not None:
        said["match_parameters"] = contents(agent_spec(definition.match_parameters))
    return said


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Name the leaves of nested dictionaries: ``{"a": {"b": 1}}`` to ``{"a.b": 1}``."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}.{key}" if name else key).items()}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()
