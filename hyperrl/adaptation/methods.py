"""Adaptation: how an agent fares in one environment that it has not seen, after 0, 1, 2, … episodes there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrl.adaptation.identification import Identified
from hyperrl.alignment.acting import find_aligned
from hyperrl.contexts import ContextBox, Vector
from hyperrl.inference.agent import InferringAgent
from hyperrl.utils.errors import nearest
from hyperrl.utils.extras import require

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.adaptation.dynamics import Dynamics
    from hyperrl.adaptation.environment import AdaptationEnv
    from hyperrl.families.family import Family
    from hyperrl.rollouts.agent import Acting

AFTER = (0, 1, 2, 5, 10, 20)
"""After how many episodes agents are measured."""
OF_MODELS = ("zero-shot", "search", "identify", "finetune", "scratch")
"""How a model can adapt."""
METHODS = (*OF_MODELS, "infer")
"""How an agent can adapt; the last is for one that :func:`hyperrl.infer_context` made of a model."""
NEED_CONTEXT = ("zero-shot", "finetune")
"""The methods that are given the true context."""
LEARNING = ("finetune", "scratch")
"""The methods that change weights, which takes an agent without memory."""


@dataclass(frozen=True)
class Curve:
    """How an agent fared in one environment, measurement by measurement.

    :param method: how the agent adapted.
    :param after: numbers of episodes after which it was measured, shape ``(k,)``.
    :param steps: environment steps that it had taken by then, shape ``(k,)``.
    :param returns: undiscounted returns of evaluation episodes then, played with its most likely actions, the same
        initial states every time, shape ``(k, evaluations)``.
    :param reported: the context that the agent was given, or that its weights began from, at each measurement, shape
        ``(k, d)``; ``None`` for ``scratch``, and for an agent that finds its context by itself.
    :param episode_returns: return of each episode played to adapt, shape ``(episodes,)``.
    :param identified: the last estimate of the context, by ``identify``.
    :param first_returns: the return up to each step of the evaluation episodes before any adaptation, a mean over
        episodes, shape ``(T,)``.
    """

    method: str
    after: NDArray[np.int64]
    steps: NDArray[np.int64]
    returns: Vector
    reported: Vector | None
    episode_returns: Vector
    identified: Identified | None
    first_returns: Vector | None = None

    def regret(self, best: float) -> Vector:
        """Return the cumulative regret ``(episodes,)`` against an agent whose return is ``best`` in each episode."""
        return np.cumsum(best - self.episode_returns)

    def reached(self, target: float) -> tuple[int, int] | None:
        """Return episodes and environment steps until the mean return was at least ``target``, ``None`` if never.

        It is known at the measurements only: the first of them counts.
        """
        above = np.flatnonzero(self.returns.mean(axis=1) >= target)
        return (int(self.after[above[0]]), int(self.steps[above[0]])) if len(above) else None


@dataclass(frozen=True)
class Adaptation(Curve):
    """What :func:`adapt` saw: the measurements, and the agent.

    :param model: the agent at the end. For ``finetune`` and ``scratch`` it is a plain one, for the others the agent
        itself, to be given the last context of ``reported``.
    """

    model: BaseAlgorithm = field(kw_only=True)

    @property
    def curve(self) -> Curve:
        """The measurements alone."""
        return Curve(**{entry.name: getattr(self, entry.name) for entry in fields(Curve)})


def adapt(
    model: BaseAlgorithm | InferringAgent,
    env: gym.Env[Any, Any] | VecEnv,
    method: str = "zero-shot",
    episodes: int = 20,
    *,
    context: Mapping[str, float] | ArrayLike | None = None,
    eval_env: gym.Env[Any, Any] | VecEnv | None = None,
    evaluations: int = 10,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] | None = None,
    proximal: float = 0.0,
    dynamics: Dynamics | None = None,
    family: Family | None = None,
) -> Adaptation:
    """Let an agent adapt to one environment, and measure it after 0, 1, 2, 5, 10 and 20 episodes there.

    ==============  ======================================================================================
    ``zero-shot``   is given the true context, and acts; nothing changes
    ``search``      is given the context that had the highest return so far, sought by CMA-ES
    ``identify``    is given the context that explains the transitions seen so far, by physics or ``dynamics``
    ``finetune``    begins as :func:`~hyperrl.specialize` leaves it in the true context, and learns on
    ``scratch``     the same algorithm and network from random weights, which tells what the agent is worth
    ==============  ======================================================================================

    An agent with an aligned context (:mod:`hyperrl.alignment`) plays ``zero-shot`` and is given nothing.
    ``search``, ``identify`` and ``scratch`` are for an unknown context: where the environment observes one, it is not
    looked at. The first episode of the first two is played in the default context. Actions are the most likely ones,
    but ``identify`` samples while it adapts, as it learns nothing from a motor that it never uses; so do the learners.

    :param model: an agent with a policy of :mod:`hyperrl.policies` on a Dict observation; for ``infer``, what
        :func:`hyperrl.infer_context` made of one, whose model the other methods take. It stays as it is.
    :param env: the environment, one: Gymnasium's or a ``VecEnv``, with or without the context in its observation.
    :param method: see above.
    :param episodes: how many it may play to adapt.
    :param context: the context, for ``zero-shot`` and ``finetune`` where the environment does not observe it, or where
        it is only thought to be so.
    :param eval_env: environments in the same context to measure in; a copy of ``env`` by default, where it can be
        copied. With as many as ``evaluations``, measuring is fastest.
    :param evaluations: episodes a measurement.
    :param seed: seed of initial states and learning: the same gives the same numbers. All methods meet the same initial
        states.
    :param hyperparameters: of the algorithm, to change for ``finetune`` and ``scratch``, such as ``dict(n_steps=200)``.
    :param proximal: for ``finetune``, how strongly weights are pulled back to where they began; see
        :func:`~hyperrl.adaptation.finetuning.pull_to_anchor`.
    :param dynamics: for ``identify``, what :func:`~hyperrl.adaptation.dynamics.learn_dynamics` has learnt, in place of
        the physics of the environment's family.
    :param family: for ``identify``, the family whose physics the environment follows, where it was made by none: a rig,
        or another simulation of the same.
    :raises ValueError: for an unknown method, environments that the agent does not fit or that do not copy, a context
        that is missing, or given where it is to be unknown, and for ``identify`` with neither physics nor dynamics.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("double_integrator")
    >>> model = PPO(HyperPolicy, family.vec_env(2), device="cpu")
    >>> env = family.make(context={"mass": 0.7, "action_factor": -1})
    >>> curve = adapt(model, env, "identify", episodes=1, evaluations=2)
    >>> curve.reported.round(3)
    array([[ 1. ,  1. ],
           [ 0.7, -1. ]])
    """
    from hyperrl.adaptation.environment import AdaptationEnv

    check_method(method)
    if episodes < 1:
        raise ValueError(f"expected at least one episode, got episodes={episodes}")
    if context is not None and method not in NEED_CONTEXT:
        raise ValueError(f"method {method!r} is for an unknown context, so it takes none")
    if (hyperparameters and method not in LEARNING) or (proximal and method != "finetune"):
        raise ValueError(f"method {method!r} learns no weights: hyperparameters and proximal are not for it")
    if dynamics is not None and method != "identify":
        raise ValueError(f"method {method!r} identifies no context: dynamics are not for it")
    if family is not None and (dynamics is not None or method != "identify"):
        raise ValueError("family=... is for method 'identify', in place of dynamics")
    inferring = model if isinstance(model, InferringAgent) else None
    model = model.model if isinstance(model, InferringAgent) else model
    if method == "infer" and inferring is None:
        raise ValueError(
            "method 'infer' is for an agent that infers its context: expected what "
            f"hyperrl.infer_context(model, family) returns, got {type(model).__name__}"
        )
    infers = find_aligned(model) is not None
    if infers and (method != "zero-shot" or context is not None):
        raise ValueError(
            "this agent finds its context by itself while it acts (hyperrl.alignment): the only method for it is "
            "'zero-shot', without a context"
        )
    environment = AdaptationEnv(model, env, eval_env, evaluations, seed)
    curve = _Measurements(environment, episodes)
    match method:
        case "zero-shot":
            return _zero_shot(curve, None if infers else _known(environment, context))
        case "infer" if inferring is not None:
            return _infer(curve, inferring)
        case "search":
            return _search(curve)
        case "identify":
            return _identify(curve, dynamics, family)
        case "finetune":
            return _finetune(curve, _known(environment, context), hyperparameters or {}, proximal)
        case _:
            return _scratch(curve, hyperparameters or {})


def check_method(method: str) -> None:
    """Refuse what is none of :data:`METHODS`, or needs a library that is not installed.

    :raises ValueError: with the nearest that is one, or what to install.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: the methods are {list(METHODS)}.{nearest(method, METHODS)}")
    if method == "search":
        require("method 'search'", "adapt", "cma")


