"""The Gymnasium ids of the families."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gymnasium as gym
from gymnasium.wrappers import TimeLimit
from numpy.typing import ArrayLike

from hyperrl.families.family import load_family
from hyperrl.utils.definitions import Entry, catalogue

if TYPE_CHECKING:
    from hyperrl.simulation.vector_env import BatchedVectorEnv


TASKS: Final = {"HalfCheetahVelocity": "HalfCheetah-v5", "AntHeading": "Ant-v5", "ReacherGoal": "Reacher-v5"}
"""Name of an environment in :mod:`hyperrl.physics.tasks` = the id of Gymnasium's that it varies."""
SUITE: Final = {
    "cartpole": ("balance",),
    "ball_in_cup": ("catch",),
    "walker": ("walk",),
    "cheetah": ("run",),
    "reacher": ("easy", "hard"),
}
"""Domain = tasks of it that :mod:`hyperrl.physics.suite` makes."""
SUITE_STEPS: Final = 1000
"""Steps of an episode of the suite."""


def make_registered(
    family: str, context: Mapping[str, float] | None = None, time_limit: bool = False, **kwargs: Any
) -> gym.Env[Any, Any]:
    """Make the environment behind a registered Gymnasium id.

    :param family: name or file of the family.
    :param context: the context of every episode; ``None`` draws a fresh one from the training range.
    :param time_limit: apply the family's time limit, which Gymnasium's registry does not know.
    :param kwargs: keyword arguments of the base.
    """
    loaded = load_family(family)
    contexts = None if context is None else loaded.context_space.vector(context)[None]
    env = loaded.context_env(contexts, **kwargs)
    if time_limit and loaded.max_episode_steps is not None:
        return TimeLimit(env, loaded.max_episode_steps)
    return env


def make_registered_vector(
    family: str,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    context: Mapping[str, float] | ArrayLike | None = None,
    device: str = "cpu",
    time_limit: bool = False,
) -> BatchedVectorEnv:
    """Make the environments behind a registered Gymnasium id.

    :param family: name or file of the family.
    :param num_envs: how many.
    :param max_episode_steps: the time limit.
    :param context: the context of every episode; ``None`` draws a fresh one from the training range.
    :param device: where the tensors are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param time_limit: apply the family's time limit where ``max_episode_steps`` gives none.
    """
    from hyperrl.simulation.simulator import Simulator
    from hyperrl.simulation.vector_env import BatchedVectorEnv

    loaded = load_family(family)
    contexts = None if context is None else loaded.context_space.vector(context)[None]
    if time_limit and max_episode_steps is None:
        max_episode_steps = loaded.max_episode_steps
    return BatchedVectorEnv(
        Simulator(loaded.physics(), loaded.context_space, num_envs, max_episode_steps, contexts, device)
    )


def register() -> None:
    """Register the bases in :mod:`hyperrl.physics`, and every family of the catalogue whose id is not taken.

    Only the first lines of a file are read, and no module that it names is imported. A faulty file is passed over, or
    registered where its id can be read: its fault is said when the family is used.
    """
    for name, original in TASKS.items():
        if (task := f"hyperrl/{name}-v5") not in gym.registry:
            limit = gym.spec(original).max_episode_steps
            gym.register(task, entry_point=f"hyperrl.physics.tasks:{name}Env", max_episode_steps=limit)
    for domain, tasks in SUITE.items():
        for task in tasks:
            if (suite := f"ControlSuite/{domain}-{task}-v0") not in gym.registry:
                kwargs = {"domain": domain, "task": task}
                entry = "hyperrl.physics.suite:SuiteEnv"
                gym.register(suite, entry_point=entry, max_episode_steps=SUITE_STEPS, kwargs=kwargs)
    for entries in catalogue("envs").values():
        for i, entry in enumerate(entries):
            try:
                _register(entry, entry.name if i == 0 else str(entry.source))
            except (OSError, ValueError, gym.error.Error):
                continue


def _register(entry: Entry, family: str) -> None:
    said = _head(entry.source) if isinstance(entry.source, Path) else {"id": f"hyperrl/{entry.name}-v0"}
    if not isinstance(said.get("id"), str) or said["id"] in gym.registry:
        return
    base = gym.registry.get(str(said.get("base")))
    limit = said.get("max_episode_steps") or (None if base is None else base.max_episode_steps)
    known = type(limit) is int
    gym.register(
        said["id"],
        entry_point=f"{__name__}:make_registered",
        vector_entry_point=f"{__name__}:make_registered_vector" if "physics" in said else None,
        max_episode_steps=limit if known else None,
        reward_threshold=None if base is None else base.reward_threshold,
        kwargs={"family": family} | ({} if known else {"time_limit": True}),
    )


def _head(file: Path) -> dict[str, Any]:
    """Read what a file says before its first table: what Gymnasium's registry holds is there.

    :raises ValueError: where not even an id can be read.
    """
    text = file.read_text(encoding="utf-8")
    head = re.split(r"^\s*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
    for part in (head, text):
        try:
            return tomllib.loads(part)
        except tomllib.TOMLDecodeError:
            continue
    found = re.search(r"^id\s*=\s*[\"']([^\"']+)[\"']", text, flags=re.MULTILINE)
    return {"id": found[1]} if found else {}
