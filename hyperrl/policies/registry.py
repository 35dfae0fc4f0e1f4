"""Which policy serves which algorithm, and as what: the one table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_class, load_object

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy


@dataclass(frozen=True)
class Algorithm:
    """What is known of an algorithm.

    :param package: where it comes from.
    :param policies: its policies in :mod:`hyperrl.policies`: kind = name. With SB3's own policy,
        :class:`~hyperrl.policies.ContextExtractor` serves the kinds ``"concat"`` and ``"unaware"`` that are missing.
    :param takes_dict: whether it serves Dict observations, which are what families have.
    :param has_memory: whether its policies find out the context while they act: those of the kinds ``"hyper"`` and
        ``"unaware"`` do not observe it.
    """

    package: str
    policies: Mapping[str, str]
    takes_dict: bool = True
    has_memory: bool = False


_SB3, _CONTRIB = "stable_baselines3", "sb3_contrib"
_ACTOR_CRITIC = dict(hyper="HyperPolicy", film="FilmPolicy", concat="ConcatPolicy", unaware="UnawarePolicy")
REGISTRY: Final = {
    "PPO": Algorithm(_SB3, _ACTOR_CRITIC),
    "A2C": Algorithm(_SB3, _ACTOR_CRITIC),
    "SAC": Algorithm(_SB3, dict(hyper="HyperSACPolicy")),
    "TD3": Algorithm(_SB3, dict(hyper="HyperTD3Policy")),
    "DDPG": Algorithm(_SB3, dict(hyper="HyperTD3Policy")),
    "DQN": Algorithm(_SB3, dict(hyper="HyperDQNPolicy")),
    "TRPO": Algorithm(_CONTRIB, _ACTOR_CRITIC),
    "TQC": Algorithm(_CONTRIB, dict(hyper="HyperTQCPolicy")),
    "QRDQN": Algorithm(_CONTRIB, dict(hyper="HyperQRDQNPolicy")),
    "CrossQ": Algorithm(_CONTRIB, dict(hyper="HyperCrossQPolicy"), takes_dict=False),
    "RecurrentPPO": Algorithm(_CONTRIB, dict(hyper="HyperRecurrentPolicy", unaware="RecurrentPolicy"), has_memory=True),
}
"""Which class serves which algorithm, and as what."""

ALGORITHMS: Final = tuple(name for name, algorithm in REGISTRY.items() if algorithm.takes_dict)
"""The algorithms that a recipe may name without saying where they come from."""
POLICIES: Final = ("hyper", "film", "concat", "unaware")
"""The kinds of policies."""
POLICY_OF: Final = {name: entry.policies["hyper"] for name, entry in REGISTRY.items() if not entry.has_memory}
"""The policy of each algorithm whose weights a hypernetwork produces from the context, by names."""


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Return an algorithm of Stable-Baselines3 or sb3-contrib by its name, or any other as ``"module:Class"``.

    :raises ValueError: for an unknown one, and for a class that is no ``BaseAlgorithm``.
    """
    if ":" in name:
        from stable_baselines3.common.base_class import BaseAlgorithm

        return load_class(name, BaseAlgorithm)
    return find(choose("algorithm", name, ALGORITHMS))


def find(name: str) -> type[BaseAlgorithm]:
    """Return the class of an entry of :data:`REGISTRY`."""
    return load_object(f"{REGISTRY[name].package}:{name}")


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
    own = next((REGISTRY[cls.__name__].policies for cls in found.__mro__ if cls.__name__ in REGISTRY), {})
    if kind in own:
        return getattr(policies, own[kind]), {}
    kinds = [known for known in POLICIES if known in own or known in ("concat", "unaware")]
    if kind not in kinds:
        raise ValueError(f"there is no policy {kind!r} for {algorithm}: with it, the policies are {kinds}")
    policy = found.policy_aliases.get("MultiInputPolicy") or found.policy_aliases.get("MultiInputLstmPolicy")
    if policy is None:
        raise ValueError(
            f"{algorithm} has no 'MultiInputPolicy' to make the policy {kind!r} of: name a policy by class"
        )
    return policy, dict(
        features_extractor_class=policies.ContextExtractor,
        features_extractor_kwargs=dict(include_context=kind == "concat"),
    )


def serves(policy: type[BasePolicy]) -> list[str]:
    """Return the names of the algorithms that a policy of :mod:`hyperrl.policies`, or one derived from it, serves.

    >>> from hyperrl.policies import HyperTD3Policy
    >>> serves(HyperTD3Policy)
    ['TD3', 'DDPG']
    """
    names = {ancestor.__name__ for ancestor in policy.__mro__ if ancestor.__module__.startswith("hyperrl.policies.")}
    return [algorithm for algorithm, entry in REGISTRY.items() if names & set(entry.policies.values())]


def who_serves_whom(policy: type[BasePolicy]) -> str:
    """Say which algorithms a policy serves, and what serves the others, for one that is given to a wrong algorithm."""
    others: dict[str, list[str]] = {}
    for algorithm, name in POLICY_OF.items():
        others.setdefault(f"hyperrl.policies.{name}", []).append(algorithm)
    found = "; ".join(f"{name} for {', '.join(algorithms)}" for name, algorithms in others.items())
    return (
        f"{policy.__name__} is a policy for {', '.join(serves(policy))}. The policies are {found}. A baseline for "
        "any algorithm is SB3's own policy with "
        "policy_kwargs=dict(features_extractor_class=hyperrl.policies.ContextExtractor)."
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
