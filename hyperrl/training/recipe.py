"""What a file in ``agents/`` says, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hyperrl.utils.definitions import build, read


@dataclass(frozen=True)
class AgentDefinition:
    """What a file in ``agents/`` says.

    :param algorithm: a class of Stable-Baselines3 or sb3-contrib, such as ``"PPO"``, or any other ``BaseAlgorithm`` as
        ``"mypackage.algorithms:MyPPO"``.
    :param policy: ``"hyper"``, ``"film"``, ``"concat"`` or ``"unaware"``, or any ``BasePolicy`` as
        ``"mypackage.networks:MyPolicy"``.
    :param n_envs: how many environments are stepped together.
    :param hyperparameters: keyword arguments of the algorithm; ``learning_rate = "lin_1e-3"`` falls linearly,
        ``action_noise = 0.1`` is normal with that standard deviation.
    :param policy_kwargs: keyword arguments of the policy. Those that are classes, here and among the hyperparameters,
        are named as ``activation_fn = "torch.nn:ReLU"``.
    :param switch: change the context within episodes: after so many steps, or after a random number of them, as
        ``[30, 80]``; see :meth:`hyperrl.Family.vec_env`.
    :param observe_last_step: add the last action and reward to what is observed, see
        :class:`hyperrl.simulation.VecLastStep`.
    :param normalize_observation: standardise what is observed, but for the context, by running estimates of mean and
        variance, as ``VecNormalize`` does.
    :param normalize_reward: divide rewards by a running estimate of the return's standard deviation.
    :param match_parameters: the recipe whose number of parameters this one is given, by its layers' width.
    :param alignment: put an embedding of the last transitions in the context's place: keyword arguments of
        :class:`~hyperrl.alignment.AlignedContext`, perhaps none.
    """

    algorithm: str
    policy: str
    n_envs: int
    hyperparameters: dict
    policy_kwargs: dict
    normalize_observation: bool = False
    normalize_reward: bool = False
    match_parameters: str | None = None
    switch: int | list | None = None
    alignment: dict | None = None
    observe_last_step: bool = False


@dataclass(frozen=True)
class AgentSpec:
    """A recipe, checked.

    :param name: what the agent is called.
    :param source: the file of the recipe.
    :param definition: what the file says, with the overrides.
    :param overrides: what was set in place of what the file says, see :func:`agent_spec`.
    """

    name: str
    source: Path
    definition: AgentDefinition
    overrides: Mapping[str, Any] = field(default_factory=dict)


def agent_spec(name: str | Path, overrides: Mapping[str, Any] | None = None) -> AgentSpec:
    """Read a recipe by name, or from a path that ends in ``.toml``.

    :param overrides: key = value in place of what the file says: keys of the file, such as ``n_envs``; names of
        hyperparameters; names of policy arguments behind ``policy.``; and those of the encoder behind ``alignment.``.
    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = read("agents", name)
    try:
        definition = build(AgentDefinition, table)
        if overrides:
            definition = build(AgentDefinition, _overridden(asdict(definition), overrides))
        return AgentSpec(source.stem, source, definition, dict(overrides or {}))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def read_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Read overrides as users write them: ``key=value``, the value as in TOML, or a text without quotes.

    :raises ValueError: for what is no assignment.

    >>> read_overrides(["learning_rate=lin_7e-4", "policy.rank=16", "policy.embedding=[64, 8]"])
    {'learning_rate': 'lin_7e-4', 'policy.rank': 16, 'policy.embedding': [64, 8]}
    """
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals and value):
            raise ValueError(f"expected key=value, such as policy.rank=16, got {assignment!r}")
        try:
            overrides[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key] = value
    return overrides


def _overridden(table: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a recipe with overrides; those it does not know are hyperparameters."""
    table = {key: value for key, value in table.items() if value is not None}  # as a file leaves them out
    table |= {key: dict(table[key]) for key in ("hyperparameters", "policy_kwargs")}
    for key, value in overrides.items():
        first, _, rest = key.partition(".")
        if first == "policy" and rest:
            table["policy_kwargs"][rest] = value
        elif first == "alignment" and rest:
            table["alignment"] = table.get("alignment", {}) | {rest: value}
        elif key in AgentDefinition.__dataclass_fields__:
            table[key] = value
        else:
            table["hyperparameters"][key] = value
    return table
