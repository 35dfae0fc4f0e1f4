"""A learnt model of a family's dynamics, by which to identify a context where the family has no physics."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from hyperrl.adaptation.identification import SHARP, Identified, Transitions, identify
from hyperrl.contexts import ContextSpace, Vector, latin_hypercube
from hyperrl.hypernet import HyperNetwork, mlp
from hyperrl.rollouts.agent import Acting, Agent, RandomActions
from hyperrl.rollouts.loop import rollout
from hyperrl.utils.devices import find_device

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.families.family import Family

ENVS: Final = 64
WIDTHS: Final = (128, 128)
BATCH: Final = 1024
PEAK: Final = 3e-3  # learning rate
HELD_OUT: Final = 16  # contexts to judge the uncertainty by
MOST: Final = 50.0  # standard errors: what one held-out context can add to an inflation


class Dynamics(nn.Module):
    """Predicts the next observation and the reward, in each context, by a network that a hypernetwork generates.

    :param observation: the observations, a vector.
    :param action: the actions, a box or a discrete space.
    :param space: the context space, without irrelevant features.
    :raises ValueError: for other spaces.
    """

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any], space: ContextSpace) -> None:
        super().__init__()
        if not isinstance(observation, spaces.Box) or len(observation.shape) != 1:
            raise ValueError(f"expected observations that are a vector, to learn their dynamics, got {observation}")
        if not isinstance(action, spaces.Box | spaces.Discrete):
            raise ValueError(f"expected actions of a Box or a Discrete space, to learn dynamics, got {action}")
        self.choices = int(action.n) if isinstance(action, spaces.Discrete) else 0
        self.first = int(action.start) if isinstance(action, spaces.Discrete) else 0
        inputs = observation.shape[0] + (self.choices or int(np.prod(action.shape or ())))
        outputs = observation.shape[0] + 1
        target = mlp([inputs, *WIDTHS, outputs], nn.SiLU)
        self.network = HyperNetwork(len(space), target, rank=16, embedding=(64, 32))
        self.middle = nn.Buffer(torch.tensor((space.high + space.low) / 2, dtype=torch.float32))
        self.width = nn.Buffer(torch.tensor((space.high - space.low) / 2, dtype=torch.float32))
        self.input_mean, self.input_std = nn.Buffer(torch.zeros(inputs)), nn.Buffer(torch.ones(inputs))
        self.output_mean, self.output_std = nn.Buffer(torch.zeros(outputs)), nn.Buffer(torch.ones(outputs))
        self.inflation: Vector = np.ones(len(space))
        """By how much errors in contexts held out exceeded the standard deviation, or 1, shape ``(d,)``."""

    def forward(self, observation: Tensor, action: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """Predict each of o observed numbers after a step, and the reward: ``(n, o), (n, *a), (n, d) -> (n,), …``."""
        change = self._normalized(observation, action, context) * self.output_std + self.output_mean  # (n, o + 1)
        return *(observation + change[:, :-1]).unbind(1), change[:, -1]

    def identify(self, transitions: Transitions, space: ContextSpace, seed: int = 0) -> Identified:
        """Find a context as :func:`~hyperrl.adaptation.identification.identify` does.

        The model's own errors do not average out over transitions. So standard deviations are multiplied by how much
        too small they were in contexts that the model was not trained in.
        """
        found = identify(self, transitions, space, seed)
        std, prior = found.std.copy(), (space.high - space.low) / 2
        std[: len(self.inflation)] *= self.inflation
        return replace(found, std=np.minimum(std, prior), identified=found.identified & (std < SHARP * prior))

    def learn(self, contexts: Vector, seen: Transitions, steps: int, seed: int, bar: Any) -> None:
        """Fit to transitions, the context of each given ``(n, d)``, by Adam."""
        device = self.middle.device
        given = (seen.observation, seen.action, contexts, seen.following, seen.reward[:, None])
        observation, action, context, following, reward = (torch.as_tensor(part, device=device) for part in given)
        observation, context, following, reward = (x.float() for x in (observation, context, following, reward))
        outputs = torch.cat([following - observation, reward], dim=1)
        for name, x in (("input", self._inputs(observation, action)), ("output", outputs)):
            setattr(self, f"{name}_mean", x.mean(0))
            setattr(self, f"{name}_std", x.std(0).clamp(min=1e-6))
        target = (outputs - self.output_mean) / self.output_std
        adam = torch.optim.Adam(self.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, PEAK, steps)
        draw = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            batch = torch.randint(len(target), (BATCH,), generator=draw).to(device)
            predicted = self._normalized(observation[batch], action[batch], context[batch])
            loss = (predicted - target[batch]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            bar.update()

    def _inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        """Lay observation and action side by side, a choice as one-hot."""
        if self.choices:
            action = nn.functional.one_hot(action.long() - self.first, self.choices)
        return torch.cat([observation, action.flatten(1).to(observation)], dim=1)

    def _normalized(self, observation: Tensor, action: Tensor, context: Tensor) -> Tensor:
        inputs = (self._inputs(observation, action) - self.input_mean) / self.input_std
        return self.network((context - self.middle) / self.width, inputs)


def learn_dynamics(
    family: Family,
    model: BaseAlgorithm | None = None,
    transitions: int = 100_000,
    steps: int = 3000,
    seed: int = 0,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> Dynamics:
    """Learn the dynamics of a family from its own environments, in contexts all over the outer bounds.

    Half of the environments take uniformly random actions, the others those of the model, sampled.

    :param family: the family, with or without ``physics``.
    :param model: an agent of the family; without one, all actions are random.
    :param transitions: how many to see, each about as many times as ``1024 * steps / transitions``.
    :param steps: of the optimiser.
    :param seed: seed of contexts, actions and learning.
    :param device: where to learn: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param progress: show a progress bar.
    :return: the model, in double precision on the cpu, for ``hyperrl.adapt(..., dynamics=...)``.
    :raises ValueError: for observations or actions of other kinds than :class:`Dynamics` takes, or too few transitions.

    >>> from hyperrl import load_family
    >>> dynamics = learn_dynamics(load_family("ode"), transitions=3_300, steps=10)
    >>> [x.shape for x in dynamics(torch.zeros(5, 1), torch.zeros(5, 2), torch.ones(5, 2))]
    [torch.Size([5]), torch.Size([5])]
    """
    from stable_baselines3.common.utils import set_random_seed
    from tqdm import tqdm

    place = find_device(device)
    space = family.context_space
    relevant = space.relevant
    rng = np.random.default_rng(seed)
    contexts = space.from_uniform(latin_hypercube(max(transitions // 100, ENVS), len(space), rng), bounds=True)
    set_random_seed(seed)
    vec_env = family.vec_env(ENVS, contexts=contexts, seed=seed)
    assert isinstance(vec_env.observation_space, spaces.Dict)  # families make no others
    dynamics = Dynamics(vec_env.observation_space["observation"], vec_env.action_space, relevant)
    bar = tqdm(total=transitions // ENVS + steps, disable=not progress, desc="learn dynamics")
    with closing(vec_env), bar:
        context, seen = _collect(vec_env, model, transitions // ENVS, seed, bar)
        _, episode = np.unique(context, axis=0, return_inverse=True)
        context = context[:, : len(relevant)]
        held_out = rng.permutation(episode.max() + 1)[:HELD_OUT]
        kept = ~np.isin(episode, held_out)
        if kept.sum() < BATCH:
            raise ValueError(f"expected more transitions, of more than {2 * HELD_OUT} contexts, got {transitions}")
        dynamics = dynamics.to(place)
        dynamics.learn(context[kept], seen.rows(kept), steps, seed, bar)
        dynamics = dynamics.double().cpu().requires_grad_(False)
    excess = []
    for i in held_out:
        rows = episode == i
        found = identify(dynamics, seen.rows(rows), relevant, seed)
        excess.append((found.context - context[rows][0]) / found.std)
    dynamics.inflation = np.maximum(np.sqrt(np.mean(np.clip(excess, -MOST, MOST) ** 2, axis=0)), 1.0)
    return dynamics


class _HalfRandom:
    """Acts at random in the first half of the environments, as an agent does in the second.

    :param random: random actions for all of them.
    :param agent: the agent of all of them.
    """

    def __init__(self, random: Agent, agent: Agent) -> None:
        self.random = random
        self.agent = agent

    def reset(self) -> None:
        self.random.reset()
        self.agent.reset()

    def act(self, observation: Any, starts: NDArray[np.bool_], rewards: NDArray[Any] | None = None) -> NDArray[Any]:
        actions = self.random.act(observation, starts)
        actions[ENVS // 2 :] = self.agent.act(observation, starts, rewards)[ENVS // 2 :]
        return actions


def _collect(
    vec_env: VecEnv, model: BaseAlgorithm | None, steps: int, seed: int, bar: Any
) -> tuple[Vector, Transitions]:
    """Play, and return the context of each transition ``(n, d)`` and the transitions."""
    space = vec_env.observation_space
    random = Agent(RandomActions(vec_env.action_space, ENVS, seed), space)
    agent: Acting = random
    if model is not None:
        agent = _HalfRandom(random, Agent(model, space, deterministic=False))
    parts = []
    for step in islice(rollout(agent, vec_env), steps):
        before, after = step.observation, step.reached
        parts.append((before["context"], before["observation"], step.actions, step.rewards, after["observation"]))
        bar.update()
    context, *rows = map(np.concatenate, zip(*parts, strict=True))
    return context.astype(np.float64), Transitions(*rows)