def _known(environment: AdaptationEnv, context: Mapping[str, float] | ArrayLike | None) -> Vector:
    """Return the true context, shape ``(d,)``: the one given, else that which the environment observes."""
    from hyperrl.export.specialization import context_vector

    return context_vector(environment.reader, environment.observed_context() if context is None else context)


class _Measurements:
    """The measurements as they come in.

    :param environment: where the agent plays.
    :param episodes: how many it may play.
    """

    def __init__(self, environment: AdaptationEnv, episodes: int) -> None:
        self.environment = environment
        self.episodes = episodes
        self.after: list[int] = []
        self.steps: list[int] = []
        self.returns: list[Vector] = []
        self.reported: list[Vector] = []
        self.episode_returns: list[float] = []
        self.played = 0
        self.first_returns: Vector | None = None

    def measure(self, agent: Acting, reported: Vector | None = None) -> None:
        """Measure an agent as it stands, if it is time."""
        n = len(self.episode_returns)
        if n not in AFTER and n != self.episodes:
            return
        self.after.append(n)
        self.steps.append(self.played)
        returns, rewards = self.environment.measure(agent)
        self.returns.append(returns)
        if n == 0:
            self.first_returns = rewards
        if reported is not None:
            self.reported.append(reported)

    def add(self, episode_return: float, steps: int) -> None:
        """Take in an episode."""
        self.episode_returns.append(episode_return)
        self.played += steps

    def finish(self, method: str, model: BaseAlgorithm, identified: Identified | None = None) -> Adaptation:
        """Return the result."""
        after, steps, returns = np.array(self.after), np.array(self.steps), np.array(self.returns)
        reported = np.array(self.reported) if self.reported else None
        episodes = np.array(self.episode_returns)
        return Adaptation(
            method, after, steps, returns, reported, episodes, identified, self.first_returns, model=model
        )


