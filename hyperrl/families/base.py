"""The registered environment that a definition file varies: how it is made, and how a context is set on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from hyperrl.families.attributes import AttributePath
from hyperrl.families.expressions import Expression
from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_module, load_object

Value = Expression | tuple[Expression, ...]


@dataclass(frozen=True)
class GymnasiumBase:
    """A Gymnasium environment and what a definition file says of it.

    :param source: the file, for messages.
    :param id: its Gymnasium id, or ``"module:Id"`` for one that the module registers.
    :param attributes: attribute of the unwrapped environment = expression (or several for a list) in the features.
    :param kwargs: its keyword arguments.
    :param wrappers: wrappers to put around it, the innermost first: ``"module:Class"`` and its keyword arguments.
    """

    source: Path
    id: str
    attributes: tuple[tuple[AttributePath, Value], ...] = ()
    kwargs: Mapping[str, Any] | None = None
    wrappers: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def spec(self) -> EnvSpec:
        """Return what Gymnasium's registry says of it; imports its module.

        :raises ValueError: for an id that is not registered, with the nearest that is, or a module that is not there.
        """
        module, colon, name = self.id.rpartition(":")
        try:
            if colon:
                load_module(module)
            return gym.spec(name)
        except gym.error.Error:
            hint = nearest(name, gym.registry) or (
                "" if colon else " If a module registers it, write base = 'module:Id', or import it with --import."
            )
            raise ValueError(f"{self.source}: unknown base {self.id!r}: no such Gymnasium id.{hint}") from None
        except ValueError as error:
            raise ValueError(f"{self.source}: base {self.id!r}: {error}") from None

    def make(self, **kwargs: Any) -> gym.Env[Any, Any]:
        """Make the environment, without its time limit.

        :raises ValueError: where it cannot be made, and where it lacks an attribute.
        """
        spec = copy.deepcopy(self.spec())
        spec.max_episode_steps, spec.order_enforce = None, False
        try:
            env = gym.make(spec, disable_env_checker=True, **{**(self.kwargs or {}), **kwargs})
            for name, arguments in self.wrappers:
                env = load_object(name)(env, **arguments)
        except (gym.error.Error, TypeError, ValueError) as error:
            if isinstance(error, TypeError) and "unexpected keyword argument" not in str(error):
                raise  # the environment's own
            raise ValueError(f"{self.source}: {self.id} cannot be made: {error}") from error
        for path, _ in self.attributes:
            try:
                path.check(env.unwrapped)
            except ValueError as error:
                reason = str(error).replace("the environment has", f"{self.id} has")
                raise ValueError(f"{self.source}: [attributes] {path.text!r}: {reason}") from None
        return env

    def apply(self, env: gym.Env[Any, Any], context: Mapping[str, float]) -> None:
        """Set a context on the unwrapped environment."""
        for path, value in self.attributes:
            path.set(env, [e(context) for e in value] if isinstance(value, tuple) else value(context))
