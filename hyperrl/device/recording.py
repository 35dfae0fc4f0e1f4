"""What decides whether computations can be recorded, and whether a recording still holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hyperrl.hypernet import SecantExtrapolation
from hyperrl.policies import GeneratedPolicy
from hyperrl.simulation import Simulator


def is_static(policy: Any) -> bool:
    """Return whether a policy computes the same operations for all values.

    Penalties of generated weights are of the distinct contexts of each minibatch, and so do not.
    """
    is_penalised = isinstance(policy, GeneratedPolicy) and policy.hyper_config.is_penalised
    return _is_of(policy, "hyperrl", "stable_baselines3") and not is_penalised


def is_static_simulator(simulator: Simulator) -> bool:
    """Return whether a step of a simulator is the same operations for all values."""
    computes_with_torch = simulator.physics.device is None and simulator.physics.threads is None
    return _is_of(simulator.physics, "hyperrl") and computes_with_torch and simulator.switching is None


def _is_of(thing: Any, *packages: str) -> bool:
    """Return whether a thing's class is of a known package: the code of others may do more than tensors show."""
    return type(thing).__module__.partition(".")[0] in packages


def places(policies: Iterable[nn.Module]) -> tuple[int, ...]:
    """Return where the parameters of policies lie: what was recorded of others is of no use."""
    return tuple(parameter.data_ptr() for policy in policies for parameter in policy.parameters())


def are_inside(policy: nn.Module, contexts: Tensor | None) -> bool:
    """Return whether contexts, normalised ``(…, d)``, are all inside the range from which encoders go on."""
    encoders = [module for module in policy.modules() if isinstance(module, SecantExtrapolation)]
    if contexts is None or not encoders:
        return False
    return all(encoder.contains(contexts) for encoder in encoders)


def is_watched(policy: nn.Module) -> bool:
    """Return whether there are forward hooks, such as those of diagnostics."""
    return any(module._forward_hooks for module in policy.modules())


@contextmanager
def without_hooks(policy: nn.Module) -> Iterator[None]:
    """Leave forward hooks out: a replay does not run them, and to record is not to show."""
    hooks = [(module._forward_hooks, module._forward_hooks.copy()) for module in policy.modules()]
    for registered, _ in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, kept in hooks:
            registered.update(kept)
