"""The environment that an agent adapts to: stepped one episode at a time, observed without its context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from hyperrl.adaptation.copies import copied
from hyperrl.adaptation.identification import Transitions
from hyperrl.contexts import ContextBox, ContextSpace, Vector
from hyperrl.export.specialization import plain_observation
from hyperrl.policies.context import context_extractor
from hyperrl.rollouts.agent import Acting, Agent, Predictor
from hyperrl.rollouts.loop import Tally, rollout
from hyperrl.utils.seeding import check_seed, stream

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.physics.base import Physics


class Episode(NamedTuple):
    """One episode."""

    return_: float
    """Undiscounted return."""
    steps: int
    """Its length."""
    transitions: Transitions
    """Its steps."""


class WithoutContext(VecEnvWrapper):
    """Environments whose context is taken out of what they observe.

    :param venv: environments that observe a Dict with the context, or no context at all.
    :param context_key: the context's entry.
    :param other_key: the sole other entry, which becomes the observation; ``None`` leaves a Dict of the others.
    :param expected: what the agent acts on besides the context.
    :raises ValueError: where what is left is not what the agent acts on.
    """

    def __init__(self, venv: VecEnv, context_key: str, other_key: str | None, expected: spaces.Space[Any]) -> None:
        self.context_key = context_key
        self.other_key = other_key
        space = venv.observation_space
        if isinstance(space, spaces.Dict):
            others = {key: entry for key, entry in space.spaces.items() if key != context_key}
            space = others.get(other_key, space) if other_key is not None else spaces.Dict(others)
        if space != expected:
            raise ValueError(
                f"expected an environment that observes {expected}, with or without an entry {context_key!r}, "
                f"got {venv.observation_space}"
            )
        super().__init__(venv, observation_space=space)

    def reset(self) -> VecEnvObs:
        """Begin an episode in every environment."""
        return self.strip(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step."""
        observation, rewards, dones, infos = self.venv.step_wait()
        infos = list(infos)  # some give a tuple
        for i in np.flatnonzero(dones):
            infos[i] = infos[i] | {"terminal_observation": self.strip(infos[i]["terminal_observation"])}
        return self.strip(observation), rewards, dones, infos

    def strip(self, observation: Any) -> Any:
        """Return an observation without its context."""
        if not isinstance(self.venv.observation_space, spaces.Dict):
            return observation
        if self.other_key is not None:
            return observation[self.other_key]
        return {key: entry for key, entry in observation.items() if key != self.context_key}


