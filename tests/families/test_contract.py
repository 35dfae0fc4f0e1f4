from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

import hyperrl
from hyperrl.contexts import ContextSpace, Feature
from hyperrl.families import contract
from hyperrl.families.contract import check_family
from hyperrl.physics.base import Context
from hyperrl.physics.pendulum import Pendulum
from hyperrl.utils.definitions import folder, names

LENGTH = Feature("length", "m", 1.0, train=((0.8, 1.2),), bounds=((0.6, 1.4),))
EVERY = {
    "feature length acts",
    "the default context is the base",
    "the same seed gives the same episodes",
    "environments do not leak into one another",
    "observations lie in their space",
    "Gymnasium's checker",
    "Stable-Baselines3's checker",
    "episodes have a time limit",
}


class Stick(PendulumEnv):
    """A pendulum whose actions are as Stable-Baselines3 asks for."""


def apply(env: Any, context: Any) -> None:
    env.l = context["length"]


def family(make: Any = Stick, apply: Any = apply, feature: Feature = LENGTH, **kwargs: Any) -> hyperrl.Family:
    return hyperrl.Family(make, ContextSpace((feature,)), apply, name="stick", **{"max_episode_steps": 200} | kwargs)


def faults(family: hyperrl.Family) -> set[str]:
    return {finding.check for finding in check_family(family) if finding.fault is not None}


@pytest.mark.parametrize("name", names("envs"))
def test_packaged_families_keep_what_they_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shorter episodes than users': ``test_families`` and ``test_physics`` check the same in long ones."""
    monkeypatch.setattr(contract, "STEPS", 40)
    assert {finding.fault for finding in check_family(hyperrl.load_family(name))} == {None}


def test_what_is_checked() -> None:
    findings = check_family(family())
    assert {finding.check for finding in findings} == EVERY
    assert {finding.fault for finding in findings} == {None}
    assert any("normalized" in finding.note for finding in findings)


def nothing(env: Any, context: Any) -> None:
    env.lenght = context["length"]


def everybody(env: Any, context: Any) -> None:
    Stick.l = context["length"]  # pyright: ignore[reportAttributeAccessIssue]


class Random(Stick):
    """Draws from nobody's generator."""

    rng = np.random.default_rng(0)

    def step(self, u: Any) -> Any:
        observation, *rest = super().step(u)
        return observation + self.rng.normal(0, 1e-3, 3).astype(np.float32).clip(-1, 0), *rest


class OutOfSpace(Stick):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-0.5, 0.5, (3,))


class OtherType(Stick):
    def step(self, u: Any) -> Any:
        observation, *rest = super().step(u)
        return observation.astype(np.float64), *rest


class Broken(Stick):
    def step(self, u: Any) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        (family(apply=nothing), {"feature length acts"}),
        (
            family(feature=Feature("length", "m", 1.1, train=((0.8, 1.2),), bounds=((0.6, 1.4),))),
            {"the default context is the base"},
        ),
        (family(OutOfSpace), {"observations lie in their space", "Gymnasium's checker", "Stable-Baselines3's checker"}),
        (family(max_episode_steps=None), {"episodes have a time limit"}),
    ],
    ids=["feature", "default", "space", "limit"],
)
def test_each_fault_fails_its_check(broken: hyperrl.Family, failing: set[str]) -> None:
    assert faults(broken) == failing


def test_a_shared_attribute_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stick, "l", 1.0, raising=False)
    monkeypatch.setattr(Stick, "__init__", forgetful)
    assert faults(family(apply=everybody)) >= {"environments do not leak into one another"}


def forgetful(self: Any) -> None:
    PendulumEnv.__init__(self)
    del self.l  # that of the class is used


def test_randomness_that_no_seed_reaches() -> None:
    found = faults(family(Random))
    assert "the same seed gives the same episodes" in found
    assert "the default context is the base" in found


def test_another_type_than_the_space_says() -> None:
    assert faults(family(OtherType)) == {"observations lie in their space", "Stable-Baselines3's checker"}


def test_what_the_environment_raises_is_a_finding() -> None:
    findings = check_family(family(Broken))
    assert "RuntimeError: no" in {finding.fault for finding in findings}


class Blurred(Pendulum):
    """Its rows know of each other."""

    def step(self, state: Tensor, action: Tensor, c: Context) -> tuple[Tensor, Tensor, Tensor]:
        state, reward, terminated = super().step(state, action, c)
        return state + 1e-3 * (state.mean(dim=0) - state), reward, terminated


PENDULUM = hyperrl.load_family("pendulum")


def test_physics_of_other_dynamics(tmp_path: Path) -> None:
    text = (folder("envs") / "pendulum.toml").read_text(encoding="utf-8")
    (tmp_path / "light.toml").write_text(text.replace('m = "mass"', 'm = "mass * 1.01"'), encoding="utf-8")
    assert faults(hyperrl.load_family(tmp_path / "light.toml")) == {
        "the default context is the base",
        "batched physics equal the single environment",
    }


def test_physics_whose_rows_depend_on_each_other() -> None:
    blurred = hyperrl.Family(
        None, PENDULUM.context_space, None, name="blurred", physics=Blurred(), max_episode_steps=200
    )
    assert faults(blurred) == {"rows of the physics are independent"}
    assert torch.is_tensor(Blurred().initial(torch.rand(2, 2), {}))


class Windy(Stick):
    """As LunarLander's: a knob that works only where an argument says so."""

    def __init__(self, enable_wind: bool = False) -> None:
        super().__init__()
        self.enable_wind, self.wind_power = enable_wind, 0.0

    def step(self, u: Any) -> Any:
        return super().step(u + self.wind_power if self.enable_wind else u)


def test_wind_power_without_wind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, "Windy-v0", EnvSpec("Windy-v0", entry_point=Windy, max_episode_steps=200))
    definition = """
        id = "my/Windy-v0"
        base = "Windy-v0"
        {kwargs}
        [features.wind_power]
        unit = "N m"
        default = 0.0
        train = [0.0, 0.5]
        bounds = [0.0, 1.0]
        [attributes]
        wind_power = "wind_power"
    """
    for name, kwargs, failing in (
        ("calm", "", {"feature wind_power acts"}),
        ("windy", "base_kwargs = { enable_wind = true }", set()),
    ):
        (tmp_path / f"{name}.toml").write_text(definition.format(kwargs=kwargs))
        assert faults(hyperrl.load_family(tmp_path / f"{name}.toml")) == failing
