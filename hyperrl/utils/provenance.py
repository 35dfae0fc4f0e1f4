"""Provenance: what a result was made with, so that a reader can tell whether two results are comparable."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from torch import nn

LIBRARIES = ("hyperrl", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result."""
    return {library: version(library) for library in LIBRARIES} | {"python": platform.python_version()}


def describe_model(model: BaseAlgorithm) -> dict[str, Any]:
    """Return what a model is: algorithm, policy, steps trained, and number and SHA-256 of its policy's parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.policy.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return {
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        "steps": model.num_timesteps,
        "parameters": n_parameters(model.policy),
        "sha256": digest.hexdigest(),
    }


def n_parameters(module: nn.Module) -> int:
    """Count the parameters that are learnt."""
    return sum(parameter.numel() for parameter in module.parameters())