class AdaptationEnv:
    """One environment to adapt to, and others like it to measure in.

    What the environments say of their context is read by :meth:`observed_context` and by nothing else.

    :param model: the agent that is to adapt.
    :param env: a Gymnasium environment, or a ``VecEnv`` of one.
    :param eval_env: environments of the same context to measure in, any number; a copy of ``env`` by default, see
        :func:`~hyperrl.adaptation.copies.copied`.
    :param evaluations: how many episodes a measurement takes.
    :param seed: seed of initial states; those of measurements are always the same ones.
    :raises ValueError: for an agent that reads no context from a Dict, environments that it does not fit or that do
        not copy, or a negative seed.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        env: gym.Env[Any, Any] | VecEnv,
        eval_env: gym.Env[Any, Any] | VecEnv | None = None,
        evaluations: int = 10,
        seed: int = 0,
    ) -> None:
        extractor = context_extractor(model.policy)
        if extractor is None or extractor.reader.slice is not None:
            raise ValueError(
                "expected a model that reads its context from a Dict observation, got one with "
                f"{type(model.policy).__name__} that observes {model.observation_space}"
            )
        if evaluations < 1:
            raise ValueError(f"expected at least one episode to evaluate by, got evaluations={evaluations}")
        check_seed(seed)
        self.model = model
        self.reader = extractor.reader
        self.context_key = extractor.reader.key
        space, self.other_key, _ = plain_observation(model.policy, extractor)
        played = _vectorized(env)
        measured = copied(played) if eval_env is None else _vectorized(eval_env)
        self.env, self.eval_env = (
            WithoutContext(e, self.context_key, self.other_key, space) for e in (played, measured)
        )
        if self.env.num_envs != 1:
            raise ValueError(f"adaptation plays one episode after the other: expected one env, got {self.env.num_envs}")
        self.evaluations = evaluations
        self.seed = seed
        self.observation: Any = None

    def observed_context(self) -> Vector:
        """Return the context that the environment itself observes, shape ``(d,)``, physical units.

        :raises ValueError: where it observes none.
        """
        space = self.env.venv.observation_space
        if not isinstance(space, spaces.Dict) or self.context_key not in space.spaces:
            raise ValueError("the environment does not observe its context: give it as context=..., or do without it")
        observation: Any = self.env.venv.reset()
        # In its shortest decimal form: 0.6 in single precision is 0.60000002, which a bound of 0.6 would refuse.
        return np.array([float(str(value)) for value in observation[self.context_key][0]])

    @property
    def context_space(self) -> ContextSpace:
        """The features that the agent knows, with their bounds.

        :raises ValueError: where it was trained on a context that carries none.
        """
        if not isinstance(self.reader.box, ContextBox):
            raise ValueError(
                "the model's context has no names and no bounds, since it was trained on no ContextBox, so there is "
                "nothing to search in"
            )
        return self.reader.box.context_space

    def physics(self) -> Physics:
        """Return the dynamics of the environment's family.

        :raises ValueError: where the environment is of no family, or one without physics.
        """
        try:
            return self.env.get_attr("physics")[0]
        except (AttributeError, ValueError) as error:
            raise ValueError(
                "method 'identify' needs an environment of a family with 'physics', made by family.make() or "
                "family.vec_env(), or family=..., whose physics the environment follows, or "
                f"dynamics=hyperrl.adaptation.dynamics.learn_dynamics(family): {error}"
            ) from None

    def begin(self) -> None:
        """Begin the episodes of adaptation, with initial states that depend on the seed alone."""
        self.env.seed(adaptation_stream(self.seed))
        self.observation = self.env.reset()

    def play(self, agent: Acting) -> Episode:
        """Play the next episode of adaptation."""
        seen = []
        for step in rollout(agent, self.env, self.observation):
            seen.append((_flat(step.observation), step.actions[0], float(step.rewards[0]), _flat(step.reached)))
            if step.dones[0]:
                self.observation = step.following
                break
        before, action, reward, after = zip(*seen, strict=True)
        transitions = Transitions(np.array(before), np.array(action), np.array(reward), np.array(after))
        return Episode(sum(reward), len(reward), transitions)

    def measure(self, agent: Acting) -> tuple[Vector, Vector]:
        """Return the returns of evaluation episodes ``(evaluations,)``, and their mean return up to each step ``(T,)``.

        An episode that has ended earns no more.
        """
        returns, rewards, n = [], [], self.eval_env.num_envs
        for begun in range(0, self.evaluations, n):
            self.eval_env.seed(stream(self.seed) + begun)
            tally = Tally(min(n, self.evaluations - begun))
            earned = []
            for step in rollout(agent, self.eval_env):
                tally.add(step)
                earned.append(tally.returns[:, 0].copy())
                if not tally.playing.any():
                    break
            returns.append(tally.returns[:, 0])
            rewards.append(np.array(earned).T)  # (rows, T)
        longest = max(part.shape[1] for part in rewards)
        padded = [np.pad(part, ((0, 0), (0, longest - part.shape[1])), "edge") for part in rewards]
        return np.concatenate(returns), np.concatenate(padded).mean(axis=0)

    def given(self, context: Vector | None, deterministic: bool = True) -> Agent:
        """Return the agent that is given a context, shape ``(d,)``, or none."""
        return Agent(self.model, self.env.observation_space, context, deterministic, self.context_key)

    def plain(self, model: BaseAlgorithm | Predictor) -> Agent:
        """Return an agent that observes no context and takes its most likely actions."""
        return Agent(model, self.env.observation_space)


def adaptation_stream(seed: int) -> int:
    """Return a seed for the episodes of adaptation, apart from that of the measurements."""
    return stream(seed) ^ 0x5EED


def _flat(observation: Any) -> np.ndarray:
    """Lay what one environment observes, a row or a Dict of rows, out as a vector."""
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return np.concatenate([np.ravel(part) for part in parts])


def _vectorized(env: gym.Env[Any, Any] | VecEnv) -> VecEnv:
    return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
