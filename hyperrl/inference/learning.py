"""Learning an estimator from the episodes that an agent plays under its own estimates."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyperrl.families.switching import switch_steps
from hyperrl.inference.agent import InferringAgent, Memory, check_features, reader_of
from hyperrl.inference.estimator import Estimator
from hyperrl.inference.record import STEPS, SWITCH, Learning
from hyperrl.rollouts.loop import rollout
from hyperrl.utils.devices import find_device
from hyperrl.utils.seeding import stream

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from hyperrl.families.family import Family
    from hyperrl.families.switching import Switch

ENVS: Final = 256  # more where episodes are short, so that a round has as many steps
LONGEST: Final = 200  # steps of a sequence
KEPT: Final = 15  # rounds whose sequences are learnt from
SHORT: Final = 50  # steps of the sequences of most updates, as what follows a new context matters most and costs least
UPDATES: Final = 12  # a round, by whole sequences
SHORT_UPDATES: Final = 36  # a round, by parts of them
SEQUENCES: Final = 64  # of a minibatch
PEAK: Final = 3e-3  # learning rate
EARLY: Final = 20.0  # steps after which a step counts half as much as the first in its context
CLIP: Final = 1.0  # norm of gradients


class Sequences(NamedTuple):
    """``T`` steps of ``n`` environments, of one round."""

    observation: Tensor  # (T, n, o)
    reward: Tensor  # the last one, NaN where it is unknown, (T, n, 1)
    last: Tensor  # the last observation, (T, n, o)
    action: Tensor  # the last action, (T, n, a)
    begun: Tensor  # (T, n, 1)
    starts: Tensor  # bool, (T, n)
    context: Tensor  # (T, n, d)
    age: Tensor  # steps taken in the context before, (T, n)
    memory: Tensor  # before the first step of each part of SHORT steps, (T / SHORT, n, h)
    sums: Tensor  # likewise, (T / SHORT, n, k (k + o))

    def of(self, rows: Tensor, steps: int, part: int = 0) -> Sequences:
        """Return some steps of the sequences of some environments, from the beginning of a part."""
        *all_steps, memory, sums = self
        of = slice(part * SHORT, part * SHORT + steps)
        before = (kept[part : part + 1, rows] for kept in (memory, sums))
        return Sequences(*(values[of, rows] for values in all_steps), *before)


class _Player:
    """Plays as an agent does, and keeps what its estimator read.

    Half of the environments do not tell their rewards, so that the estimator learns to do without.

    :param agent: who acts.
    """

    def __init__(self, agent: InferringAgent) -> None:
        self.agent = agent
        self.memory: Memory | None = None
        self.age = np.float32(0)
        self.context: np.ndarray | None = None
        self.kept: list[tuple[np.ndarray, ...]] = []
        self.before: list[tuple[np.ndarray, ...]] = []  # memory and sums before each part of what is kept

    def reset(self) -> None:
        self.memory, self.kept, self.before = None, [], []

    def act(self, observation: Any, starts: np.ndarray, rewards: np.ndarray | None = None) -> np.ndarray:
        n = len(starts)
        known = np.full(n, np.nan, dtype=np.float32)
        if rewards is not None:
            known[: n // 2] = rewards[: n // 2]
        parts = self.agent.estimator.parts
        before = np.zeros((n, sum(parts)), np.float32) if self.memory is None else self.memory.state
        before = np.where(starts[:, None], np.float32(0), before)
        context = observation[self.agent.reader.key]
        changed = starts if self.context is None else starts | (context != self.context).any(axis=1)
        self.age = np.where(changed, np.float32(0), self.age + np.float32(1))
        self.context = context.copy()
        actions, self.memory = self.agent.predict(observation, self.memory, starts, deterministic=True, reward=known)
        memory, sums, last, action, begun = np.split(before, np.cumsum(parts)[:-1], axis=1)
        present = np.split(self.memory.state, np.cumsum(parts)[:-1], axis=1)[2]
        if len(self.kept) % SHORT == 0:
            self.before.append((memory, sums))
        kept = (present, known[:, None], last, action, begun, starts, context, self.age)
        self.kept.append(tuple(part.copy() for part in kept))
        return actions

    def sequences(self) -> Sequences:
        """Return what was kept, and keep no more of it."""
        device = self.agent.estimator.mean.device
        kept = [np.stack(part) for part in zip(*self.kept, strict=True)]
        kept += [np.stack(part) for part in zip(*self.before, strict=True)]
        self.kept, self.before = [], []
        return Sequences(*(torch.as_tensor(part, device=device) for part in kept))


def infer_context(
    model: BaseAlgorithm,
    family: Family,
    steps: int = STEPS,
    seed: int = 0,
    *,
    contexts: str = "train",
    switch: Switch = SWITCH,
    device: str = "cpu",
    progress: bool = False,
) -> InferringAgent:
    """Learn to infer a model's context while it acts, so that it can do without being told.

    A recurrent network learns, by maximum likelihood, what the context is from episodes that the model plays under the
    network's own estimates, as they are by then (Kumar et al. 2021 distil a context so). The model stays as it is.

    :param model: a model that reads the context of the family, of any algorithm.
    :param family: where it plays.
    :param steps: environment steps to learn from.
    :param seed: the same seed gives the same estimator.
    :param contexts: where they are drawn from: ``"train"``, the training range, or ``"bounds"``, all of the bounds.
    :param switch: after how many steps the context changes within an episode, see :meth:`hyperrl.Family.vec_env`, so
        that the estimator learns to notice; by default after a random number from 20 to 200; ``None`` for never.
    :param device: where the estimator is: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param progress: show a progress bar.
    :return: an agent that acts as a Stable-Baselines3 model does, on observations with or without the context.
    :raises ValueError: for a model that reads no context or other features than the family's, for observations that are
        no numbers, and for wrong arguments.

    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> family = load_family("double_integrator")
    >>> agent = infer_context(PPO(HyperPolicy, family.vec_env(2), device="cpu"), family, steps=1)
    >>> actions, memory = agent.predict(family.vec_env(3).reset())
    >>> agent.belief(memory).low.shape
    torch.Size([3, 2])
    """
    from tqdm import tqdm

    learning = Learning(steps, seed, contexts, switch_steps(switch))
    place = find_device(device)
    space = family.context_space
    reader = reader_of(model)
    check_features(reader, space)
    length = min(family.max_episode_steps or LONGEST, LONGEST)
    n_envs = ENVS * max(1, LONGEST // length)
    rounds = max(1, round(steps / (n_envs * length)))
    drawn = None
    if contexts == "bounds":
        episodes = n_envs * (rounds + 1)
        drawn = space.from_uniform(np.random.default_rng(seed).random((episodes, len(space))), bounds=True)
    vec_env = family.vec_env(n_envs, contexts=drawn, switch=switch, seed=stream(seed, 1))
    devices = [place] if place.type == "cuda" else []
    with (
        closing(vec_env),
        torch.random.fork_rng(devices),
        tqdm(total=rounds, disable=not progress, desc="infer") as bar,
    ):
        torch.manual_seed(seed)
        estimator = Estimator(reader.other_space, vec_env.action_space, space, bounds=contexts == "bounds").to(place)
        agent = InferringAgent(model, estimator, learning)
        _learn(agent, vec_env, rounds, length, switch is not None, bar)
    estimator.requires_grad_(False)
    return agent


def _learn(agent: InferringAgent, vec_env: VecEnv, rounds: int, length: int, switching: bool, bar: Any) -> None:
    """Play and learn in turn.

    Most updates see one part of sequences: the first, where episodes begin, or, if contexts switch, often another.
    """
    estimator = agent.estimator
    player = _Player(agent)
    adam = torch.optim.Adam(estimator.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, PEAK, rounds * (UPDATES + SHORT_UPDATES))
    seen: deque[Sequences] = deque(maxlen=KEPT)
    play: Any = None
    for i in range(rounds):
        if i % 2 == 0:  # long episodes are played on every other time, so that there are enough beginnings
            play = rollout(player, vec_env)
        for _ in islice(play, length):
            pass
        seen.append(player.sequences())
        if i == 0:
            _scale(estimator, seen[0])
        loss = torch.tensor(torch.nan)
        for steps in [length] * UPDATES + [SHORT] * SHORT_UPDATES:
            sequences = seen[int(torch.randint(len(seen), ()))]
            parts, n = sequences.memory.shape[:2]
            # Half of the time and more it is the first.
            part = max(0, int(torch.randint(-parts, parts, ()))) if switching and steps < length else 0
            batch = sequences.of(torch.randint(n, (SEQUENCES,)), steps, part)
            loss = loss_of(estimator, batch)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(estimator.parameters(), CLIP)
            adam.step()
            schedule.step()
        bar.set_postfix(likelihood=f"{-loss.item():.2f}")
        bar.update()


def loss_of(estimator: Estimator, batch: Sequences) -> Tensor:
    """Return minus the log likelihood of the contexts, a mean over steps, environments and features."""
    read, added = estimator.inputs(batch.observation, batch.reward, batch.last, batch.action, batch.begun)
    outputs = estimator.sequence(read, added, batch.starts, batch.memory[0], batch.sums[0])
    likelihood = estimator.beliefs.log_prob(outputs, batch.context).mean(-1)  # (T, n)
    weight = 1 / (1 + batch.age / EARLY)
    return -(weight * likelihood).sum() / weight.sum()


def _scale(estimator: Estimator, seen: Sequences) -> None:
    """Set the statistics by which the estimator scales what it reads."""
    begun = seen.begun[..., 0] > 0
    change = (seen.observation - seen.last)[begun]
    reward = seen.reward[begun & ~seen.reward[..., 0].isnan()]
    parts = (seen.observation.flatten(0, 1), change, reward)
    for name, kind in (("mean", torch.mean), ("std", torch.std)):
        values = torch.cat([kind(part, 0) for part in parts])
        getattr(estimator, name).copy_(torch.where(values > 1e-6, values, 1.0) if name == "std" else values)
