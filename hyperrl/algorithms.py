"""The algorithms and policies that a recipe may name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hyperrl.contexts import nearest

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy

ALGORITHMS: Final = {
    **dict.fromkeys(("PPO", "A2C", "SAC", "TD3", "DDPG", "DQN"), "stable_baselines3"),
    **dict.fromkeys(("TRPO", "TQC", "QRDQN"), "sb3_contrib"),  # CrossQ refuses the Dict observations of families
}
POLICIES: Final = ("hyper", "concat", "unaware")


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Return an algorithm of Stable-Baselines3 or sb3-contrib by its name.

    :raises ValueError: for an unknown one.
    """
    return getattr(import_module(ALGORITHMS[choose("algorithm", name, ALGORITHMS)]), name)


def policy_class(kind: str, algorithm: str) -> tuple[type[BasePolicy], dict[str, Any]]:
    """Return an algorithm's policy of a kind, and the keyword arguments that make it one.

    :param kind: ``"hyper"``, ``"concat"`` or ``"unaware"``.
    :raises ValueError: for an unknown kind.

    >>> policy_class("concat", "PPO")
    (<class 'hyperrl.policies.actor_critic.ConcatPolicy'>, {})
    """
    from hyperrl import policies

    choose("policy", kind, POLICIES)
    hyper: type[policies.GeneratedPolicy] = getattr(policies, policies.POLICY_OF[algorithm])
    if kind == "hyper":
        return hyper, {}
    if hyper is policies.HyperPolicy:
        return {"concat": policies.ConcatPolicy, "unaware": policies.UnawarePolicy}[kind], {}
    return algorithm_class(algorithm).policy_aliases["MultiInputPolicy"], dict(
        features_extractor_class=policies.ContextExtractor,
        features_extractor_kwargs=dict(include_context=kind == "concat"),
    )


def choose(what: str, name: str, valid: Iterable[str]) -> str:
    """Return a name that is valid.

    :raises ValueError: where it is not, with those that are.
    """
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}: known are {list(valid)}.{nearest(name, valid)}")
    return name
