"""A family: one environment over a context space, a contextual MDP (Hallak et al. 2015)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.families.context_env import ContextEnv
from hyperrl.families.definition import MUJOCO, FamilySpec, family_spec, spec_of
from hyperrl.families.switching import ContextSwitch, Switch, switch_steps
from hyperrl.utils.definitions import find
from hyperrl.utils.errors import nearest
from hyperrl.utils.imports import load_object
from hyperrl.utils.seeding import stream

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.physics.base import Physics

BACKENDS = ("auto", "batched", "warp", "gymnasium")
_PYTHON = re.compile(r"[\w.]+:\w+")


class Family:
    """One environment over a context space.

    A definition file makes one (:func:`load_family`), and so does Python, where setting a context takes code:

    :param make_env: makes the environment to vary; it is called with the keyword arguments of :meth:`make`, such as
        ``render_mode``. ``None`` where there are only physics.
    :param context_space: the features.
    :param apply: sets a context, a mapping from feature names to values, on the unwrapped environment, before each of
        its resets and, where contexts switch within episodes, between two steps. ``None`` where there are only physics.
    :param name: a name for tables, files and messages.
    :param max_episode_steps: the time limit, for an environment that has none of its own.
    :param plane: the two features over which a picture of the returns is drawn; the first two by default.
    :param physics: the same dynamics as functions on tensors, or the only ones: a
        :class:`~hyperrl.physics.base.Physics`, a function that makes it, or its name.
    :param action_scale: the feature that multiplies a continuous action, once clipped to the action space.
    :param id: its Gymnasium id, for messages of Gymnasium; ``hyperrl/NAME-v0`` by default. Nothing is registered.
    :param source: where it is found again: the file, or ``"module:attribute"``; :func:`load_family` gives it.
    :param digest: see :attr:`digest`.
    :raises ValueError: for an unknown feature, and where there is neither an environment nor physics.

    >>> import gymnasium
    >>> from hyperrl.contexts import ContextSpace, Feature
    >>> space = ContextSpace((Feature("length", "m", 1.0, train=((0.8, 1.2),), bounds=((0.5, 1.5),)),))
    >>> def make(**kwargs):
    ...     return gymnasium.make("Pendulum-v1", **kwargs)
    >>> def apply(env, context):
    ...     env.l = context["length"]
    >>> family = Family(make, space, apply, name="stick")
    >>> family.make({"length": 0.9}).reset(seed=0)[0]["context"]
    array([0.9], dtype=float32)
    """

    def __init__(
        self,
        make_env: Callable[..., gym.Env[Any, Any]] | None,
        context_space: ContextSpace,
        apply: Callable[[Any, Mapping[str, float]], None] | None,
        *,
        name: str,
        max_episode_steps: int | None = None,
        plane: tuple[str, str] | None = None,
        physics: str | Physics | Callable[[], Physics] | None = None,
        action_scale: str | None = None,
        id: str | None = None,
        source: Path | str | None = None,
        digest: str | None = None,
    ) -> None:
        if (make_env is None) != (apply is None):
            raise ValueError(f"family {name!r}: give both 'make_env' and 'apply', or neither and 'physics'")
        if make_env is None and (physics is None or max_episode_steps is None):
            raise ValueError(f"family {name!r}: give 'make_env' and 'apply', or 'physics' and 'max_episode_steps'")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"family {name!r}: 'max_episode_steps' must be at least 1, got {max_episode_steps}")
        if re.fullmatch(r"[\w.-]+", name) is None:
            raise ValueError(f"expected a name of letters, digits and - _ . for a family, got {name!r}")
        names = context_space.names
        self.name = name
        self.context_space = context_space
        self.plane: tuple[str, str] = (names[0], names[min(1, len(names) - 1)]) if plane is None else plane
        """The two features over which a picture of the returns is drawn."""
        for feature in (*self.plane, *([] if action_scale is None else [action_scale])):
            context_space.index(feature)
        self.max_episode_steps = max_episode_steps
        self.id = f"hyperrl/{name}-v0" if id is None else id
        self.source = source
        """Where it is found again: a file, ``"module:attribute"``, or ``None`` for one made in Python."""
        self._make_env = make_env
        self._apply = apply
        self._physics = physics
        self._action_scale = action_scale
        self._digest = digest
        self._env_spec = EnvSpec(self.id, entry_point=self.context_env, max_episode_steps=max_episode_steps)

    def __repr__(self) -> str:
        return f"Family({self.name!r}, features={list(self.context_space.names)})"

    def with_irrelevant(self, n: int) -> Family:
        """Return the family with ``n`` features more that do nothing; see :meth:`ContextSpace.with_irrelevant`.

        >>> load_family("ode").with_irrelevant(2).context_space.names
        ('c0', 'c1', 'irrelevant_0', 'irrelevant_1')
        """
        return self._with(context_space=self.context_space.with_irrelevant(n))

    @property
    def irrelevant(self) -> int:
        """How many features do nothing."""
        return len(self.context_space) - len(self.context_space.relevant)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what the definition says of the dynamics and the features.

        Comments and the plane of its pictures do not count. Of the Gymnasium id only the version counts. It is raised
        when the code of the physics changes. Of a family made in Python, its features, its time limit and the names of
        its functions and physics count, not their code.
        """
        if self._digest is not None:
            return self._digest
        said = {
            "features": [asdict(feature) for feature in self.context_space.relevant.features],
            "max_episode_steps": self.max_episode_steps,
            "action_scale": self._action_scale,
            **{key: _qualified(getattr(self, f"_{key}")) for key in ("make_env", "apply", "physics")},
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def has_base(self) -> bool:
        """Whether it varies an environment, which :meth:`base` makes; else its physics is all."""
        return self._make_env is not None

    @property
    def has_physics(self) -> bool:
        """Whether its dynamics are there as functions on tensors."""
        return self._physics is not None

    def base(self, **kwargs: Any) -> gym.Env[Any, Any]:
        """Make the environment that the family varies, as it is.

        :param kwargs: its keyword arguments, such as ``render_mode``.
        :raises ValueError: where there is none.
        """
        if self._make_env is None:
            raise ValueError(f"{self.place}: the family varies no environment, it has physics of its own")
        return self._make_env(**kwargs)

    def physics(self) -> Physics:
        """Load the family's dynamics as functions on tensors.

        :raises ValueError: where it has none, or they need a feature that it lacks.
        """
        from hyperrl.physics.registry import load
        from hyperrl.simulation.simulator import check_features

        try:
            if self._physics is None:
                raise ValueError("the family has no 'physics'")
            if isinstance(self._physics, str):
                loaded = load(self._physics)
            else:
                loaded = self._physics() if callable(self._physics) else self._physics
            check_features(loaded, self.context_space)
        except ValueError as error:
            said = str(error)  # the environment of a definition file names the file itself
            raise ValueError(said if said.startswith(self.place) else f"{self.place}: {said}") from None
        return loaded

    @property
    def place(self) -> str:
        """Where a user looks for what is wrong with it."""
        return f"family {self.name!r}" if self.source is None else str(self.source)

    def named(self, name: str) -> Family:
        """Return the family under another name."""
        return self._with(name=name)

    def _with(self, **changes: Any) -> Family:
        arguments: dict[str, Any] = dict(
            name=self.name,
            max_episode_steps=self.max_episode_steps,
            plane=self.plane,
            physics=self._physics,
            action_scale=self._action_scale,
            id=self.id,
            source=self.source,
            digest=self._digest,
            context_space=self.context_space,
        )
        return Family(self._make_env, apply=self._apply, **(arguments | changes))

    def make(
        self, context: Mapping[str, float] | ArrayLike | None = None, *, switch: Switch = None, **kwargs: Any
    ) -> gym.Env[Any, Any]:
        """Make one environment.

        :param context: the context of every episode, as a mapping (the rest at default) or a vector of shape
            ``(d,)``; ``None`` draws a fresh one from the training range at each ``reset``.
        :param switch: change the context within episodes to another draw from the training range, as in
            :meth:`vec_env`.
        :param kwargs: keyword arguments of the base environment, such as ``render_mode``.
        """
        contexts = None if context is None else self.context_space.vector(context)[None]
        steps = switch_steps(switch, contexts)
        env = gym.make(self._env_spec, disable_env_checker=True, contexts=contexts, **kwargs)
        return env if steps is None else ContextSwitch(env, steps)

    def vec_env(
        self,
        n_envs: int = 64,
        split: str = "train",
        seed: int = 0,
        contexts: int | ArrayLike | None = None,
        *,
        switch: Switch = None,
        backend: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
    ) -> VecEnv:
        """Make environments that step together, a Stable-Baselines3 ``VecEnv``.

        :param n_envs: how many.
        :param split: where the contexts come from, see :meth:`ContextSpace.sample`.
        :param seed: the same seed gives the same contexts and initial states.
        :param contexts: ``None`` draws a fresh context for each episode (split ``train``), or gives each
            environment one of ``n_envs`` contexts (the other splits); a number takes that many contexts of the
            split, an array of shape ``(n, d)`` those. Environment ``i`` starts with context ``i % n`` and goes
            on in steps of ``n_envs``: with ``n == n_envs``, each keeps its own.
        :param switch: change the context within episodes, after so many steps each time, or after a random number of
            them: ``(30, 80)`` draws one from 30 to 80. The new context is one of ``contexts``, each as likely as
            another, or a fresh draw from the training range. The state goes on as it is. What is observed after the
            step holds the new context, and its info ``context_switched``; the last observation of an episode holds the
            context of its last step.
        :param backend: ``"batched"`` steps all environments at once as rows of tensors, ``"gymnasium"`` one Gymnasium
            environment after the other; ``"auto"`` is batched where the family has ``physics``. The same seed gives
            other contexts in the one than in the other. ``"warp"`` is batched too, and has MuJoCo's bodies stepped by
            MuJoCo Warp, on the cpu as well.
        :param device: where batched environments are: ``"cpu"``, ``"cuda"``, ``"auto"`` for cuda where there is one.
            MuJoCo's bodies stay on the cpu for ``"auto"``, and are stepped by MuJoCo Warp for ``"cuda"``.
        :param threads: on how many threads MuJoCo steps batched environments; by default as many as there are cores.
        :raises ValueError: for a context out of bounds, for ``"batched"`` where the family has no ``physics``, for
            another device than the cpu where environments are Gymnasium's, for MuJoCo Warp where it is not installed
            or cannot step the body, for ``threads`` where it is not MuJoCo that steps, and for ``switch`` where there
            is only one context.
        """
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: known are {list(BACKENDS)}.{nearest(backend, BACKENDS)}")
        if n_envs < 1:
            raise ValueError(f"expected at least one environment, got n_envs={n_envs}")
        if contexts is None and split != "train":
            contexts = n_envs
        if isinstance(contexts, int | np.integer):
            contexts = self.context_space.sample(split, int(contexts), seed)
        elif contexts is not None:
            contexts = self.context_space.matrix(contexts)
        steps = switch_steps(switch, contexts)
        if backend in ("batched", "warp") or (backend == "auto" and self.has_physics):
            from hyperrl.simulation.simulator import Simulator
            from hyperrl.simulation.vec_env import BatchedVecEnv

            limit = self.max_episode_steps
            physics = self.physics()
            if backend == "warp":
                from hyperrl.physics.mujoco import MujocoPhysics
                from hyperrl.physics.warp import WarpPhysics

                if not isinstance(physics, MujocoPhysics):
                    raise ValueError(
                        f"{self.place}: backend='warp' is for MuJoCo's bodies, not {type(physics).__name__}"
                    )
                physics = WarpPhysics(physics, device)
            if threads is not None:
                if physics.threads is None or threads < 1:
                    raise ValueError(
                        f"expected at least one thread, of MuJoCo, got threads={threads} for {type(physics).__name__}"
                    )
                physics.threads = threads
            simulator = Simulator(physics, self.context_space, n_envs, limit, contexts, device, steps)
            vec_env = BatchedVecEnv(simulator)
        elif threads is not None:
            raise ValueError(f"threads={threads} is for batched environments that MuJoCo steps")
        elif device not in ("cpu", "auto"):
            raise ValueError(f"device={device!r} is for batched environments; Gymnasium's run on the cpu")
        else:
            vec_env = self._dummy_vec_env(n_envs, contexts, steps)
        vec_env.seed(stream(seed))
        return vec_env

    def _dummy_vec_env(self, n_envs: int, contexts: Vector | None, switch: tuple[int, int] | None) -> VecEnv:
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv

        def make(i: int) -> Callable[[], gym.Env[Any, Any]]:
            mine = None if contexts is None else contexts[(i + n_envs * np.arange(len(contexts))) % len(contexts)]

            def made() -> gym.Env[Any, Any]:
                env = gym.make(self._env_spec, disable_env_checker=True, contexts=mine)
                return Monitor(env if switch is None else ContextSwitch(env, switch, contexts))

            return made

        return DummyVecEnv([make(i) for i in range(n_envs)])

    def context_env(self, contexts: Vector | None = None, **kwargs: Any) -> ContextEnv:
        """Make one environment without a time limit; parameters as in :class:`ContextEnv` and :meth:`make`."""
        env = self._bare_context_env(contexts, **kwargs)
        env.family = self
        return env

    def _bare_context_env(self, contexts: Vector | None, **kwargs: Any) -> ContextEnv:
        drawn = kwargs.get("render_mode") == "rgb_array" and self.has_physics
        draw = self.physics().draw if drawn else None
        if self._make_env is None or self._apply is None:
            from hyperrl.simulation.physics_env import PhysicsEnv

            env = PhysicsEnv(self.physics(), **kwargs)
            return ContextEnv(env, self.context_space, _set_context, contexts, draw=draw)
        return ContextEnv(self._make_env(**kwargs), self.context_space, self._apply, contexts, self._action_scale, draw)


def load_family(name: str | Path) -> Family:
    """Load a family by name, from the path of a ``.toml`` file, or from Python by ``"module:attribute"``.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.

    >>> load_family("pendulum").context_space.names
    ('gravity', 'mass', 'length', 'torque_gain')
    """
    source = name if isinstance(name, str) and _PYTHON.fullmatch(name) else find("envs", name)
    if isinstance(source, str):
        found = load_object(source)
        if not isinstance(found, Family):
            raise ValueError(f"expected {source!r} to be a hyperrl.Family, got {found!r}")
        return found._with(source=source, name=found.name if source == name else str(name))
    spec = family_spec(source)
    return _family(spec, spec.source)


def family_of(name: str, definition: Mapping[str, Any], place: Path) -> Family:
    """Make a family of what a definition file says, without the file.

    :param name: the family's name.
    :param definition: what the file says.
    :param place: where that was read, for messages.
    :raises ValueError: where it is faulty.
    """
    return _family(spec_of(name, place, definition), None)


def _family(spec: FamilySpec, source: Path | None) -> Family:
    """Make the family that a definition means.

    :param source: its file, where it has one of its own.
    """
    definition, base = spec.definition, spec.base
    limit = definition.max_episode_steps
    physics: Any = definition.physics
    if base is not None:
        limit = limit or base.spec().max_episode_steps
        if physics == MUJOCO:
            physics = partial(base.physics, spec.context_space.names)
    return Family(
        None if base is None else base.make,
        spec.context_space,
        None if base is None else base.apply,
        name=spec.name,
        max_episode_steps=limit,
        plane=None if definition.plane is None else (definition.plane[0], definition.plane[1]),
        physics=physics,
        action_scale=definition.action_scale,
        id=definition.id,
        source=source,
        digest=definition.digest,
    )


def _set_context(env: Any, context: Mapping[str, float]) -> None:
    env.context = context


def _qualified(thing: Any) -> str | None:
    """Return the name of a function, a class' name for its instance, or a name as it is."""
    if thing is None or isinstance(thing, str):
        return thing
    if isinstance(thing, partial):
        return f"{_qualified(thing.func)}{thing.args}{thing.keywords}"
    return getattr(thing, "__qualname__", type(thing).__qualname__)
