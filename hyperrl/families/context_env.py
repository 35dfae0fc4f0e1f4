"""One Gymnasium environment whose context varies."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from hyperrl.contexts import ContextBox, ContextSpace, Vector
from hyperrl.utils.errors import nearest

if TYPE_CHECKING:
    from hyperrl.families.family import Family
    from hyperrl.physics.base import Physics
    from hyperrl.physics.canvas import Canvas, Frame

CONTEXT: Final = "context"
"""The entry of observations and the option of ``reset`` that hold the context."""
_UNDRAWABLE: Final[dict[type, str]] = {}
"""Environments that could not be drawn, and why: MuJoCo ends the process if it is asked twice."""


class ContextEnv(gym.Env[Any, Any]):
    """A Gymnasium environment whose context is drawn at ``reset`` and observed.

    Observations are ``{"observation": the environment's own, "context": physical units, shape (d,)}``; where the
    environment's own are a ``Dict``, the context is one entry more, so that Stable-Baselines3 meets no Dict in a Dict.
    The context is, in this order: ``reset(options={"context": {...}})``, the next of ``contexts``, or a draw
    from the training range.

    :param env: the environment to vary.
    :param context_space: its features.
    :param apply: sets a context, a mapping from feature names to values, on the unwrapped environment.
    :param contexts: the contexts to go through, one an episode, round and round; shape ``(n, d)``.
    :param action_scale: the feature that multiplies the action, once clipped to the action space.
    :param draw: draws the unwrapped environment's attribute ``state`` in a context, for ``render_mode="rgb_array"``;
        the environment draws itself by default, where it has no such attribute and where this returns ``None``.
    :raises ValueError: where the environment's observations have an entry called ``context`` already, and for an
        ``action_scale`` where actions are not continuous.

    Other attributes and methods, such as ``compute_reward`` of an environment with goals, are the environment's.

    >>> from hyperrl import load_family
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
        draw: Callable[[np.ndarray, Mapping[str, float]], Canvas | Frame | None] | None = None,
    ) -> None:
        self.env = env
        self.context_space = context_space
        own = env.observation_space
        self._is_dict = isinstance(own, spaces.Dict)
        entries = own.spaces if isinstance(own, spaces.Dict) else {"observation": own}
        if CONTEXT in entries:
            raise ValueError(
                f"the environment's observations {list(entries)} have an entry {CONTEXT!r} already, where the family's "
                "context belongs: rename or remove it with a wrapper, such as gymnasium.wrappers:FilterObservation"
            )
        self.observation_space = spaces.Dict([*entries.items(), (CONTEXT, ContextBox(context_space))])
        self.action_space = env.action_space
        if action_scale is not None and not isinstance(env.action_space, spaces.Box):
            raise ValueError(f"'action_scale' multiplies continuous actions, the environment's are {env.action_space}")
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
        """Start an episode in the next context; ``options={"context": {...}}`` sets it, the rest at default.

        Other options are the inner environment's.

        :raises ValueError: for a context out of bounds, and an option whose name is nearly ``context``.
        """
        super().reset(seed=seed)
        if seed is not None:
            # The inner environment draws its initial states from this seed: keep our draws apart from them.
            self.np_random = np.random.Generator(np.random.PCG64(seed).jumped())
            self._np_random_seed = seed
            self._episode = 0
        options = dict(options or {})
        for name in options:
            if name != CONTEXT and difflib.get_close_matches(name, [CONTEXT], cutoff=0.85):
                raise ValueError(f"unknown option {name!r}.{nearest(name, [CONTEXT])}")
        if CONTEXT in options:
            self.context = self.context_space.vector(options.pop(CONTEXT))
        elif self._contexts is not None:
            self.context = self._contexts[self._episode % len(self._contexts)]
        else:
            self.context = self.context_space.sample("train", 1, self.np_random)[0]
        self._episode += 1
        self.set_context(self.context)
        observation, info = self.env.reset(seed=seed, options=options or None)
        return self._observe(observation), info

    def set_context(self, context: Vector) -> None:
        """Set the context from the next step on, shape ``(d,)``; the state of the environment stays as it is."""
        self.context = context
        relevant = self.context_space.relevant
        self._apply(self.env.unwrapped, relevant.as_dict(context[: len(relevant)]))

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Take one step; the reward and the ends of the episode are the inner environment's."""
        if self._action_scale is not None:
            box = self.action_space
            action = np.clip(action, box.low, box.high) * float(self.context[self._action_scale])  # pyright: ignore[reportAttributeAccessIssue]
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), reward, terminated, truncated, info

    def render(self) -> Any:
        """Draw the environment in its context; ``render_mode="rgb_array"`` gives an array (height, width, 3)."""
        drawn = self.draw()
        return drawn if isinstance(drawn, np.ndarray) or not hasattr(drawn, "frame") else drawn.frame()

    def draw(self) -> Any:
        """Draw the environment in its context, as a :class:`~hyperrl.physics.Canvas` where its physics draws shapes.

        :raises ValueError: where it cannot be drawn.
        """
        state = getattr(self.env.unwrapped, "state", None)
        if self.render_mode == "rgb_array" and self._draw is not None and state is not None:
            drawn = self._draw(np.asarray(state, dtype=np.float64), self.context_space.as_dict(self.context))
            if drawn is not None:
                return drawn
        kind = type(self.env.unwrapped)
        if kind not in _UNDRAWABLE:
            try:
                _follow(self.env.unwrapped)
                return self.env.render()
            except ValueError:
                raise
            except Exception as error:  # of many types: no screen, no OpenGL, a library that is missing
                _UNDRAWABLE[kind] = str(error)
        raise ValueError(
            f"{kind.__name__} cannot be drawn here: {_UNDRAWABLE[kind]}. MuJoCo draws with OpenGL; without a screen, "
            "set MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        )

    def close(self) -> None:
        """Close the inner environment."""
        self.env.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.env.get_wrapper_attr(name)

    def _observe(self, observation: Any) -> dict[str, np.ndarray]:
        entries = observation if self._is_dict else {"observation": observation}
        return {**entries, CONTEXT: self.context.astype(np.float32)}


def _follow(env: Any) -> None:
    """Look through the camera that follows MuJoCo's body: Gymnasium's stays, and the body runs out of the picture."""
    renderer = getattr(env, "mujoco_renderer", None)
    if renderer is None or renderer.camera_id != -1:
        return
    from hyperrl.physics.libmujoco import library

    mujoco = library()
    renderer.camera_id = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")  # -1 where there is none
