"""What the commands take as an agent: a run folder, or a model's zip of Stable-Baselines3's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyperrl.families.family import Family, load_family
from hyperrl.training.record import Training
from hyperrl.training.run import Run

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.inference import InferringAgent

ESTIMATOR: Final = "estimator.safetensors"
"""What `hyperrl infer` writes."""


@dataclass(frozen=True)
class SavedModel:
    """A zip, and what it does not say of itself; to the commands it is like :class:`SavedRun`."""

    path: Path
    family_name: str | None
    algorithm: str | None
    normalizer: Path | None
    training: None = None

    @property
    def name(self) -> str:
        """What the agent is called."""
        return self.path.stem

    @cached_property
    def family(self) -> Family:
        """The family that was named."""
        if self.family_name is None:
            raise ValueError(f"{self.path} does not say of which family it is: give --family")
        return load_family(self.family_name)

    def model(self, device: str) -> BaseAlgorithm:
        """Load the model."""
        from hyperrl.policies.saved import load_model, load_normalizer
        from hyperrl.utils.devices import find_device

        place = find_device(device)
        env = None if self.normalizer is None else load_normalizer(self.normalizer, self.family.vec_env(1))
        return load_model(self.path, self.algorithm, place, env)

    def beside(self, name: str) -> Path:
        """Return where a result goes."""
        return self.path.with_name(f"{self.path.stem}.{name}")


@dataclass(frozen=True)
class SavedRun:
    """A run folder.

    :param run: the folder.
    :param trust: whether its pickles may be loaded.
    """

    run: Run
    trust: bool

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.run.path

    @property
    def training(self) -> Training:
        """How it was trained."""
        return self.run.training

    @property
    def name(self) -> str:
        """What the agent is called."""
        return self.training.agent

    @property
    def family(self) -> Family:
        """The family as it was at training time."""
        return self.run.family

    def model(self, device: str) -> BaseAlgorithm:
        """Load the model."""
        return self.run.model(device, self.trust)

    def beside(self, name: str) -> Path:
        """Return where a result goes."""
        return self.path / name


def open_agent(
    path: Path,
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    trust: bool = False,
) -> SavedRun | SavedModel:
    """Open what a command is given as an agent.

    :param trust: load the pickles of a run folder instead of its numbers. Naming a zip, a pickle, is trusting it.
    :raises ValueError: where it is neither, and for what is said of a run folder, which knows that itself.
    """
    if path.suffix == ".zip":
        if not path.is_file():
            raise ValueError(f"no such file: {path}")
        return SavedModel(path, family, algorithm, normalizer)
    for name, given in (("family", family), ("algorithm", algorithm), ("normalizer", normalizer)):
        if given is not None:
            raise ValueError(f"--{name} is for a model's zip: the run folder {path} knows that itself")
    return SavedRun(Run.open(path), trust)


def load_agent(agent: SavedRun | SavedModel, device: str, hidden: bool = False) -> BaseAlgorithm | InferringAgent:
    """Load a model, or the agent that infers its context.

    :param hidden: hide the context from the model, by the estimator that `hyperrl infer` wrote.
    :raises ValueError: where there is no estimator.
    """
    model = agent.model(device)
    if not hidden:
        return model
    from hyperrl.inference import InferringAgent

    path = agent.beside(ESTIMATOR)
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: an agent must learn to infer its context first, by hyperrl infer {agent.path}"
        )
    return InferringAgent.load(path, model, device)
