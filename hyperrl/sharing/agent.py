"""A trained agent as a folder of numbers and text. Loading one runs nothing that the folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperrl.families.family import Family, family_of, load_family
from hyperrl.sharing.config import AgentConfig, code_in_definition, code_in_recipe
from hyperrl.sharing.places import CONFIG, find
from hyperrl.training.recipe import AgentDefinition, AgentSpec
from hyperrl.training.record import WEIGHTS, Training
from hyperrl.training.run import complete
from hyperrl.utils.definitions import build, catalogue
from hyperrl.utils.records import read

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


def load_agent(name: str | Path, device: str = "auto", family: Family | None = None) -> BaseAlgorithm:
    """Load a trained agent as a Stable-Baselines3 model, of the whole policy with its context left open.

    Nothing is unpickled, and no code is imported that the files name: algorithms, policies and classes are those of
    fixed lists.

    :param name: one that comes along, such as ``"pendulum/hyper-ppo"``; a folder that ``hyperrl share`` wrote; or
        ``"hf:user/repo"``, or ``"hf:user/repo@revision"``, on the Hugging Face Hub. A folder that exists comes first.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param family: the family that it was trained on, where that takes code of yours to make.
    :raises ValueError: where there is no such agent, and where a file is damaged, of a newer version or another agent.

    >>> model = load_agent("pendulum/hyper-ppo", device="cpu")
    >>> model.policy.context_space.names
    ('gravity', 'mass', 'length', 'torque_gain')
    """
    return SharedAgent.open(name, family).model(device)


@dataclass(frozen=True)
class SharedAgent:
    """A trained agent as a folder.

    It holds ``config.json`` (:class:`~hyperrl.sharing.AgentConfig`), the weights as ``model.safetensors`` and, for
    readers, ``README.md``. ``encoder.safetensors`` is the encoder of an agent with an aligned context, and
    ``estimator.safetensors`` that of one whose context ``hyperrl infer`` has learnt to infer.

    :param path: the folder.
    :param name: what it was called when it was opened.
    :param given: the family, where the folder cannot say all of it.
    """

    path: Path
    name: str
    given: Family | None = None

    @classmethod
    def open(cls, name: str | Path, family: Family | None = None) -> SharedAgent:
        """Open an agent; the arguments are those of :func:`hyperrl.load_agent`.

        :raises ValueError: where there is none.

        >>> agent = SharedAgent.open("pendulum/hyper-ppo")
        >>> agent.family, agent.training.steps
        (Family('pendulum', features=['gravity', 'mass', 'length', 'torque_gain']), 400000)
        """
        return cls(find(name), str(name), family)

    @cached_property
    def config(self) -> AgentConfig:
        """What the agent is.

        :raises ValueError: where ``config.json`` is damaged or follows another schema.
        """
        return read(AgentConfig, self.path / CONFIG)

    @property
    def training(self) -> Training:
        """How it was trained."""
        return self.config.training

    @cached_property
    def family(self) -> Family:
        """The family that it was trained on: that of its name, if that is the same, else as the folder defines it.

        :raises ValueError: where the folder's definition is faulty or would run code, and for another family.
        """
        config, path = self.config, self.path / CONFIG
        training, definition = config.training, config.definition
        family = self._known if self.given is None else self.given
        if family is None:
            if definition is None:
                raise ValueError(
                    f"{path}: the family {training.family!r} was made in Python: give it, "
                    "load_agent(name, family=family)"
                )
            if code := code_in_definition(definition):
                raise ValueError(
                    f"{path}: the family {training.family!r} takes code that a shared agent may not name, {code}: "
                    "install what offers this family, or give it, load_agent(name, family=family)"
                )
            try:
                family = family_of(training.family, definition, path)
            except (TypeError, OverflowError, RecursionError) as error:
                raise ValueError(f"{path}: the definition of the family is faulty: {error}") from None
        if family.digest != training.definition:
            raise ValueError(f"{path} is of another family {training.family!r} than that of {family.place}")
        irrelevant = sum(not feature.relevant for feature in config.features)
        family = family.with_irrelevant(irrelevant)
        if family.context_space.features != config.features or irrelevant != training.irrelevant:
            raise ValueError(f"{path}: the features are not those of the family {training.family!r}")
        return family

    @property
    def _known(self) -> Family | None:
        """The family of that name here, if it is the same."""
        name = self.training.family
        if name not in catalogue("envs"):
            return None
        family = load_family(name)
        return family if family.digest == self.training.definition else None

    @cached_property
    def agent(self) -> AgentSpec:
        """The recipe that it was trained by; its sizes are in the file of the weights.

        :raises ValueError: where it is faulty, or names code.
        """
        training, path, recipe = self.training, self.path / CONFIG, self.config.recipe
        if code := code_in_recipe(recipe):
            raise ValueError(f"{path}: the recipe names code, which a shared agent may not: {code}")
        try:
            return AgentSpec(training.agent, path, build(AgentDefinition, recipe), training.overrides)
        except ValueError as error:
            raise ValueError(f"{path}: the recipe is faulty: {error}") from None

    def model(self, device: str = "auto") -> BaseAlgorithm:
        """Load the model, in environments of its own.

        :raises ValueError: where a file is missing or damaged, or holds another model than ``config.json`` says.
        """
        from hyperrl.training.weights import load_weights

        training, path = self.training, self.path / WEIGHTS
        family, recipe = self.family, self.agent
        try:
            model = load_weights(path, family, recipe, training.seed, training.contexts, device)
        except ValueError:
            raise
        except Exception as error:  # whatever a recipe of anybody's leads to
            raise ValueError(
                f"{self.path / CONFIG}: no agent is made by its recipe ({type(error).__name__}: {error})"
            ) from error
        complete(model, path, self.config.result, self.path / CONFIG)
        check_finite(model, path)
        return model


def check_finite(model: BaseAlgorithm, path: Path) -> None:
    """Refuse a model whose parameters are not all numbers.

    :param path: where it is, for the message.
    """
    for name, parameter in model.policy.named_parameters():
        if not np.isfinite(parameter.detach().cpu().numpy()).all():
            raise ValueError(f"{path}: the parameter {name!r} is not finite: the training has diverged")
