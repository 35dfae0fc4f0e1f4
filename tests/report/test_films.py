"""Films: an agent plays in them as it does in an evaluation."""

import re
import subprocess
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

import hyperrl
from hyperrl.report.films import record
from hyperrl.rollouts import RandomActions

SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)
FAMILY = hyperrl.load_family("double_integrator")
CARTPOLE = hyperrl.load_family("cartpole")


def spied(model: Any) -> list[dict[str, Any]]:
    """Write down what a model is given and what it returns."""
    calls: list[dict[str, Any]] = []
    predict = model.predict

    def spy(observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        returned = predict(observation, state, episode_start, deterministic)
        calls.append(dict(observation=observation, state=state, start=episode_start, returned=returned[1]))
        return returned

    model.predict = spy
    return calls


def test_a_film_shows_a_panel_a_context(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = PPO(hyperrl.HyperPolicy, FAMILY.vec_env(2), **SIZES)
    contexts = FAMILY.context_space.sample("train", 3, 0)
    record(model, FAMILY, contexts, tmp_path / "film.gif", every=10, progress=True)
    film: Any
    with Image.open(tmp_path / "film.gif") as film:
        assert film.format == "GIF"
        assert film.n_frames == 11  # the start and each tenth of a hundred steps
        assert film.width == 3 * 240
    assert "100/100" in capfd.readouterr().err
    with pytest.raises(ValueError, match="is never overwritten"):
        record(model, FAMILY, contexts, tmp_path / "film.gif")
    with pytest.raises(ValueError, match=r"expected the name of a \.gif or \.mp4 file"):
        record(model, FAMILY, contexts, tmp_path / "film.mov")
    record(model, FAMILY, contexts, tmp_path / "short.gif", every=10, steps=35)
    with Image.open(tmp_path / "short.gif") as film:
        assert film.n_frames == 4
    with pytest.raises(ValueError, match="steps=0"):
        record(model, FAMILY, contexts, tmp_path / "other.gif", steps=0)
    with pytest.raises(ValueError, match="every=0"):
        record(model, FAMILY, contexts, tmp_path / "other.gif", every=0)
    with pytest.raises(ValueError, match="feature 'mass' must lie in"):
        record(model, FAMILY, [[9.0, 1.0]], tmp_path / "other.gif")


def test_mp4_shows_what_a_gif_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = CARTPOLE.context_space.sample("train", 3, 0)
    model = RandomActions(CARTPOLE.make().action_space, 3, seed=0)
    for suffix in (".gif", ".mp4"):
        record(model, CARTPOLE, contexts, tmp_path / f"film{suffix}", every=3)
        model = RandomActions(CARTPOLE.make().action_space, 3, seed=0)
    # The reader of imageio_ffmpeg leaves a pipe open.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "film.mp4"), "-f", "rawvideo", "-pix_fmt", "rgb24"]
    decoded = subprocess.run([*command, "-"], capture_output=True, check=True)
    found = re.search(r"Video: h264.* (\d+)x(\d+).* ([\d.]+) fps", decoded.stderr.decode())
    assert found is not None
    width, height = int(found[1]), int(found[2])
    assert_allclose(float(found[3]), 50 / 3, rtol=1e-2)
    shown = np.frombuffer(decoded.stdout, dtype=np.uint8).reshape(-1, height, width, 3)
    film: Any
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size) == (len(shown), (width, height))
        for i in (0, film.n_frames - 1):
            film.seek(i)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - shown[i]).mean() < 4
    monkeypatch.setattr("hyperrl.utils.extras.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"a film as \.mp4 needs imageio_ffmpeg: .*'\.\[film\]'"):
        record(model, CARTPOLE, contexts, tmp_path / "other.mp4")


def test_a_recurrent_agent_keeps_its_memory(tmp_path: Path) -> None:
    model = RecurrentPPO("MultiInputLstmPolicy", CARTPOLE.vec_env(2), **SIZES)
    calls = spied(model)
    record(model, CARTPOLE, CARTPOLE.context_space.sample("train", 2, 0), tmp_path / "film.gif")
    assert len(calls) > 2
    assert calls[0]["state"] is None
    assert calls[0]["start"].all()
    assert not calls[1]["start"].any()
    for before, after in zip(calls, calls[1:], strict=False):
        assert_array_equal(after["state"], before["returned"])


def test_statistics_of_vec_normalize_are_applied(tmp_path: Path) -> None:
    normalizer = VecNormalize(CARTPOLE.vec_env(2), norm_obs_keys=["observation"])
    model = PPO(hyperrl.HyperPolicy, normalizer, **SIZES).learn(200)
    calls = spied(model)
    context = CARTPOLE.context_space.default
    record(model, CARTPOLE, context[None], tmp_path / "film.gif", seed=4)
    raw, _ = CARTPOLE.make(context).reset(seed=4)
    expected = normalizer.normalize_obs({key: entry[None] for key, entry in raw.items()})
    for key, entry in calls[0]["observation"].items():
        assert_allclose(entry, expected[key], rtol=1e-6)


def test_an_agent_of_the_base_environment_and_any_object_are_filmed(tmp_path: Path) -> None:
    class Left:
        def predict(self, observation: Any) -> np.ndarray:
            return np.zeros(len(observation["context"]), dtype=int)

    contexts = CARTPOLE.context_space.sample("train", 2, 0)
    record(PPO("MlpPolicy", gym.make("CartPole-v1"), **SIZES), CARTPOLE, contexts, tmp_path / "base.gif")
    record(Left(), CARTPOLE, contexts, tmp_path / "left.gif")
    assert (tmp_path / "left.gif").is_file()


def test_the_last_frame_shows_the_end_of_each_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the beginning of the next one, which a VecEnv begins in the same step."""
    from hyperrl.report import films

    class Left:
        def predict(self, observation: Any) -> np.ndarray:
            return np.zeros(len(observation["context"]), dtype=int)

    contexts = CARTPOLE.context_space.sample("train", 3, 0)
    shown: list[tuple[np.ndarray, float]] = []
    panel = films._panel
    monkeypatch.setattr(
        films, "_panel", lambda image, caption, r: (shown.append((image, r)), panel(image, caption, r))[1]
    )
    record(Left(), CARTPOLE, contexts, tmp_path / "film.gif", seed=1, every=1000)
    ends = []
    for context in contexts:
        env = CARTPOLE.make(context, render_mode="rgb_array")
        env.reset(seed=1)
        total, over = 0.0, False
        while not over:
            _, reward, over, _, _ = env.step(0)
            total += float(reward)
        ends.append((env.render(), total))
    assert len(shown) == 6  # beginning and end of each
    for image, total in ends:
        assert any(np.array_equal(image, seen) and total == r for seen, r in shown[3:])
