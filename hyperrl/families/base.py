"""The registered environment that a definition file varies: how it is made, and how a context is set on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from hyperrl.families.attributes import AttributePath
from hyperrl.families.expressions import Expression
from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_module, load_object

if TYPE_CHECKING:
    from hyperrl.physics.base import Physics
    from hyperrl.physics.model_edit import ModelEdit

_EDIT = "_hyperrl_model_edit"
Value = Expression | tuple[Expression, ...]


@dataclass(frozen=True)
class GymnasiumBase:
    """A Gymnasium environment and what a definition file says of it.

    :param source: the file, for messages.
    :param id: its Gymnasium id, or ``"module:Id"`` for one that the module registers.
    :param attributes: attribute of the unwrapped environment = expression (or several for a list) in the features.
    :param kwargs: its keyword arguments.
    :param wrappers: wrappers to put around it, the innermost first: ``"module:Class"`` and its keyword arguments.
    :param model: tables ``scale``, ``set``, ``length`` of what changes in its MuJoCo model = expression for the factor
        or the value; see :class:`~hyperrl.physics.model_edit.ModelEdit`.
    :param simulated: whether MuJoCo is needed.
    """

    source: Path
    id: str
    attributes: tuple[tuple[AttributePath, Value], ...] = ()
    kwargs: Mapping[str, Any] | None = None
    wrappers: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    model: Mapping[str, Mapping[str, Expression]] = field(default_factory=dict)
    simulated: bool = False

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
            with self._loading():
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
        if self.model:
            self.model_edit(env.unwrapped)
        return env

    def physics(self, features: tuple[str, ...]) -> Physics:
        """Return the environment as physics of many rows, stepped by MuJoCo.

        :param features: their names.
        :raises ValueError: where MuJoCo is not installed, and where the environment is not one of those known.
        """
        with self._loading():
            from hyperrl.physics.mujoco import MujocoPhysics

            attributes: Any = {path.text: value for path, value in self.attributes}
            return MujocoPhysics(self.make, self.model_edit, attributes, features)

    def apply(self, env: gym.Env[Any, Any], context: Mapping[str, float]) -> None:
        """Set a context on the unwrapped environment."""
        for path, value in self.attributes:
            path.set(env, [e(context) for e in value] if isinstance(value, tuple) else value(context))
        if self.model:
            self.model_edit(env).apply_to(env, context)

    def model_edit(self, env: Any) -> ModelEdit:
        """Return what changes the environment's model. It is kept with the environment, for copies of both to agree."""
        from hyperrl.physics.model_edit import ModelEdit

        edit = getattr(env, _EDIT, None)
        if edit is None:
            try:
                edit = ModelEdit.of(env, **self.model)
            except AttributeError:
                raise ValueError(f"{self.source}: [model] is about MuJoCo's, and {self.id} has no 'model'") from None
            except ValueError as error:
                raise ValueError(f"{self.source}: {error}") from None
            setattr(env, _EDIT, edit)
        return edit

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Load a MuJoCo model quietly, and say what to install where that cannot be."""
        if not self.simulated:
            yield
            return
        if find_spec("mujoco") is None or find_spec("mujoco.batch") is None:
            raise ValueError(f"{self.source}: {self.id} needs MuJoCo 3.17 or later: pip install 'mujoco>=3.17'")
        from hyperrl.physics.libmujoco import quiet

        with quiet():
            yield
