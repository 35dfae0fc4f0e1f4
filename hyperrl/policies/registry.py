"""The algorithms and policies that a recipe may name."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_class

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy

ALGORITHMS: Final = {
    **dict.fromkeys(("PPO", "A2C", "SAC", "TD3", "DDPG", "DQN"), "stable_baselines3"),
    **dict.fromkeys(
        ("TRPO", "TQC", "QRDQN", "RecurrentPPO"), "sb3_contrib"
    ),  # CrossQ refuses the Dict observations of families
}
POLICIES: Final = ("hyper", "film", "concat", "unaware")


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Return an algorithm of Stable-Baselines3 or sb3-contrib by its name, or any other as ``"module:Class"``.

    :raises ValueError: for an unknown one, and for a class that is no ``BaseAlgorithm``.
    """
    if ":" in name:
        from stable_baselines3.common.base_class import BaseAlgorithm

        return load_class(name, BaseAlgorithm)
    return getattr(import_module(ALGORITHMS[choose("algorithm", name, ALGORITHMS)]), name)


def policy_class(kind: str, algorithm: str) -> tuple[type[BasePolicy], dict[str, Any]]:
    """Return an algorithm's policy of a kind, and the keyword arguments that make it one.

    :param kind: ``"hyper"``, ``"film"``, ``"concat"`` or ``"unaware"``, or any policy as ``"module:Class"``.
    :param algorithm: as :func:`algorithm_class` takes it. One derived from an algorithm that is known by its name takes
        that one's policies.
    :raises ValueError: for an unknown kind, one that the algorithm has no policy of, and a class that is no
        ``BasePolicy``.

    >>> policy_class("concat", "PPO")
    (<class 'hyperrl.policies.actor_critic.ConcatPolicy'>, {})
    """
    from hyperrl import policies

    if ":" in kind:
        from stable_baselines3.common.policies import BasePolicy

        return load_class(kind, BasePolicy), {}
    choose("policy", kind, POLICIES)
    found = algorithm_class(algorithm)
    hyper = next((policies.POLICY_OF[c.__name__] for c in found.__mro__ if c.__name__ in policies.POLICY_OF), None)
    if kind == "hyper" and hyper is not None:
        return getattr(policies, hyper), {}
    actor_critic = {"film": policies.FilmPolicy, "concat": policies.ConcatPolicy, "unaware": policies.UnawarePolicy}
    if kind in actor_critic and hyper == "HyperPolicy":
        return actor_critic[kind], {}
    if kind in ("hyper", "film"):
        raise ValueError(
            f"there is no policy {kind!r} for {algorithm}: with it, the policies are 'concat' and 'unaware'"
        )
    policy = found.policy_aliases.get("MultiInputPolicy") or found.policy_aliases.get("MultiInputLstmPolicy")
    if policy is None:
        raise ValueError(
            f"{algorithm} has no 'MultiInputPolicy' to make the policy {kind!r} of: name a policy by class"
        )
    return policy, dict(
        features_extractor_class=policies.ContextExtractor,
        features_extractor_kwargs=dict(include_context=kind == "concat"),
    )


def choose(what: str, name: str, valid: Iterable[str]) -> str:
    """Return a name that is valid.

    :raises ValueError: where it is not, with those that are.
    """
    if name not in valid:
        raise ValueError(
            f"unknown {what} {name!r}: known are {list(valid)}, or name any other as 'module:Class'."
            f"{nearest(name, valid)}"
        )
    return name
