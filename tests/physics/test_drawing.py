from typing import Any

import numpy as np
import pytest

import hyperrl
from hyperrl.families.definition import family_spec
from hyperrl.utils.definitions import names


def picture(family: str, context: dict[str, float], state: Any = None) -> np.ndarray:
    env = hyperrl.load_family(family).make(context, render_mode="rgb_array")
    env.reset(seed=0)
    if state is not None:
        inner: Any = env.unwrapped
        inner.env.state = state
    frame: Any = env.render()
    env.close()
    return np.asarray(frame)


# MuJoCo draws with OpenGL, which is not everywhere.
@pytest.mark.parametrize("name", [name for name in names("envs") if family_spec(name).definition.physics != "mujoco"])
def test_every_family_is_drawn(name: str) -> None:
    frame = picture(name, {})
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 2


def inked_height(frame: np.ndarray) -> int:
    """How many rows of pixels show something red."""
    red = (frame[..., 0].astype(int) - frame[..., 1] > 40).any(axis=1)
    return int(red.sum())


def test_a_longer_pendulum_is_longer() -> None:
    short, long = (inked_height(picture("pendulum", {"length": x}, np.zeros(2))) for x in (0.7, 1.4))
    assert 1.7 < long / short < 2.1


def test_a_heavier_mass_is_larger() -> None:
    light, heavy = (inked_height(picture("double_integrator", {"mass": x})) for x in (0.5, 2.0))
    assert 1.8 < heavy / light < 2.2


def test_gymnasiums_own_drawings_show_the_context() -> None:
    short, long = (picture("cartpole", {"length": x}, np.zeros(4)) for x in (0.3, 0.9))
    assert (short != long).any()


def test_only_arrays_are_drawn_of_physics_of_our_own() -> None:
    with pytest.raises(ValueError, match=r"unknown render_mode 'human': the modes are \['rgb_array'\]"):
        hyperrl.load_family("ode").make({}, render_mode="human")
