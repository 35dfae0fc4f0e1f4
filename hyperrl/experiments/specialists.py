"""Specialists: agents trained in one context each, the best that a reference knows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperrl.contexts import SPLITS, Vector
from hyperrl.evaluation.reference import Reference, ReferenceSettings
from hyperrl.experiments.counting import CountSteps
from hyperrl.experiments.engines import Engine, LocalEngine, Task, gather
from hyperrl.families.family import Family
from hyperrl.rollouts.episodes import play, random_returns
from hyperrl.training.loop import train
from hyperrl.training.recipe import agent_spec
from hyperrl.training.record import Training
from hyperrl.training.run import Run
from hyperrl.utils.provenance import versions


def make_reference(
    family: Family,
    work: str | Path,
    agent: str | Path = "unaware-ppo",
    steps: int = 200_000,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    contexts: int = 20,
    episodes: int = 100,
    seeds: int = 1,
    engine: Engine | None = None,
    progress: bool = False,
) -> tuple[Reference, Vector]:
    """Measure the reference in the contexts that :func:`hyperrl.evaluate` plays with the same arguments.

    The best return is the optimum where the physics knows it (:meth:`Physics.optimum
    <hyperrl.physics.Physics.optimum>`), else that of a specialist, trained in that context alone. A training may fail:
    of several the one whose mean return is the highest is the specialist. Trainings run in parallel and leave run
    folders, so that an interrupted call goes on where it was, and one with more seeds has less to do.

    :param family: the family.
    :param work: folder for the specialists' run folders.
    :param agent: the specialists' recipe.
    :param steps: environment steps of each specialist.
    :param seed: seed of contexts, initial states and the first training.
    :param splits: the splits whose contexts to take.
    :param contexts: contexts per split.
    :param episodes: episodes per context.
    :param seeds: trainings in each context.
    :param engine: where trainings run; on this machine, one a core, by default.
    :param progress: show a progress bar.
    :return: the reference, and contexts left out of it: their specialist did not get clearly more than random.
    :raises ValueError: where none did, and where ``work`` holds other specialists.
    """
    if seeds < 1:
        raise ValueError(f"expected at least one training in each context, got seeds={seeds}")
    family = family.with_irrelevant(0)
    space = family.context_space
    points = np.unique(np.concatenate([space.sample(split, contexts, seed) for split in splits]), axis=0)
    random = random_returns(family, points, episodes, seed)  # (n, episodes)
    best = optimum(family, points)
    settings: dict[str, Any] = dict(seed=seed, splits=tuple(splits), contexts=contexts, episodes=episodes)
    if best is None:
        try:
            pickle.dumps(family)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"family {family.name!r} cannot be sent to the processes that train, which find its functions by "
                f"module and name: {error}"
            ) from None
        root = Path(work)
        tasks = [
            Task(
                (family, agent, steps, seed + k, point.tolist(), episodes, seed),
                root / (f"{i:03d}" + f"-{k}" * (k > 0)),
            )
            for k in range(seeds)
            for i, point in enumerate(points)
        ]
        missing = sum(not task.out.exists() for task in tasks)
        label = f"{len(tasks)} specialists on {family.name}"
        every = np.array(gather(engine or LocalEngine(), _specialist, tasks, steps * missing, label, progress))
        every = every.reshape(seeds, len(points), -1)  # (seeds, n, episodes)
        played = every[every.mean(axis=2).argmax(axis=0), np.arange(len(points))]  # (n, episodes)
        best, error = played.mean(axis=1), np.sqrt((played.var(axis=1) + random.var(axis=1)) / episodes)
        settings |= dict(best="specialist", agent=Path(agent).stem, steps=steps, seeds=seeds)
    else:
        error = random.std(axis=1) / np.sqrt(episodes)
        settings |= dict(best="optimum")
    clear = best - random.mean(axis=1) > np.maximum(3 * error, 1e-9)
    if not clear.any():
        raise ValueError(f"no specialist on {family.name} gets clearly more than random: train them for more steps")
    made = Reference(
        family.name,
        space.names,
        family.digest,
        points[clear],
        random.mean(axis=1)[clear],
        best[clear],
        ReferenceSettings(**settings),
        versions(),
    )
    return made, points[~clear]


def optimum(family: Family, contexts: Vector) -> Vector | None:
    """Return the greatest expected return in each context, shape ``(n,)``, where the family's physics knows it."""
    if not family.has_physics or family.max_episode_steps is None:
        return None
    columns = torch.as_tensor(contexts.T, dtype=torch.float64)
    c = dict(zip(family.context_space.names, columns, strict=True))
    best = family.physics().optimum(c, family.max_episode_steps)
    return None if best is None else best.numpy()


def _specialist(
    family: Family, agent: str, steps: int, seed: int, context: list[float], episodes: int, starts: int, out: Path
) -> list[float]:
    """Train a specialist, as far as that has not been done, and return the returns of its episodes.

    :param starts: seed of their initial states.
    """
    if not out.exists():
        train(family, agent, steps, seed, out, contexts=[context], resume=True, device="cpu", callback=CountSteps())
    run = Run.open(out, family)
    asked = Training.of(family, agent_spec(agent), steps, seed, [context])
    if differences := run.training.differences(asked):
        raise ValueError(f"{out} holds another specialist: {'; '.join(differences)}. Use another folder")
    return play(run.model("cpu"), family, [context], episodes, starts).returns[0].tolist()
