"""Provenance: what a result was made with, so that a reader can tell whether two results are comparable."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("hyperrl", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result."""
    return {library: version(library) for library in LIBRARIES} | {"python": platform.python_version()}


@dataclass(frozen=True)
class ModelDescription:
    """A description of a model. Of an object other than a Stable-Baselines3 model, only the class is known.

    :param algorithm: the name of its class, with the module unless it is a Stable-Baselines3 model.
    :param policy: the name of its policy's class.
    :param steps: environment steps that it was trained for.
    :param parameters: number of its policy's parameters.
    :param sha256: SHA-256 of these parameters.
    """

    algorithm: str
    policy: str | None
    steps: int | None
    parameters: int | None
    sha256: str | None


def describe_model(model: object) -> ModelDescription:
    """Describe a model."""
    from stable_baselines3.common.base_class import BaseAlgorithm

    if not isinstance(model, BaseAlgorithm):
        return ModelDescription(f"{type(model).__module__}.{type(model).__qualname__}", None, None, None, None)
    return ModelDescription(
        type(model).__name__,
        type(model.policy).__name__,
        model.num_timesteps,
        n_parameters(model.policy),
        sha256_of(model.policy),
    )


def sha256_of(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def n_parameters(module: nn.Module) -> int:
    """Count the parameters that are learnt."""
    return sum(parameter.numel() for parameter in module.parameters())
