"""The Gymnasium ids of the families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from numpy.typing import ArrayLike

from hyperrl.families.definition import family_spec
from hyperrl.utils.definitions import names

if TYPE_CHECKING:
    pass
from hyperrl.families.context_env import ContextEnv
from hyperrl.families.family import load_family, registration

if TYPE_CHECKING:
    from hyperrl.simulation.vector_env import BatchedVectorEnv


def make_registered(family: str, context: Mapping[str, float] | None = None, **kwargs: Any) -> ContextEnv:
    """Make the environment behind a registered Gymnasium id, without its time limit."""
    loaded = load_family(family)
    contexts = None if context is None else loaded.context_space.vector(context)[None]
    return loaded.context_env(contexts, **kwargs)


def make_registered_vector(
    family: str,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    context: Mapping[str, float] | ArrayLike | None = None,
    device: str = "cpu",
) -> BatchedVectorEnv:
    """Make the environments behind a registered Gymnasium id.

    :param family: name of the family.
    :param num_envs: how many.
    :param max_episode_steps: the time limit.
    :param context: the context of every episode; ``None`` draws a fresh one from the training range.
    :param device: where the tensors are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    """
    from hyperrl.simulation.simulator import Simulator
    from hyperrl.simulation.vector_env import BatchedVectorEnv

    loaded = load_family(family)
    contexts = None if context is None else loaded.context_space.vector(context)[None]
    return BatchedVectorEnv(
        Simulator(loaded.physics(), loaded.context_space, num_envs, max_episode_steps, contexts, device)
    )


def register() -> None:
    """Register every family of the catalogue with Gymnasium."""
    for name in names("envs"):
        definition = family_spec(name).definition
        gym.register(
            definition.id,
            entry_point=f"{__name__}:make_registered",
            vector_entry_point=None if definition.physics is None else f"{__name__}:make_registered_vector",
            kwargs={"family": name},
            **registration(definition),
        )
