"""What decides whether a policy's computations can be recorded, and whether a recording still holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hyperrl.hypernet import SecantExtrapolation
from hyperrl.policies import GeneratedPolicy


def is_static(policy: Any) -> bool:
    """Return whether a policy computes the same operations for all values.

    Penalties of generated weights are of the distinct contexts of each minibatch, and so do not.
    """
    is_known = type(policy).__module__.partition(".")[0] in ("hyperrl", "stable_baselines3")
    return is_known and not (isinstance(policy, GeneratedPolicy) and policy.hyper_config.is_penalised)


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
