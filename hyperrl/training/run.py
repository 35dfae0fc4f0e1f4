"""A run folder: what was run, its model and its numbers on disk."""

from __future__ import annotations

import shlex
import shutil
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hyperrl.alignment.acting import find_aligned
from hyperrl.alignment.wrapper import AlignedContext
from hyperrl.families.family import Family, load_family
from hyperrl.policies.saved import load_model, load_normalizer
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.training.record import (
    AGENT,
    ENCODER,
    FAMILY,
    MODEL,
    NORMALIZER,
    RECORD,
    WEIGHTS,
    Result,
    RunRecord,
    Training,
    contents,
    distinguish,
)
from hyperrl.utils.devices import find_device
from hyperrl.utils.errors import nearest
from hyperrl.utils.files import held, new_folder, refuse_existing, write_text
from hyperrl.utils.provenance import describe_model, sha256_of, versions
from hyperrl.utils.records import plain, read, write

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


@dataclass(frozen=True)
class Run:
    """A finished training.

    The folder holds ``run.json``, copies of the two definitions as ``family.toml`` and ``agent.toml``, the model as
    ``model.safetensors``, TensorBoard's log and, once evaluated, ``evaluation.json``. For Stable-Baselines3 the model
    is there as ``model.zip`` too, with ``vecnormalize.pkl`` where rewards were normalised: pickles, which hyperrl does
    not read unless told to. ``encoder.safetensors`` is the encoder of an agent with an aligned context.

    :param path: the folder.
    :param given: the family, where the folder cannot say where it is found: it was made in Python.
    """

    path: Path
    given: Family | None = None

    @classmethod
    def open(cls, path: str | Path, family: Family | None = None) -> Run:
        """Open a run folder.

        :param family: the family that was trained on, where it was made in Python and not named as
            ``"module:attribute"``; else the folder knows it.
        :raises ValueError: where there is none.
        """
        path = Path(path)
        if not (path / RECORD).is_file():
            if _partial(path).is_dir():
                raise ValueError(f"the training of {path} was interrupted: continue it with --resume")
            siblings = [str(other.parent) for other in path.parent.glob(f"*/{RECORD}")]
            raise ValueError(f"{path} is no run folder: it has no {RECORD}.{nearest(str(path), siblings)}")
        return cls(path, family)

    @cached_property
    def record(self) -> RunRecord:
        """What was run, and how it ended.

        :raises ValueError: where ``run.json`` is damaged or follows another schema.
        """
        return read(RunRecord, self.path / RECORD)

    @property
    def training(self) -> Training:
        """What was trained."""
        return self.record.training

    @property
    def result(self) -> Result:
        """How the training ended.

        :raises ValueError: where it has not.
        """
        if self.record.result is None:
            raise ValueError(f"{self.path / RECORD}: the training has not ended: continue it with --resume")
        return self.record.result

    @cached_property
    def family(self) -> Family:
        """The family as it was at training time.

        :raises ValueError: where it was made in Python and has changed since, or is not known.
        """
        name, source = self.training.family, self.record.family_source
        if self.given is not None:
            family = self.given
        elif (self.path / FAMILY).is_file():
            family = load_family(self.path / FAMILY).named(name)
        elif source is not None:
            family = load_family(source)
        else:
            raise ValueError(
                f"the family {name!r} of {self.path} was made in Python, and the folder does not know where: open it "
                "with Run.open(path, family), or train with the family named as 'module:attribute'"
            )
        if family.digest != self.training.definition:
            raise ValueError(f"{self.path} was trained on another family {name!r} than that of {family.place} now")
        return family.with_irrelevant(self.training.irrelevant)

    @cached_property
    def agent(self) -> AgentSpec:
        """The recipe as it was at training time.

        :raises ValueError: where it has changed since.
        """
        training = self.training
        spec = replace(agent_spec(self.path / AGENT, training.overrides), name=training.agent)
        # The recipe that match_parameters names may have changed since.
        own = plain(contents(replace(spec, definition=replace(spec.definition, match_parameters=None))))
        if own != {key: value for key, value in training.recipe.items() if key != "match_parameters"}:
            raise ValueError(f"{self.path / AGENT} is not the recipe that {RECORD} says: one of them was changed")
        return spec

    def model(self, device: str = "auto", trust: bool = False) -> BaseAlgorithm:
        """Load the trained model, with the statistics of the ``VecNormalize`` that it was trained in, if it was.

        The recipe's model gets the numbers of ``model.safetensors``: nothing is unpickled, and no code runs but what
        the two definitions name as ``"module:attribute"``.

        :param trust: load ``model.zip`` and ``vecnormalize.pkl`` instead. They are pickles, which run the code that
            they hold: for folders of which you know who made them.
        :raises ValueError: where a file is missing or damaged, or holds another model than ``run.json`` says.
        """
        path = self.path / (MODEL if trust else WEIGHTS)
        if trust:
            env = None
            options = self.agent.definition.alignment
            if options is not None:
                env = AlignedContext(self.family.vec_env(1), device=find_device(device), **options)
            if (self.path / NORMALIZER).is_file():
                env = load_normalizer(self.path / NORMALIZER, self.family.vec_env(1) if env is None else env)
            model = load_model(path, self.agent.definition.algorithm, find_device(device), env)
        elif path.is_file():
            from hyperrl.training.weights import load_weights

            training = self.training
            model = load_weights(path, self.family, self.agent, training.seed, training.contexts, device)
        else:
            raise ValueError(
                f"{path} is missing. {MODEL} may hold the model; it is a pickle, which can run any code: load it with "
                "--trust (trust=True) if you trust whoever made the folder"
            )
        complete(model, path, self.result, self.path / RECORD)
        return model

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


