"""The arguments of policies' constructors: spelt out for editors, checked, and passed on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, Final, ParamSpec

from hyperrl.policies.registry import who_serves_whom
from hyperrl.utils.errors import nearest

P = ParamSpec("P")

GIVEN_BY_THE_ALGORITHM: Final = ("observation_space", "action_space", "lr_schedule")
GIVEN_BY_SOME: Final = ("use_sde", "n_critics")
"""What some algorithms add to ``policy_kwargs``: PPO, A2C, TRPO and those with gSDE; DDPG."""


def names_checked(init: Callable[P, None]) -> Callable[P, None]:
    """Let a policy's constructor refuse unknown keyword arguments with the nearest valid name.

    >>> class Policy:
    ...     @names_checked
    ...     def __init__(self, net_arch: list[int]) -> None: ...
    >>> Policy(netarch=[64])
    Traceback (most recent call last):
    ValueError: policy_kwargs: Policy knows no 'netarch': the names are ['net_arch']. Did you mean 'net_arch'?
    """
    _, *parameters = inspect.signature(init).parameters
    valid = [name for name in parameters if name not in GIVEN_BY_THE_ALGORITHM]

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            if name not in parameters:
                policy: type[Any] = type(args[0])
                message = f"policy_kwargs: {policy.__name__} knows no {name!r}: the names are {valid}."
                more = f" {who_serves_whom(policy)}" if name in GIVEN_BY_SOME else nearest(name, valid)
                raise ValueError(message + more)
        init(*args, **kwargs)

    return checked


def passed_on(arguments: dict[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return a constructor's ``locals()``, taken before any other variable is set, as keyword arguments of the next.

    :param without: those that are not for the next constructor.
    """
    return {name: value for name, value in arguments.items() if name not in ("self", "__class__", *without)}
