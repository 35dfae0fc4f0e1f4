"""Agents that infer their context as files that run by themselves."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose
from stable_baselines3 import PPO
from toy import toy

import hyperrl
from hyperrl.inference import formats
from tests.inference.test_agent import KINDS, OBSERVATIONS, REWARDS, STARTS, STEPS, N, inferring


def run(path: Path) -> Any:
    """What a user without hyperrl does with a file."""
    if path.suffix == ".pt2":
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
        return lambda *inputs: [output.numpy() for output in module(*map(torch.as_tensor, inputs))]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["observation", "reward", "state"]
    assert [entry.name for entry in session.get_outputs()] == ["action", "next_state"]
    return lambda *inputs: session.run(None, dict(zip(("observation", "reward", "state"), inputs, strict=True)))


CASES = [pytest.param("action multidiscrete", "onnx", marks=pytest.mark.slow), ("SAC", "onnx"), ("normalised", "pt2")]


@pytest.mark.parametrize(("kind", "format"), CASES)
def test_a_file_acts_as_the_agent_does_step_by_step(kind: str, format: str, tmp_path: Path) -> None:
    action = kind.removeprefix("action ")
    model = KINDS[kind]() if kind in KINDS else PPO(hyperrl.HyperPolicy, toy(action), device="cpu", seed=0)
    agent = inferring(model)
    path = tmp_path / f"policy.{format}"
    formats.save(agent, path, format)
    act, memory = run(path), None
    state = np.zeros((N, agent.estimator.size), dtype=np.float32)
    for t in range(STEPS):
        known = np.where(np.arange(N) < 2, np.nan, REWARDS[t]).astype(np.float32)
        expected, memory = agent.predict(OBSERVATIONS[t], memory, STARTS[t], deterministic=True, reward=known)
        state = np.where(STARTS[t][:, None], np.float32(0), state)  # as a user clears it
        actions, state = act(OBSERVATIONS[t], known[:, None], state)
        assert_allclose(actions, expected, rtol=0, atol=1e-3)
        assert_allclose(state, memory.state, rtol=1e-3, atol=1e-3)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    agent = inferring(PPO(hyperrl.HyperPolicy, toy(), device="cpu"))
    with pytest.raises(ValueError, match=r"'onnx', 'pt2'.*'safetensors'"):
        formats.save(agent, tmp_path / "policy.safetensors", "safetensors")
