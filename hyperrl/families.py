"""Families: one environment over a context space, a contextual MDP (Hallak et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike

from hyperrl.catalog import FamilyDefinition, FamilySpec, family_spec, names
from hyperrl.contexts import ContextBox, ContextSpace, Vector, check_seed, nearest

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.physics import Physics

BACKENDS = ("auto", "batched", "gymnasium")


class ContextEnv(gym.Env[Any, Any]):
    """A Gymnasium environment whose context is drawn at ``reset`` and observed.

    Observations are ``{"observation": the environment's own, "context": physical units, shape (d,)}``.
    The context is, in this order: ``reset(options={"context": {...}})``, the next of ``contexts``, or a draw
    from the training range.

    :param env: the environment to vary.
    :param context_space: its features.
    :param apply: sets a context, a mapping from feature names to values, on the unwrapped environment.
    :param contexts: the contexts to go through, one an episode, round and round; shape ``(n, d)``.
    :param action_scale: the feature that multiplies the action, once clipped to the action space.
    :param draw: draws the unwrapped environment's ``state`` in a context, for ``render_mode="rgb_array"``; the
        environment draws itself by default.

    >>> env = load_family("pendulum").make(context={"length": 0.7})
    >>> observation, info = env.reset(seed=0)
    >>> observation["context"]
    array([10. ,  1. ,  0.7,  1. ], dtype=float32)
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        context_space: ContextSpace,
        apply: Callable[[gym.Env[Any, Any], Mapping[str, float]], None],
        contexts: ArrayLike | None = None,
        action_scale: str | None = None,
        draw: Callable[[np.ndarray, Mapping[str, float]], np.ndarray] | None = None,
    ) -> None:
        self.env = env
        self.context_space = context_space
        self.observation_space = spaces.Dict(observation=env.observation_space, context=ContextBox(context_space))
        self.action_space = env.action_space
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self._apply = apply
        self._draw = draw
        self._contexts = None if contexts is None else context_space.matrix(contexts)
        self._episode = 0
        self._action_scale = None if action_scale is None else context_space.index(action_scale)
        self.context = context_space.default
        self.family: Family | None = None

    @property
    def physics(self) -> Physics:
        """The dynamics as functions on tensors.

        :raises ValueError: where there are none.
        """
        if self.family is None:
            raise ValueError("this ContextEnv was made by no family")
        return self.family.physics()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode in the next context; ``options={"context": {...}}`` sets it, the rest at default."""
        super().reset(seed=seed)
        if seed is not None:
            # The inner environment draws its initial states from this seed: keep our draws apart from them.
            self.np_random = np.random.Generator(np.random.PCG64(seed).jumped())
            self._np_random_seed = seed
            self._episode = 0
        options = dict(options or {})
        if "context" in options:
            self.context = self.context_space.vector(options.pop("context"))
        elif self._contexts is not None:
            self.context = self._contexts[self._episode % len(self._contexts)]
        else:
            self.context = self.context_space.sample("train", 1, self.np_random)[0]
        self._episode += 1
        relevant = self.context_space.relevant
        self._apply(self.env.unwrapped, relevant.as_dict(self.context[: len(relevant)]))
        observation, info = self.env.reset(seed=seed, options=options or None)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Take one step; the reward and the ends of the episode are the inner environment's."""
        if self._action_scale is not None:
            box = self.action_space
            action = np.clip(action, box.low, box.high) * float(self.context[self._action_scale])  # pyright: ignore
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """Draw the environment in its context; ``render_mode="rgb_array"`` gives an array (height, width, 3)."""
        if self.render_mode == "rgb_array" and self._draw is not None:
            state: Any = self.env.unwrapped
            return self._draw(np.asarray(state.state, dtype=np.float64), self.context_space.as_dict(self.context))
        return self.env.render()

    def close(self) -> None:
        """Close the inner environment."""
        self.env.close()

    def _observe(self, observation: Any) -> dict[str, np.ndarray]:
        return {"observation": observation, "context": self.context.astype(np.float32)}


class Family:
    """One environment over a context space; see :func:`load_family`."""

    def __init__(self, spec: FamilySpec) -> None:
        self.spec = spec
        self._env_spec = EnvSpec(spec.definition.id, entry_point=self._context_env, **_registration(spec.definition))

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

    @property
    def plane(self) -> tuple[str, str]:
        """The two features over which a picture of the returns is drawn."""
        x, y = self.spec.definition.plane
        return x, y

    def physics(self) -> Physics:
        """Load the family's dynamics as functions on tensors.

        :raises ValueError: where it has none, or they need a feature that it lacks.
        """
        from hyperrl import physics
        from hyperrl.simulator import check_features

        try:
            if self.spec.definition.physics is None:
                raise ValueError("the family has no 'physics'")
            loaded = physics.load(self.spec.definition.physics)
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
            from hyperrl.batched import BatchedVecEnv
            from hyperrl.simulator import Simulator

            limit = self._env_spec.max_episode_steps
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

    def _context_env(self, contexts: Vector | None = None, **kwargs: Any) -> ContextEnv:
        env = self._bare_context_env(contexts, **kwargs)
        env.family = self
        return env

    def _bare_context_env(self, contexts: Vector | None, **kwargs: Any) -> ContextEnv:
        draw = None
        if kwargs.get("render_mode") == "rgb_array":
            from hyperrl.rendering import DRAWINGS

            draw = DRAWINGS.get(self.spec.definition.physics or "")
        if self.spec.definition.base is None:
            from hyperrl.physics_env import PhysicsEnv

            env = PhysicsEnv(self.physics(), **kwargs)
            return ContextEnv(env, self.context_space, _set_context, contexts, draw=draw)
        env = gym.make(self.spec.definition.base, disable_env_checker=True, **kwargs).unwrapped
        for attribute in self.spec.attributes:
            if not hasattr(env, attribute):
                known = [name for name in dir(env) if not name.startswith("_")]
                raise ValueError(
                    f"{self.spec.source}: {self.spec.definition.base} has no attribute {attribute!r}."
                    f"{nearest(attribute, known)}"
                )
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


def stream(seed: int) -> int:
    """Spread a user's seed over the integers: environments numbered from it do not meet those of ``seed + 1``.

    :raises ValueError: for a negative one.
    """
    check_seed(seed)
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) // 2


def make_registered(family: str, context: Mapping[str, float] | None = None, **kwargs: Any) -> ContextEnv:
    """Make the environment behind a registered Gymnasium id, without its time limit."""
    loaded = load_family(family)
    contexts = None if context is None else loaded.context_space.vector(context)[None]
    return loaded._context_env(contexts, **kwargs)


def register() -> None:
    """Register every family of the catalogue with Gymnasium."""
    for name in names("envs"):
        definition = family_spec(name).definition
        gym.register(
            definition.id,
            entry_point=f"{__name__}:make_registered",
            vector_entry_point=None if definition.physics is None else "hyperrl.vector:make_registered",
            kwargs={"family": name},
            **_registration(definition),
        )


def _registration(definition: FamilyDefinition) -> dict[str, Any]:
    """Return what Gymnasium's registry says of a family beside its id: the base's, unless the file says otherwise."""
    base = None if definition.base is None else gym.spec(definition.base)
    steps = definition.max_episode_steps or (None if base is None else base.max_episode_steps)
    return dict(max_episode_steps=steps, reward_threshold=None if base is None else base.reward_threshold)


def _set_context(env: Any, context: Mapping[str, float]) -> None:
    env.context = context
