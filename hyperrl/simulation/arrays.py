"""Between the tensors of the simulator and the numpy arrays of its adapters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hyperrl.simulation.simulator import Observation

Arrays = dict[str, np.ndarray]
"""``observation`` (n, o), of the type that its space has, and ``context`` (n, d), float32."""


def to_numpy(observation: Observation) -> Arrays:
    """Return an observation as arrays that are the caller's own."""
    context = observation["context"].cpu().numpy().copy()  # the simulator's own, which it hands out again
    return {"observation": observation["observation"].cpu().numpy(), "context": context}


def to_tensor(actions: Any, action_space: spaces.Box | spaces.Discrete) -> Tensor:
    """Return a copy of actions, which may be a read-only array or any other thing that numpy takes."""
    return torch.from_numpy(np.array(actions, dtype=np.float64 if isinstance(action_space, spaces.Box) else None))
