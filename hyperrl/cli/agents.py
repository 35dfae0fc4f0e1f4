"""What the commands take as an agent: a run folder, a shared agent, or a model's zip of Stable-Baselines3's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hyperrl.families.family import Family, load_family
from hyperrl.training.record import ESTIMATOR, Training
from hyperrl.utils.errors import nearest

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from hyperrl.inference import InferringAgent
    from hyperrl.sharing.agent import SharedAgent
    from hyperrl.training.run import Run


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


@dataclass(frozen=True)
class SavedAgent:
    """A shared agent: a folder, one that comes along, or one of the Hub.

    :param shared: the agent.
    :param is_mine: whether it is a folder of the user's, where results may go.
    """

    shared: SharedAgent
    is_mine: bool

    @property
    def path(self) -> Path:
        """Where it is, as it was given."""
        return Path(self.shared.name)

    @property
    def training(self) -> Training:
        """How it was trained."""
        return self.shared.training

    @property
    def name(self) -> str:
        """What the agent is called."""
        return self.training.agent

    @property
    def family(self) -> Family:
        """The family that it was trained on."""
        return self.shared.family

    def model(self, device: str) -> BaseAlgorithm:
        """Load the model."""
        return self.shared.model(device)

    def beside(self, name: str) -> Path:
        """Return where a result goes: into the folder, or else the current one; or what came with the agent."""
        inside = self.shared.path / name
        if self.is_mine or inside.is_file():
            return inside
        return Path(f"{self.training.family}-{self.name}.{name}")


Saved = SavedRun | SavedModel | SavedAgent


def open_agent(
    path: Path,
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    trust: bool = False,
) -> Saved:
    """Open what a command is given as an agent.

    :param path: a run folder, a model's zip, the name of an agent that comes along, a shared one's folder, or
        ``hf:user/repo``.
    :param trust: load the pickles of a run folder instead of its numbers. Naming a zip, a pickle, is trusting it.
    :raises ValueError: where it is none of these, and for what is said of a folder, which knows that itself.
    """
    from hyperrl.sharing.agent import SharedAgent
    from hyperrl.sharing.places import CONFIG, is_shared, names
    from hyperrl.training.run import Run

    if path.suffix == ".zip":
        if not path.is_file():
            raise ValueError(f"no such file: {path}")
        return SavedModel(path, family, algorithm, normalizer)
    shared = is_shared(path)
    given = dict(algorithm=algorithm, normalizer=normalizer) | ({} if shared else dict(family=family))
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name} is for a model's zip: {path} knows that itself")
    if shared:
        if trust:
            raise ValueError(f"--trust is for run folders: the shared agent {path} has no pickles")
        opened = SharedAgent.open(path, None if family is None else load_family(family))
        return SavedAgent(opened, (path / CONFIG).is_file())
    if (
        not path.exists()
        and not path.with_name(f"{path.name}.partial").exists()
        and (hint := nearest(str(path), names()))
    ):
        raise ValueError(f"there is no run folder {path}.{hint}")
    return SavedRun(Run.open(path), trust)


def load_agent(agent: Saved, device: str, hidden: bool = False) -> BaseAlgorithm | InferringAgent:
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
