"""Export of agents that infer their context: files that run without hyperrl, with their memory going in and out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from hyperrl.export.deterministic import Decode, Normalize, OpenPolicy, leave_open
from hyperrl.export.formats import READERS, TOLERANCE, WRITERS, describe, require_format
from hyperrl.export.specialization import refuse_normalized_context
from hyperrl.inference.agent import InferringAgent, Memory
from hyperrl.inference.estimator import Estimator, eliminate
from hyperrl.policies.context import context_extractor
from hyperrl.utils.files import refuse_existing, write_bytes
from hyperrl.utils.rows import scale_of

FORMATS: Final = ("onnx", "pt2")
CHECKED: Final = 4  # steps by which what was written is compared with the agent


class HiddenPolicy(nn.Module):
    """A policy that infers its context: ``(B, n), (B, 1), (B, s) -> (B, *action shape), (B, s)``.

    :param estimator: believes in a context.
    :param policy: acts on it.
    """

    def __init__(self, estimator: Estimator, policy: OpenPolicy) -> None:
        super().__init__()
        self.estimator = estimator
        self.policy = policy
        self.decode: Decode = policy.decode
        self.normalize: Normalize | None = policy.normalize
        self.layers: Final = policy.layers
        self.observation_dim: Final = policy.observation_dim
        space = policy.decode.space
        if isinstance(space, spaces.Box):
            for name, array in zip(("middle", "half_width"), scale_of(space), strict=True):
                self.register_buffer(name, torch.from_numpy(array), persistent=False)

    @property
    def inputs(self) -> dict[str, int]:
        """The widths of its inputs, by name."""
        return {"observation": self.observation_dim, "reward": 1, "state": self.estimator.size}

    def forward(self, observation: Tensor, reward: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions and the next state.

        :param observation: ``(B, n)``.
        :param reward: the last reward, NaN where it is unknown, ``(B, 1)``.
        :param state: what the last call returned, zeros where an episode begins, ``(B, s)``.
        """
        memory, sums, outputs = self.estimator.step(observation, reward, state, eliminate)
        action = self.policy(observation, self.estimator.beliefs.context(outputs))
        begun = torch.ones_like(reward)
        return action, torch.cat([memory, sums, observation, self._encode(action), begun], dim=1)

    def _encode(self, action: Tensor) -> Tensor:
        """Return actions as the estimator reads them, ``(B, a)``."""
        space = self.decode.space
        if isinstance(space, spaces.Discrete):
            return functional.one_hot(action, int(space.n)).float()
        if isinstance(space, spaces.MultiDiscrete):
            columns = zip(space.nvec.tolist(), action.unbind(1), strict=True)
            return torch.cat([functional.one_hot(column, n).float() for n, column in columns], dim=1)
        if isinstance(space, spaces.MultiBinary):
            return action.flatten(1)
        return (action.flatten(1) - self.middle) / self.half_width  # pyright: ignore[reportOperatorIssue]


def save(agent: InferringAgent, path: str | Path, format: str = "onnx") -> None:
    """Write an agent to a file, having checked that it acts as the agent does.

    Its inputs are the observation ``(B, n)``, the last reward ``(B, 1)``, NaN where it is unknown, and the state ``(B,
    s)``, zeros where an episode begins. Its outputs are the action and the next state.

    :param path: the file to write; it must not exist.
    :param format: ``"onnx"``, or ``"pt2"`` for ``torch.export.load``.
    :raises ValueError: for another format, where the file exists, and for policies that :func:`hyperrl.export.save`
        does not export with the context left open.
    """
    if format not in FORMATS:
        raise ValueError(f"an agent that infers its context is written in the formats {list(FORMATS)}, got {format!r}")
    require_format(format)
    refuse_existing(path, "choose another file, or remove it")
    model = agent.model
    extractor = context_extractor(model.policy)
    assert extractor is not None  # an agent has one
    normalizer = model.get_vec_normalize_env()
    refuse_normalized_context(extractor.reader, normalizer)
    estimator = copy.deepcopy(agent.estimator).cpu().eval()
    module = HiddenPolicy(estimator, leave_open(model.policy, extractor, normalizer)).eval().requires_grad_(False)
    description = describe(module, extractor, None) | {"state": module.estimator.size}
    data = WRITERS[format](module, description)
    _check(READERS[format](data), agent, module)
    write_bytes(path, data)


def _check(run: Any, agent: InferringAgent, module: HiddenPolicy) -> None:
    """Compare some steps of what was written with the agent's.

    :raises RuntimeError: where they differ.
    """
    rng = np.random.default_rng(0)
    rows, space = 16, module.decode.space
    state = np.zeros((rows, module.estimator.size), dtype=np.float32)
    memory: Memory | None = None
    scale = max(1.0, np.abs([space.low, space.high]).max()) if isinstance(space, spaces.Box) else 1.0
    for _ in range(CHECKED):
        observation = rng.normal(size=(rows, module.observation_dim)).astype(np.float32)
        reward = np.where(rng.random((rows, 1)) < 0.5, np.nan, rng.normal(size=(rows, 1))).astype(np.float32)
        expected, memory = agent.predict(observation, memory, deterministic=True, reward=reward[:, 0])
        action, state = run(observation, reward, state)
        if action.shape != expected.shape or not np.abs(action - expected).max() <= 10 * TOLERANCE * scale:
            raise RuntimeError("what was to be written does not act as the agent does; nothing was written")
        state = np.where(np.isfinite(state), memory.state, state).astype(np.float32)  # so that errors do not add up