def complete(model: BaseAlgorithm, path: Path, result: Result, record: Path) -> None:
    """Give a model that was read its encoder, where it has one, and check that it is the trained one.

    :param path: where it was read; the encoder is beside it.
    :param result: how the training ended.
    :param record: the file that says so.
    :raises ValueError: where the encoder is missing or damaged, and where either is another than the record says.
    """
    aligned = find_aligned(model)
    if aligned is not None:
        encoder = path.with_name(ENCODER)
        aligned.load(encoder)
        if sha256_of(aligned.dynamics) != result.encoder:
            raise ValueError(f"{encoder} is not the encoder of this run: their SHA-256 differ")
    if describe_model(model).sha256 != result.model.sha256:
        raise ValueError(f"{path} holds another model than {record} says: their SHA-256 differ")


class Trained(Protocol):
    """What says how it was trained: a run, or an agent that was one."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def training(self) -> Training:
        """How it was trained."""
        ...


T = TypeVar("T", bound=Trained)


def group_runs(runs: Sequence[T]) -> dict[str, list[T]]:
    """Return the runs of one family by agent, in the order given: those that were trained alike but for the seed.

    Agents of one name that were trained otherwise get a label that says what is different.

    :raises ValueError: where there are none, of different families or steps, and for two runs of one seed.
    """
    if not runs:
        raise ValueError("expected at least one run")
    first = runs[0]
    grouped: dict[str, list[T]] = {}
    for run in runs:
        what, expected = run.training, first.training
        if what.definition != expected.definition or what.irrelevant != expected.irrelevant:
            raise ValueError(f"expected runs of one family: {run.path} is of another than {first.path}")
        if what.steps != expected.steps:
            raise ValueError(
                f"expected trainings of equal length: {run.path} has steps={what.steps}, {first.path} has "
                f"steps={expected.steps}"
            )
        group = grouped.setdefault(what.digest, [])
        for other in group:
            if other.training.seed == what.seed:
                raise ValueError(f"{run.path} is the same training as {other.path}, with the same seed {what.seed}")
        group.append(run)
    labels = distinguish({digest: group[0].training for digest, group in grouped.items()})
    return {labels[digest]: group for digest, group in grouped.items()}


class UnfinishedRun:
    """The folder of a training under way: ``<out>.partial``, which becomes ``<out>`` when all is written.

    A context manager: within it the folder is this process's alone. A process that is killed, at any moment, leaves a
    folder that ``resume`` goes on with, or none.

    :param out: the run folder to be.
    :param family: the family.
    :param agent: the recipe.
    :param training: what is trained.
    :param resume: go on with an interrupted training, if there is one.
    :param trainer: what trains, see :class:`RunRecord`.
    :raises ValueError: where ``out`` exists, another process is training it, an interrupted training is in the way, or
        it was another training.
    """

    def __init__(
        self,
        out: str | Path,
        family: Family,
        agent: AgentSpec,
        training: Training,
        resume: bool,
        trainer: str = "sb3",
    ) -> None:
        self.out = Path(out)
        self.path = _partial(self.out)
        self.checkpoint = self.path / "checkpoint"
        sources = {AGENT: agent.source} | ({FAMILY: family.source} if isinstance(family.source, Path) else {})
        self.definitions = {name: source.read_text(encoding="utf-8") for name, source in sources.items()}
        family_source = family.source if isinstance(family.source, str) else None
        self.record = RunRecord(
            training, shlex.join(sys.argv), versions(), family_source=family_source, trainer=trainer
        )
        self.family = family
        self.resume = resume
        self.exit = ExitStack()

    def __enter__(self) -> UnfinishedRun:
        refuse_existing(self.out)
        self.exit.enter_context(held(self.out, seconds=0))
        try:
            self._open()
        except BaseException:
            self.exit.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.exit.close()

    def _open(self) -> None:
        refuse_existing(self.out)  # it may have ended since
        shutil.rmtree(self._discarded, ignore_errors=True)
        if not self.path.exists():
            with new_folder(self.path) as folder:
                for name, text in self.definitions.items():
                    write_text(folder / name, text)
                write(self.record, folder / RECORD)
            return
        if not (self.path / RECORD).is_file():
            raise ValueError(f"{self.path} is in the way, and no interrupted training: it has no {RECORD}")
        if not self.resume:
            raise ValueError(
                f"{self.path} holds an interrupted training: continue it with --resume (resume=True), or remove it"
            )
        before = read(RunRecord, self.path / RECORD)
        if differences := before.training.differences(self.record.training):
            raise ValueError(f"{self.path} holds another training: {'; '.join(differences)}. Choose another folder")
        if before.trainer != self.record.trainer:
            raise ValueError(
                f"{self.path} was begun with --trainer {before.trainer} (trainer={before.trainer!r}): continue it so"
            )
        self.record = before
        of_folder = self.path.with_name(f".{self.path.name}.lock")
        for leftover in (of_folder, *self.path.glob(".*.partial"), *self.path.glob(".*.lock")):  # of a killed process
            leftover.unlink(missing_ok=True)

    @property
    def is_trained(self) -> bool:
        """Whether the training has ended and only the folder's name was missing."""
        return self.record.result is not None

    def restarted(self, steps: int) -> None:
        """Note, and warn, that the training goes on from so many steps with new episodes."""
        warnings.warn(
            f"{self.out}: no checkpoint can keep the state of these environments, so the training goes on from step "
            f"{steps} with new episodes; everything else is as it was",
            stacklevel=3,
        )
        self.record = replace(self.record, restarts=(*self.record.restarts, steps))
        write(self.record, self.path / RECORD)

    def finish(self, result: Result) -> None:
        """Write how the training ended. From then on there is nothing left to train."""
        self.record = replace(self.record, result=result)
        write(self.record, self.path / RECORD)

    def publish(self) -> Run:
        """Give the folder of a training that has ended its name."""
        self.checkpoint.unlink(missing_ok=True)
        self.path.rename(self.out)
        return Run(self.out, self.family)

    def discard(self) -> None:
        """Remove the folder: nothing worth resuming is in it."""
        self.path.rename(self._discarded)
        shutil.rmtree(self._discarded)

    @property
    def _discarded(self) -> Path:
        return self.path.with_name(f".{self.path.name}.discarded")


def trainer_of_interrupted(out: str | Path) -> str | None:
    """Return the trainer of an interrupted training, or ``None`` where there is none."""
    path = _partial(Path(out)) / RECORD
    return read(RunRecord, path).trainer if path.is_file() else None


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")
