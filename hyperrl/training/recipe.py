"""What a file in ``agents/`` says, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    :param normalize_reward: divide rewards by a running estimate of the return's standard deviation.
    :param match_parameters: the recipe whose number of parameters this one is given, by its layers' width.
    """

    algorithm: str
    policy: str
    n_envs: int
    hyperparameters: dict
    policy_kwargs: dict
    normalize_reward: bool = False
    match_parameters: str | None = None


@dataclass(frozen=True)
class AgentSpec:
    """A recipe, checked: its file, and what the file says."""

    name: str
    source: Path
    definition: AgentDefinition


def agent_spec(name: str | Path) -> AgentSpec:
    """Read a recipe by name, or from a path that ends in ``.toml``.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.
    """
    source, table = read("agents", name)
    try:
        return AgentSpec(source.stem, source, build(AgentDefinition, table))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