def _zero_shot(curve: _Measurements, known: Vector | None) -> Adaptation:
    agent = curve.environment.given(known)
    curve.measure(agent, known)
    curve.environment.begin()
    for _ in range(curve.episodes):
        episode = curve.environment.play(agent)
        curve.add(episode.return_, episode.steps)
        curve.measure(agent, known)
    return curve.finish("zero-shot", curve.environment.model)


def _infer(curve: _Measurements, inferring: InferringAgent) -> Adaptation:
    environment = curve.environment
    agent = environment.plain(inferring)
    curve.measure(agent)
    environment.begin()
    for _ in range(curve.episodes):
        episode = environment.play(agent)
        curve.add(episode.return_, episode.steps)
        curve.measure(agent)
    return curve.finish("infer", environment.model)


def _search(curve: _Measurements) -> Adaptation:
    from hyperrl.adaptation.search import ContextSearch

    environment = curve.environment
    search = ContextSearch(environment.context_space, environment.seed)
    curve.measure(environment.given(search.best), search.best)
    environment.begin()
    for _ in range(curve.episodes):
        episode = environment.play(environment.given(search.ask()))
        search.tell(episode.return_)
        curve.add(episode.return_, episode.steps)
        curve.measure(environment.given(search.best), search.best)
    return curve.finish("search", environment.model)


def _identify(curve: _Measurements, dynamics: Dynamics | None, family: Family | None) -> Adaptation:
    from stable_baselines3.common.utils import set_random_seed

    from hyperrl.adaptation.identification import Transitions, check_gradients, identify

    environment = curve.environment
    space = environment.context_space
    if dynamics is None:
        physics = environment.physics() if family is None else family.physics()
        check_gradients(physics)
        fit = partial(identify, physics)
    else:
        fit = dynamics.identify
    set_random_seed(environment.seed)  # actions are sampled
    reported, found, seen = space.default, None, []
    curve.measure(environment.given(reported), reported)
    environment.begin()
    for _ in range(curve.episodes):
        episode = environment.play(environment.given(reported, deterministic=False))
        seen.append(episode.transitions)
        together: Any = map(np.concatenate, zip(*seen, strict=True))
        found = fit(Transitions(*together), space, environment.seed)
        reported = found.context
        curve.add(episode.return_, episode.steps)
        curve.measure(environment.given(reported), reported)
    return curve.finish("identify", environment.model, found)


def _finetune(curve: _Measurements, known: Vector, hyperparameters: Mapping[str, Any], proximal: float) -> Adaptation:
    from hyperrl.adaptation.finetuning import learner

    return _learn("finetune", curve, learner(curve.environment, known, hyperparameters), proximal, known)


def _scratch(curve: _Measurements, hyperparameters: Mapping[str, Any]) -> Adaptation:
    from hyperrl.adaptation.finetuning import learner

    reader = curve.environment.reader
    box = reader.box
    anywhere = box.context_space.default if isinstance(box, ContextBox) else reader.center.cpu().numpy()
    return _learn("scratch", curve, learner(curve.environment, anywhere, hyperparameters, fresh=True), 0.0, None)


def _learn(
    method: str, curve: _Measurements, plain: BaseAlgorithm, proximal: float, known: Vector | None
) -> Adaptation:
    from hyperrl.adaptation.finetuning import learn

    agent = curve.environment.plain(plain)
    curve.measure(agent, known)

    def after_episode(number: int, episode_return: float, steps: int) -> None:
        curve.add(episode_return, steps)
        curve.measure(agent, known)

    learn(plain, curve.environment.seed, curve.episodes, after_episode, proximal)
    return curve.finish(method, plain)
