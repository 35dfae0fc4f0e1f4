"""A run folder: what was run, its model and its numbers on disk."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyperrl.families.family import Family, load_family
from hyperrl.policies.registry import algorithm_class
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.utils.devices import find_device
from hyperrl.utils.errors import nearest
from hyperrl.utils.files import refuse_existing, write_text
from hyperrl.utils.provenance import versions

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


NORMALIZER = "vecnormalize.pkl"


@dataclass(frozen=True)
class Run:
    """A finished training.

    The folder holds ``run.json``, copies of the two definitions, ``model.zip``, ``vecnormalize.pkl`` where
    observations or rewards were normalised, TensorBoard's log and, once evaluated, ``evaluation.json``.

    :param path: the folder.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run folder.

        :raises ValueError: where there is none.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            if _partial(path).is_dir():
                raise ValueError(f"the training of {path} was interrupted: continue it with --resume")
            siblings = [str(other.parent) for other in path.parent.glob("*/run.json")]
            raise ValueError(f"{path} is no run folder: it has no run.json.{nearest(str(path), siblings)}")
        return cls(path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What was run: family, agent, seed, steps, irrelevant features, versions, command."""
        return json.loads((self.path / "run.json").read_text(encoding="utf-8"))

    @cached_property
    def family(self) -> Family:
        """The family as it was at training time."""
        return load_family(self.path / f"{self.record['family']}.toml").with_irrelevant(
            self.record.get("irrelevant", 0)
        )

    @cached_property
    def agent(self) -> AgentSpec:
        """The recipe as it was at training time."""
        return agent_spec(self.path / f"{self.record['agent']}.toml")

    def model(self, device: str = "auto") -> BaseAlgorithm:
        """Load the trained model, with the statistics of the ``VecNormalize`` that it was trained in, if it was."""
        from stable_baselines3.common.vec_env import VecNormalize

        algorithm = algorithm_class(self.agent.definition.algorithm)
        env = None
        if (self.path / NORMALIZER).is_file():
            env = VecNormalize.load(str(self.path / NORMALIZER), self.family.vec_env(1))
        return algorithm.load(self.path / "model.zip", env=env, device=find_device(device))

    def learning_curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return environment steps, and the mean return of the last 100 episodes of training at each.

        Two arrays of one shape, read from TensorBoard's log; empty where the training was too short to end an episode.
        """
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        log = EventAccumulator(str(self.path), size_guidance={"scalars": 0}).Reload()
        tag = "rollout/ep_rew_mean"
        # What an interrupted training did after its last checkpoint was done again: by step, it counts once.
        events = {e.step: e.value for e in log.Scalars(tag)} if tag in log.Tags()["scalars"] else {}
        return np.array(sorted(events), dtype=np.float64), np.array([events[step] for step in sorted(events)])

    @property
    def evaluation_path(self) -> Path:
        """Where the numbers of ``hyperrl evaluate`` are."""
        return self.path / "evaluation.json"


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of one family by agent, in the order given.

    :raises ValueError: where there are none, or of different families.
    """
    if not runs:
        raise ValueError("expected at least one run")
    grouped: dict[str, list[Run]] = {}
    first = runs[0]
    for run in runs:
        if (run.family.digest, run.family.irrelevant) != (first.family.digest, first.family.irrelevant):
            raise ValueError(f"expected runs of one family: {run.path} is of another than {first.path}")
        grouped.setdefault(run.record["agent"], []).append(run)
    return grouped


class UnfinishedRun:
    """The folder of a training under way: ``<out>.partial``, which becomes ``<out>`` when all is written.

    :param out: the run folder to be.
    :param family: the family.
    :param agent: the recipe.
    :param settings: what else decides the result, such as seed and steps.
    :param resume: go on with an interrupted training, if there is one.
    :raises ValueError: where ``out`` exists, an interrupted training is in the way, or it was another training.
    """

    def __init__(
        self, out: str | Path, family: Family, agent: AgentSpec, settings: dict[str, Any], resume: bool
    ) -> None:
        self.out = Path(out)
        self.path = _partial(self.out)
        self.checkpoint = self.path / "checkpoint.pkl"
        refuse_existing(self.out)
        record = {
            "family": family.name,
            "agent": agent.name,
            **settings,
            "command": shlex.join(sys.argv),
            "versions": versions(),
        }
        definitions = {source.name: source.read_text(encoding="utf-8") for source in (family.spec.source, agent.source)}
        if self.path.exists():
            if not resume:
                raise ValueError(
                    f"{self.path} holds an interrupted training: continue it with --resume (resume=True), or remove it"
                )
            self._compare(record, definitions)
            return
        self.path.mkdir(parents=True)
        for name, text in definitions.items():
            write_text(self.path / name, text)
        write_text(self.path / "run.json", json.dumps(record, indent=1))

    def finish(self, **results: Any) -> Run:
        """Add results to ``run.json`` and give the folder its name."""
        record = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        write_text(self.path / "run.json", json.dumps(record | results, indent=1))
        self.checkpoint.unlink(missing_ok=True)
        self.path.rename(self.out)
        return Run(self.out)

    def discard(self) -> None:
        """Remove the folder: nothing worth resuming is in it."""
        shutil.rmtree(self.path)

    def _compare(self, record: dict[str, Any], definitions: dict[str, str]) -> None:
        """Refuse to resume a training other than the one asked for."""
        before = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        differences = [
            f"{key} was {before.get(key)!r}, now {value!r}"
            for key, value in record.items()
            if key not in ("command", "versions") and before.get(key) != value
        ]
        differences += [
            f"{name} has changed"
            for name, text in definitions.items()
            if not (self.path / name).is_file() or (self.path / name).read_text(encoding="utf-8") != text
        ]
        if differences:
            raise ValueError(f"{self.path} holds another training: {'; '.join(differences)}. Choose another folder")


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")
