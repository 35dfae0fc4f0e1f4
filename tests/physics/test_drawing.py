from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stable_baselines3 import PPO

import hyperrl
from hyperrl.report.films import record
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


@pytest.mark.parametrize("name", names("envs"))
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


def test_a_film_shows_a_panel_a_context(tmp_path: Path) -> None:
    family = hyperrl.load_family("double_integrator")
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), n_steps=8, batch_size=8, device="cpu", seed=0)
    contexts = family.context_space.sample("train", 3, 0)
    record(model, family, contexts, tmp_path / "film.gif", every=10)
    film: Any
    with Image.open(tmp_path / "film.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames == 11  # the start and each tenth of a hundred steps
        assert film.width == 3 * 240
    with pytest.raises(ValueError, match="is never overwritten"):
        record(model, family, contexts, tmp_path / "film.gif")
    with pytest.raises(ValueError, match=r"expected the name of a \.gif file"):
        record(model, family, contexts, tmp_path / "film.mov")
    with pytest.raises(ValueError, match="feature 'mass' must lie in"):
        record(model, family, [[9.0, 1.0]], tmp_path / "other.gif")


def test_only_arrays_are_drawn_of_physics_of_our_own() -> None:
    with pytest.raises(ValueError, match=r"unknown render_mode 'human': the modes are \['rgb_array'\]"):
        hyperrl.load_family("ode").make({}, render_mode="human")
