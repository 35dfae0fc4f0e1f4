"""What trains a recipe: DevicePPO where it can, else Stable-Baselines3."""

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

import hyperrl
from hyperrl.training import Run, agent_spec, build

SMALL: dict[str, Any] = {"n_envs": 8, "n_steps": 16, "batch_size": 64, "n_epochs": 2, "policy.net_arch": [8]}


class Interrupt(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps > 300:
            raise KeyboardInterrupt
        return True


def made(agent: str, trainer: str, **overrides: Any) -> Any:
    return build(hyperrl.load_family("pendulum"), agent_spec(agent, overrides), device="cpu", trainer=trainer)


def test_the_trainer_is_what_is_asked_for_or_what_can() -> None:
    assert type(made("hyper-ppo", "sb3")) is PPO
    assert type(made("hyper-ppo", "device")) is type(made("hyper-ppo", "auto")) is hyperrl.DevicePPO
    assert type(made("hyper-ppo", "auto", observe_last_step=True)) is PPO
    assert type(made("hyper-sac", "auto")) is SAC
    with pytest.raises(ValueError, match=r"trainer='device' trains PPO, and 'algorithm' is 'SAC'"):
        made("hyper-sac", "device")
    with pytest.raises(ValueError, match="expected environments that step tensors"):
        made("hyper-ppo", "device", observe_last_step=True)
    with pytest.raises(ValueError, match=r"unknown trainer 'devise': known are .* Did you mean 'device'"):
        made("hyper-ppo", "devise")


def test_an_interrupted_training_is_resumed_by_its_trainer(tmp_path: Path) -> None:
    agent, arguments = agent_spec("hyper-ppo", SMALL), dict(steps=512, seed=1, device="cpu", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperrl.train("pendulum", agent, out=tmp_path / "x", callback=Interrupt(), trainer="sb3", **arguments)
    assert type(hyperrl.train("pendulum", agent, out=tmp_path / "x", resume=True, **arguments)) is PPO
    assert Run.open(tmp_path / "x").record.trainer == "sb3"


def test_a_run_says_what_trained_it_and_is_resumed_so(tmp_path: Path) -> None:
    agent, arguments = agent_spec("hyper-ppo", SMALL), dict(steps=512, seed=1, device="cpu", checkpoint_seconds=0)
    whole: Any = hyperrl.train("pendulum", agent, out=tmp_path / "whole", trainer="device", **arguments)
    with pytest.raises(KeyboardInterrupt):
        hyperrl.train("pendulum", agent, out=tmp_path / "x", callback=Interrupt(), trainer="device", **arguments)
    with pytest.raises(ValueError, match="was begun with --trainer device"):
        hyperrl.train("pendulum", agent, out=tmp_path / "x", resume=True, trainer="sb3", **arguments)
    hyperrl.train("pendulum", agent, out=tmp_path / "x", resume=True, **arguments)
    runs = [Run.open(tmp_path / name) for name in ("whole", "x")]
    assert runs[0].result.model == runs[1].result.model
    assert runs[1].record.trainer == "device"
    loaded = runs[1].model("cpu")
    assert type(loaded) is PPO
    observation = hyperrl.load_family("pendulum").vec_env(4, seed=3).reset()
    expected = whole.predict(observation, deterministic=True)[0]
    assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
