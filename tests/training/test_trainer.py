"""What trains a recipe: DevicePPO where it can, else Stable-Baselines3."""

from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

import hyperrl
from hyperrl.device import DeviceSAC
from hyperrl.training import Run, agent_spec, build, train_seeds

SMALL: dict[str, Any] = {"n_envs": 8, "n_steps": 16, "batch_size": 64, "n_epochs": 2, "policy.net_arch": [8]}


class Interrupt(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps > 300:
            raise KeyboardInterrupt
        return True


def made(agent: str, trainer: str, device: str = "cpu", **overrides: Any) -> Any:
    return build(hyperrl.load_family("pendulum"), agent_spec(agent, overrides), device=device, trainer=trainer)


def test_the_trainer_is_what_is_asked_for_or_what_can() -> None:
    assert type(made("hyper-ppo", "sb3")) is PPO
    assert type(made("hyper-ppo", "device")) is type(made("hyper-ppo", "auto")) is hyperrl.DevicePPO
    assert type(made("hyper-ppo", "auto", observe_last_step=True)) is PPO
    assert type(made("hyper-ppo", "auto", device="meta")) is hyperrl.DevicePPO
    assert type(made("hyper-sac", "sb3")) is SAC
    assert type(made("hyper-sac", "device")) is type(made("hyper-sac", "auto")) is DeviceSAC
    with pytest.raises(ValueError, match=r"trainer='device' trains PPO and SAC, and 'algorithm' is 'TD3'"):
        made("hyper-sac", "device", algorithm="TD3")
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


def test_seeds_side_by_side_leave_a_run_folder_each(tmp_path: Path) -> None:
    spec = agent_spec("hyper-ppo", SMALL | {"target_kl": None})
    outs = [tmp_path / "a", tmp_path / "b"]
    models = train_seeds("pendulum", spec, steps=256, seeds=[3, 1], outs=outs, device="cpu")
    for model, seed, out in zip(models, (3, 1), outs, strict=True):
        run = Run.open(out)
        assert (run.training.seed, run.record.trainer, model.num_timesteps) == (seed, "device", 256)
        alone: Any = hyperrl.train("pendulum", spec, steps=256, seed=seed, device="cpu")
        written: Any = run.model("cpu")
        for mine, other in zip(written.policy.parameters(), alone.policy.parameters(), strict=True):
            assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-4)
        assert_allclose(written.get_vec_normalize_env().ret_rms.var, alone.env.ret_rms.var, rtol=1e-3)
        assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("pendulum", dict(seeds=[1, 1]), r"expected seeds, no two alike, got seeds=\[1, 1\]"),
        ("pendulum", dict(seeds=[1, 2], outs=["x"]), "expected a run folder for each of 2 seeds, got 1"),
        ("pendulum", dict(seeds=[1, 2], steps=0), "expected at least one step, got steps=0"),
    ],
)
def test_wrong_seeds_are_named(family: str, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_seeds(family, "hyper-ppo", **arguments)


def test_seeds_of_other_algorithms_are_refused() -> None:
    with pytest.raises(ValueError, match="side by side by PPO, and 'algorithm' is 'SAC'"):
        train_seeds("pendulum", "hyper-sac", seeds=[1, 2])


def test_seeds_that_fail_leave_nothing(tmp_path: Path) -> None:
    spec = agent_spec("hyper-ppo", SMALL | {"use_sde": True})
    with pytest.raises(ValueError, match="without gSDE"):
        train_seeds("pendulum", spec, steps=256, seeds=[0, 1], outs=[tmp_path / "a", tmp_path / "b"], device="cpu")
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
