"""References: in each context of a family, what random actions get and what an agent made for it alone gets.

A score is a return on the scale between the two: 0 is random, 1 as good as a specialist. Specialists are trained too,
by one seed a context or the best of several, so a score may exceed 1. There are scores in the very contexts of the
reference and in no others: nothing is interpolated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperrl.catalog import folder
from hyperrl.contexts import SPLITS, Vector
from hyperrl.episodes import play, random_returns
from hyperrl.families import Family, load_family
from hyperrl.files import refuse_existing, write_text
from hyperrl.provenance import family_digest, versions
from hyperrl.runs import Run


@dataclass(frozen=True)
class Reference:
    """Random and best returns in some contexts of a family.

    :param family: name of the family.
    :param features: names of its features.
    :param provenance: how it was made, and the SHA-256 of the family's definition.
    :param contexts: shape ``(n, d)``, physical units.
    :param random: mean return of uniformly random actions in each, shape ``(n,)``.
    :param best: mean return of the specialist in each, or the optimum, shape ``(n,)``; above ``random``.
    """

    family: str
    features: tuple[str, ...]
    provenance: dict[str, Any]
    contexts: Vector
    random: Vector
    best: Vector

    def scores(self, contexts: ArrayLike, returns: ArrayLike) -> Vector:
        """Return scores, 0 for random and 1 for the best, shape ``(..., n, episodes)``; NaN without a reference.

        :param contexts: shape ``(n, d)``, or more columns, which then count for nothing.
        :param returns: shape ``(..., n, episodes)``.
        """
        random, best = self.at(contexts)
        return (np.asarray(returns, dtype=np.float64) - random[:, None]) / (best - random)[:, None]

    def at(self, contexts: ArrayLike) -> tuple[Vector, Vector]:
        """Return random and best mean returns in contexts as for :meth:`scores`, each ``(n,)``; NaN where unknown."""
        known = {_key(context): i for i, context in enumerate(self.contexts)}
        rows = [known.get(_key(context)) for context in np.asarray(contexts)[:, : len(self.features)]]
        random, best = (
            np.array([np.nan if row is None else values[row] for row in rows]) for values in (self.random, self.best)
        )
        return random, best

    def save(self, path: str | Path) -> None:
        """Write a new JSON file.

        :raises ValueError: where there is one.
        """
        refuse_existing(path, "remove it first, or give another file")
        entries = [
            {"context": dict(zip(self.features, context, strict=True)), "random": random, "best": best}
            for context, random, best in zip(
                self.contexts.tolist(), self.random.tolist(), self.best.tolist(), strict=True
            )
        ]
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        head = json.dumps({"family": self.family, "features": self.features, "provenance": self.provenance}, indent=1)
        write_text(path, f'{head[:-2]},\n "contexts": [\n{lines}\n]}}\n')

    @classmethod
    def load(cls, path: str | Path, family: Family) -> Reference:
        """Read the reference of a family.

        :raises ValueError: where the file is none, or of another family or definition.
        """
        read = _read(path)
        if not _fits(read, family):
            raise ValueError(f"{path} was made for another definition of {read.family} than {family.spec.source}")
        return read


def find_reference(family: Family, file: str | Path | None = None) -> Reference | None:
    """Load a family's reference: the file given, else that beside the family's file, else the packaged one of its name.

    :return: ``None`` where no file is given, and there is none or only one of another definition.
    :raises ValueError: where the file is no reference, or the one given is of another definition.
    """
    if file is not None:
        return Reference.load(file, family)
    for path in (reference_path(family), folder("envs") / f"{family.name}.reference.json"):
        if path.is_file() and _fits(read := _read(path), family):
            return read
    return None


def known_scores(reference: Reference | None, contexts: Vector, returns: ArrayLike) -> Vector:
    """Return the scores in those ``k`` of the contexts that have a reference, shape ``(..., k, episodes)``.

    :param reference: ``None`` for no reference: then ``k`` is 0.
    :param contexts: shape ``(n, d)``.
    :param returns: shape ``(..., n, episodes)``.
    """
    if reference is None:
        return np.asarray(returns, dtype=np.float64)[..., :0, :]
    scores = reference.scores(contexts, returns)
    return scores[..., np.isfinite(scores).all(axis=(*range(scores.ndim - 2), -1)), :]


def reference_path(family: Family) -> Path:
    """Return where the reference of a family belongs: beside its file."""
    return family.spec.source.with_suffix(".reference.json")


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
    jobs: int = 1,
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
    :param jobs: trainings at a time, one core each.
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
    settings: dict[str, Any] = dict(seed=seed, splits=list(splits), contexts=contexts, episodes=episodes)
    if best is None:
        from hyperrl import parallel

        source, root = family.spec.source, Path(work)
        work_list = [
            (source, agent, steps, seed + k, point.tolist(), root / (f"{i:03d}" + f"-{k}" * (k > 0)), episodes, seed)
            for k in range(seeds)
            for i, point in enumerate(points)
        ]
        missing = sum(not job[5].exists() for job in work_list)
        label = f"{len(work_list)} specialists on {family.name}"
        every = np.array(parallel.run(_specialist, work_list, jobs, steps * missing, label, progress))
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
    provenance = {"definition": family_digest(family), "versions": versions(), "settings": settings}
    made = Reference(family.name, space.names, provenance, points[clear], random.mean(axis=1)[clear], best[clear])
    return made, points[~clear]


def optimum(family: Family, contexts: Vector) -> Vector | None:
    """Return the greatest expected return in each context, shape ``(n,)``, where the family's physics knows it."""
    if family.spec.definition.physics is None or family.spec.definition.max_episode_steps is None:
        return None
    columns = torch.as_tensor(contexts.T, dtype=torch.float64)
    c = dict(zip(family.context_space.names, columns, strict=True))
    best = family.physics().optimum(c, family.spec.definition.max_episode_steps)
    return None if best is None else best.numpy()


def _specialist(
    source: Path, agent: str, steps: int, seed: int, context: list[float], out: Path, episodes: int, starts: int
) -> list[float]:
    """Train a specialist, as far as that has not been done, and return the returns of its episodes.

    :param starts: seed of their initial states.
    """
    from hyperrl.parallel import Count
    from hyperrl.training import train

    family = load_family(source)
    if not out.exists():
        train(family, agent, steps, seed, out, contexts=[context], resume=True, device="cpu", callback=Count())
    run = Run.open(out)
    asked = dict(agent=Path(agent).stem, steps=steps, seed=seed, contexts=[context])
    found = {key: run.record[key] for key in asked}
    if found != asked or family_digest(run.family) != family_digest(family):
        raise ValueError(
            f"{out} holds a specialist of {found}, expected {asked} and the same family: use another folder"
        )
    return play(run.model("cpu"), family, [context], episodes, starts).returns[0].tolist()


def _read(path: str | Path) -> Reference:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        features = tuple(data["features"])
        contexts = np.array([[entry["context"][name] for name in features] for entry in data["contexts"]], float)
        random, best = (np.array([entry[key] for entry in data["contexts"]], float) for key in ("random", "best"))
        provenance = {"definition": data["provenance"]["definition"]} | data["provenance"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a reference written by hyperrl: {error!r}") from None
    return Reference(data["family"], features, provenance, contexts, random, best)


def _fits(reference: Reference, family: Family) -> bool:
    return reference.provenance["definition"] == family_digest(family)


def _key(context: Vector) -> tuple[str, ...]:
    """Return what tells contexts apart: twelve digits, so that a last bit that another machine rounds does not."""
    return tuple(f"{value:.11e}" for value in context)
