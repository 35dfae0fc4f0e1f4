"""A family: one environment over a context space, a contextual MDP (Hallak et al. 2015)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike

from hyperrl.contexts import ContextSpace, Vector
from hyperrl.families.definition import FamilyDefinition, FamilySpec, family_spec
from hyperrl.utils.errors import nearest
from hyperrl.utils.seeding import stream

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.physics.base import Physics
from hyperrl.families.context_env import ContextEnv

BACKENDS = ("auto", "batched", "gymnasium")


class Family:
    """One environment over a context space; see :func:`load_family`."""

    def __init__(self, spec: FamilySpec) -> None:
        self.spec = spec
        self._env_spec = EnvSpec(spec.definition.id, entry_point=self.context_env, **registration(spec.definition))

    def __repr__(self) -> str:
        return f"Family({self.name!r}, features={list(self.context_space.names)})"

    @property
    def name(self) -> str:
        """The name of the definition file."""
        return self.spec.name

    @property
    def context_space(self) -> ContextSpace:
        """The features over which the family varies."""
        return self.spec.context_space

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit of an episode: the definition's, else that of the base; ``None`` where neither has one."""
        return self._env_spec.max_episode_steps

    def with_irrelevant(self, n: int) -> Family:
        """Return the family with ``n`` features more that do nothing; see :meth:`ContextSpace.with_irrelevant`.

        >>> load_family("ode").with_irrelevant(2).context_space.names
        ('c0', 'c1', 'irrelevant_0', 'irrelevant_1')
        """
        return Family(replace(self.spec, context_space=self.context_space.with_irrelevant(n)))

    @property
    def irrelevant(self) -> int:
        """How many features do nothing."""
        return len(self.context_space) - len(self.context_space.relevant)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what the definition says of the dynamics and the features.

        Comments, the Gymnasium id and the plane of its pictures do not count; neither does the code of its physics,
        which the version of hyperrl stands for.
        """
        definition = {k: v for k, v in asdict(self.spec.definition).items() if k not in ("id", "plane")}
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()

    @property
    def plane(self) -> tuple[str, str]:
        """The two features over which a picture of the returns is drawn."""
        x, y = self.spec.definition.plane
        return x, y

    def physics(self) -> Physics:
        """Load the family's dynamics as functions on tensors.

        :raises ValueError: where it has none, or they need a feature that it lacks.
        """
        from hyperrl.physics.registry import load
        from hyperrl.simulation.simulator import check_features

        try:
            if self.spec.definition.physics is None:
                raise ValueError("the family has no 'physics'")
            loaded = load(self.spec.definition.physics)
            check_features(loaded, self.context_space)
        except ValueError as error:
            raise ValueError(f"{self.spec.source}: {error}") from None
        return loaded

    def make(self, context: Mapping[str, float] | ArrayLike | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
        """Make one environment.

        :param context: the context of every episode, as a mapping (the rest at default) or a vector of shape
            ``(d,)``; ``None`` draws a fresh one from the training range at each ``reset``.
        :param kwargs: keyword arguments of the base environment, such as ``render_mode``.
        """
        contexts = None if context is None else self.context_space.vector(context)[None]
        return gym.make(self._env_spec, disable_env_checker=True, contexts=contexts, **kwargs)

    def vec_env(
        self,
        n_envs: int = 64,
        split: str = "train",
        seed: int = 0,
        contexts: int | ArrayLike | None = None,
        *,
        backend: str = "auto",
        device: str = "cpu",
    ) -> VecEnv:
        """Make environments that step together, a Stable-Baselines3 ``VecEnv``.

        :param n_envs: how many.
        :param split: where the contexts come from, see :meth:`ContextSpace.sample`.
        :param seed: the same seed gives the same contexts and initial states.
        :param contexts: ``None`` draws a fresh context for each episode (split ``train``), or gives each
            environment one of ``n_envs`` contexts (the other splits); a number takes that many contexts of the
            split, an array of shape ``(n, d)`` those. Environment ``i`` starts with context ``i % n`` and goes
            on in steps of ``n_envs``: with ``n == n_envs``, each keeps its own.
        :param backend: ``"batched"`` steps all environments at once as rows of tensors, ``"gymnasium"`` one Gymnasium
            environment after the other; ``"auto"`` is batched where the family has ``physics``. The same seed gives
            other contexts in the one than in the other.
        :param device: where batched environments are: ``"cpu"``, ``"cuda"``, ``"auto"`` for cuda where there is one.
        :raises ValueError: for a context out of bounds, for ``"batched"`` where the family has no ``physics``, and for
            another device than the cpu where environments are Gymnasium's.
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
        if backend == "batched" or (backend == "auto" and self.spec.definition.physics is not None):
            from hyperrl.simulation.simulator import Simulator
            from hyperrl.simulation.vec_env import BatchedVecEnv

            limit = self.max_episode_steps
            simulator = Simulator(self.physics(), self.context_space, n_envs, limit, contexts, device)
            vec_env = BatchedVecEnv(simulator)
        elif device not in ("cpu", "auto"):
            raise ValueError(f"device={device!r} is for batched environments; Gymnasium's run on the cpu")
        else:
            vec_env = self._dummy_vec_env(n_envs, contexts)
        vec_env.seed(stream(seed))
        return vec_env

    def _dummy_vec_env(self, n_envs: int, contexts: Vector | None) -> VecEnv:
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv

        def make(i: int) -> Callable[[], gym.Env[Any, Any]]:
            mine = None if contexts is None else contexts[(i + n_envs * np.arange(len(contexts))) % len(contexts)]
            return lambda: Monitor(gym.make(self._env_spec, disable_env_checker=True, contexts=mine))

        return DummyVecEnv([make(i) for i in range(n_envs)])

    def context_env(self, contexts: Vector | None = None, **kwargs: Any) -> ContextEnv:
        """Make one environment without a time limit; parameters as in :class:`ContextEnv` and :meth:`make`."""
        env = self._bare_context_env(contexts, **kwargs)
        env.family = self
        return env

    def _bare_context_env(self, contexts: Vector | None, **kwargs: Any) -> ContextEnv:
        if self.spec.definition.base is None:
            from hyperrl.simulation.physics_env import PhysicsEnv

            env = PhysicsEnv(self.physics(), **kwargs)
            return ContextEnv(env, self.context_space, _set_context, contexts)
        env = gym.make(self.spec.definition.base, disable_env_checker=True, **kwargs).unwrapped
        for attribute in self.spec.attributes:
            if not hasattr(env, attribute):
                known = [name for name in dir(env) if not name.startswith("_")]
                raise ValueError(
                    f"{self.spec.source}: {self.spec.definition.base} has no attribute {attribute!r}."
                    f"{nearest(attribute, known)}"
                )
        drawn = kwargs.get("render_mode") == "rgb_array" and self.spec.definition.physics is not None
        draw = self.physics().draw if drawn else None
        return ContextEnv(env, self.context_space, self._apply, contexts, self.spec.definition.action_scale, draw)

    def _apply(self, env: gym.Env[Any, Any], context: Mapping[str, float]) -> None:
        for attribute, expression in self.spec.attributes.items():
            values = [e(context) for e in expression] if isinstance(expression, tuple) else expression(context)
            setattr(env, attribute, values)


def load_family(name: str | Path) -> Family:
    """Load a family by name, or from the path of a ``.toml`` file.

    :raises ValueError: for an unknown name or a faulty file, saying file, key and what is valid.

    >>> load_family("pendulum").context_space.names
    ('gravity', 'mass', 'length', 'torque_gain')
    """
    return Family(family_spec(name))


def registration(definition: FamilyDefinition) -> dict[str, Any]:
    """Return what Gymnasium's registry says of a family beside its id: the base's, unless the file says otherwise."""
    base = None if definition.base is None else gym.spec(definition.base)
    steps = definition.max_episode_steps or (None if base is None else base.max_episode_steps)
    return dict(max_episode_steps=steps, reward_threshold=None if base is None else base.reward_threshold)


def _set_context(env: Any, context: Mapping[str, float]) -> None:
    env.context = context
