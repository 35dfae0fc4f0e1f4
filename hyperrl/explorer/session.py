"""What the page shows, without the page: agents that act side by side in one context, from one start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from numpy.typing import ArrayLike

from hyperrl.contexts import Feature, Vector
from hyperrl.families.context_env import CONTEXT, ContextEnv
from hyperrl.families.family import Family
from hyperrl.inference import Belief, InferringAgent
from hyperrl.rollouts.agent import Agent, Predictor

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.physics.canvas import Canvas, Frame

SPLIT_SIZE: Final = 20
"""Of how many contexts of a split one is drawn."""
MUJOCO_KICK: Final = 1.0
"""What a push adds to the first velocity of a MuJoCo body, in m/s or rad/s."""


@final
class Lane:
    """One agent in an environment of its own.

    :param name: of the agent.
    :param model: the agent; one that infers its context shows what it believes.
    :param family: the family.
    """

    def __init__(self, name: str, model: BaseAlgorithm | Predictor, family: Family) -> None:
        self.name = name
        self.model = model
        self.env = family.make(render_mode="rgb_array")
        self.agent = Agent(model, self.env.observation_space)
        self.returns: list[float] = [0.0]
        """The return before each step so far, and now."""
        self.reward = 0.0
        """Of the last step."""
        self.is_over = False
        self.fault: str | None = None
        """Why the episode cannot go on, where the state diverged."""

    @property
    def steps(self) -> int:
        """How many steps the episode has had."""
        return len(self.returns) - 1

    @property
    def context_env(self) -> ContextEnv:
        """The environment without its time limit."""
        return self.env.unwrapped  # pyright: ignore[reportReturnType]

    def begin(self, seed: int, context: Vector) -> None:
        """Begin an episode: the same seed gives the same start in the same context."""
        self.observation, _ = self.env.reset(seed=seed, options={CONTEXT: context})
        self.agent.reset()
        self.returns, self.reward, self.is_over, self.fault = [0.0], 0.0, False, None
        self.set_context(context)

    def set_context(self, context: Vector) -> None:
        """Change the context from the next step on; the state goes on as it is."""
        self.context_env.set_context(context)
        self.observation = {**self.observation, CONTEXT: context.astype(np.float32)}
        if isinstance(self.model, InferringAgent) and self.model.told is not None:
            self.model.told = context

    def step(self) -> None:
        """Let the agent act once, unless its episode is over."""
        if self.is_over:
            return
        rows = {name: np.asarray(entry)[None] for name, entry in self.observation.items()}
        rewards = np.array([self.reward]) if self.steps else None
        action = self.agent.act(rows, np.array([self.steps == 0]), rewards)[0]
        try:
            self.observation, reward, terminated, truncated, _ = self.env.step(action)
        except ValueError as error:  # a state that diverges
            self.is_over, self.fault = True, str(error)
            return
        self.reward = float(reward)
        self.returns.append(self.returns[-1] + self.reward)
        self.is_over = terminated or truncated

    @property
    def can_be_pushed(self) -> bool:
        """Whether :meth:`push` does anything."""
        return self._is_mujoco or bool(self._kick)

    def push(self) -> None:
        """Kick the state; the agent sees it after its next step."""
        inner: Any = self.context_env.env.unwrapped
        if self._is_mujoco:
            velocities = inner.data.qvel.copy()
            velocities[0] += MUJOCO_KICK
            inner.set_state(inner.data.qpos.copy(), velocities)
        elif self._kick:
            inner.state = np.asarray(inner.state, dtype=np.float64) + self._kick

    def draw(self) -> Canvas | Frame:
        """Draw the environment, as shapes or as pixels.

        :raises ValueError: where it cannot be drawn.
        """
        return self.context_env.draw()

    @property
    def given(self) -> Vector:
        """The context that the agent is given, ``(d,)``: the true one, or what it inferred at its last step."""
        belief = self.belief() if isinstance(self.model, InferringAgent) and self.model.told is None else None
        return self.context_env.context if belief is None else belief.context.double().numpy()

    def belief(self) -> Belief | None:
        """Return what the agent believed of the context when it last acted, each part ``(d,)``, if it infers it."""
        if not isinstance(self.model, InferringAgent) or self.agent.memory is None:
            return None
        return Belief(*(part[0] for part in self.model.belief(self.agent.memory)))

    @property
    def _is_mujoco(self) -> bool:
        inner: Any = self.context_env.env.unwrapped
        return hasattr(inner, "set_state") and hasattr(getattr(inner, "data", None), "qvel")

    @property
    def _kick(self) -> tuple[float, ...]:
        family, inner = self.context_env.family, self.context_env.env.unwrapped
        is_known = family is not None and family.has_physics and hasattr(inner, "state")
        return family.physics().kick if is_known else ()  # pyright: ignore[reportOptionalMemberAccess]


@final
class Session:
    """Agents that act side by side in one context, from one start.

    :param family: the family.
    :param agents: name = agent.
    :param seed: of the first start, and of the contexts that :meth:`surprise` draws.
    :raises ValueError: for agents of other observations.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("pendulum")
    >>> session = Session(family, {"hyper": PPO(HyperPolicy, family.vec_env(2), device="cpu")})
    >>> session.step()
    >>> session.set_feature("torque_gain", 0.1)  # the nearest in bounds
    0.3
    >>> session.lanes[0].steps, session.context
    (1, array([10. ,  1. ,  1. ,  0.3]))
    """

    def __init__(self, family: Family, agents: Mapping[str, BaseAlgorithm | Predictor], seed: int = 0) -> None:
        self.family = family
        self.space: Final = family.context_space
        self.context: Vector = self.space.default
        self.start = seed
        """The seed of the start."""
        self.lanes = [Lane(name, _own(model), family) for name, model in agents.items()]
        self._rng = np.random.default_rng(seed)
        self.hide(False)
        self.restart()

    @property
    def is_over(self) -> bool:
        """Whether every episode is over."""
        return all(lane.is_over for lane in self.lanes)

    def step(self) -> None:
        """Let every agent act once whose episode is not over."""
        for lane in self.lanes:
            lane.step()

    def restart(self) -> None:
        """Begin an episode from the same start, in the context as it is."""
        for lane in self.lanes:
            lane.begin(self.start, self.context)

    def start_elsewhere(self) -> None:
        """Begin an episode from the next start."""
        self.start += 1
        self.restart()

    def push(self) -> None:
        """Kick every environment, all alike."""
        for lane in self.lanes:
            lane.push()

    def set_context(self, context: Mapping[str, float] | ArrayLike) -> None:
        """Change the context; the episodes go on, from the states that they are in.

        :raises ValueError: for a context out of bounds, before anything has changed.
        """
        self.context = self.space.vector(context)
        for lane in self.lanes:
            lane.set_context(self.context)

    def set_feature(self, name: str, value: float) -> float:
        """Change one feature to the value in bounds that is nearest, and return that."""
        i = self.space.index(name)
        context = self.context.copy()
        context[i] = nearest_in_bounds(self.space.features[i], value)
        self.set_context(context)
        return float(context[i])

    def surprise(self, split: str) -> None:
        """Change to a context drawn from a split.

        :raises ValueError: for a split that there is not.
        """
        contexts = self.space.sample(split, SPLIT_SIZE, self._rng)
        self.set_context(contexts[self._rng.integers(SPLIT_SIZE)])

    def hide(self, is_hidden: bool) -> None:
        """Let the agents that can infer their context act on what they infer, or on what they are told."""
        for lane in self.lanes:
            if isinstance(lane.model, InferringAgent):
                lane.model.told = None if is_hidden else self.context

    def close(self) -> None:
        """Close the environments."""
        for lane in self.lanes:
            lane.env.close()


def nearest_in_bounds(feature: Feature, value: float) -> float:
    """Return the value within a feature's bounds that is nearest to another.

    >>> gain = Feature("gain", "1", 1.0, train=((0.5, 2.0),), bounds=((-2.0, -0.5), (0.5, 2.0)))
    >>> nearest_in_bounds(gain, -0.2), nearest_in_bounds(gain, 0.7), nearest_in_bounds(gain, 9.0)
    (-0.5, 0.7, 2.0)
    """
    inside = [min(max(value, low), high) for low, high in feature.bounds]
    return min(inside, key=lambda candidate: abs(candidate - value))


def _own(model: BaseAlgorithm | Predictor) -> BaseAlgorithm | Predictor:
    """Return an agent that no other session tells its context; networks are shared."""
    return InferringAgent(model.model, model.estimator) if isinstance(model, InferringAgent) else model
