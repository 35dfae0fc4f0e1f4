"""Between the tensors of the simulator and the numpy arrays of its adapters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.simulation.simulator import Observation, Step

Arrays = dict[str, np.ndarray]
"""``observation`` (n, o), of the type that its space has, and ``context`` (n, d), float32."""


def ended_infos(step: Step, seconds: float) -> dict[int, dict[str, Any]]:
    """Return what Stable-Baselines3's infos say of the episodes that a step ended, by the environment's number.

    :param seconds: since training began.
    """
    rows = step.ended.cpu().numpy().nonzero()[0]
    if not len(rows):
        return {}
    last = {key: entry.cpu().numpy()[rows] for key, entry in step.last.items()}
    entries = zip(
        (~step.terminated.cpu().numpy()[rows]).tolist(),
        (dict(zip(last, values, strict=True)) for values in zip(*last.values(), strict=True)),
        step.returns.cpu().numpy()[rows].round(6).tolist(),
        step.lengths.cpu().numpy()[rows].tolist(),
        strict=True,
    )
    return {
        i: {
            "TimeLimit.truncated": truncated,
            "terminal_observation": observation,
            "episode": {"r": r, "l": length, "t": round(seconds, 6)},
        }
        for i, (truncated, observation, r, length) in zip(rows.tolist(), entries, strict=True)
    }


def to_numpy(observation: Observation) -> Arrays:
    """Return an observation as arrays that are the caller's own."""
    context = observation["context"].cpu().numpy().copy()  # the simulator's own, which it hands out again
    return {"observation": observation["observation"].cpu().numpy(), "context": context}


def to_tensor(actions: Any, action_space: spaces.Box | spaces.Discrete) -> Tensor:
    """Return a copy of actions, which may be a read-only array or any other thing that numpy takes."""
    return torch.from_numpy(np.array(actions, dtype=np.float64 if isinstance(action_space, spaces.Box) else None))
