"""Films: an agent at work in several contexts side by side."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont
from stable_baselines3.common.vec_env import DummyVecEnv
from tqdm import tqdm

from hyperrl.contexts import Vector
from hyperrl.families.context_env import ContextEnv
from hyperrl.families.family import Family
from hyperrl.physics.canvas import Canvas, Frame
from hyperrl.rollouts.agent import Agent, Predictor
from hyperrl.rollouts.episodes import time_limit
from hyperrl.rollouts.loop import Tally, rollout
from hyperrl.utils.extras import require
from hyperrl.utils.files import refuse_existing, write_bytes

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

PANEL = 240  # pixels
CAPTION_LINE = 15  # pixels
IMAGE = "image"  # of an environment, in its info


def record(
    model: BaseAlgorithm | Predictor,
    family: Family,
    contexts: ArrayLike,
    path: str | Path,
    seed: int = 0,
    every: int | None = None,
    progress: bool = False,
    steps: int | None = None,
) -> None:
    """Film one episode in each context and write them side by side, as an animated GIF or as MP4.

    A panel whose episode is over stands still. Its caption says the context and the return so far.

    :param model: see :func:`hyperrl.rollouts.play`: statistics of ``VecNormalize`` are applied, a recurrent model keeps
        its memory within an episode.
    :param family: the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param path: the file to write, ending in ``.gif`` or ``.mp4``; it must not exist.
    :param seed: seed of the initial state, the same one in all contexts.
    :param every: take every so many-th step; by default every second one for a GIF, all for MP4.
    :param progress: show a progress bar.
    :param steps: film no more steps than these; whole episodes by default.
    :raises ValueError: for a context out of bounds, for a file that exists or is neither GIF nor MP4, for a model of
        other observations, for a family whose episodes have no time limit or that cannot be drawn, and for MP4 without
        the library that writes it.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"expected the name of a .gif or .mp4 file, got {str(path)!r}")
    if path.suffix == ".mp4":
        require("a film as .mp4", "film", "imageio_ffmpeg")
    if every is not None and every < 1:
        raise ValueError(f"expected to film every so many-th step, got every={every}")
    if steps is not None and steps < 1:
        raise ValueError(f"expected to film one step or more, got steps={steps}")
    refuse_existing(path, "choose another file")
    limit = time_limit(family) if steps is None else min(steps, time_limit(family))
    contexts = family.context_space.matrix(contexts)
    every = every or (2 if path.suffix == ".gif" else 1)
    bar = tqdm(total=limit, disable=not progress, desc="record", unit="step")
    with closing(DummyVecEnv([partial(_filmed, family, context, seed, every) for context in contexts])) as vec_env, bar:
        frames = _frames(Agent(model, vec_env.observation_space), vec_env, family, contexts, every, limit, bar)
        rate = vec_env.metadata.get("render_fps", 30) / every
        write_bytes(path, _gif(frames, rate) if path.suffix == ".gif" else _mp4(frames, rate))


def _frames(
    agent: Agent, vec_env: DummyVecEnv, family: Family, contexts: Vector, every: int, limit: int, bar: tqdm[Any]
) -> Iterator[Image.Image]:
    """Play until all first episodes are over, and yield frames: the start, every so many-th step, the end.

    After ``limit`` steps they are over, or left.
    """
    captions = [_caption(context, family) for context in contexts]
    tally = Tally(len(contexts))
    observation = vec_env.reset()
    images = vec_env.env_method("draw_frame")
    panels = [_panel(image, caption, 0.0) for image, caption in zip(images, captions, strict=True)]
    yield _side_by_side(panels)
    for number, step in enumerate(rollout(agent, vec_env, observation), 1):
        playing = tally.playing
        tally.add(step)
        for i in playing.nonzero()[0]:
            if IMAGE in step.infos[i]:
                panels[i] = _panel(step.infos[i][IMAGE], captions[i], tally.returns[i, 0])
        is_over = not tally.playing.any()
        bar.update(bar.total - bar.n if is_over else 1)
        if number % every == 0 or is_over:
            yield _side_by_side(panels)
        if is_over or number >= limit:
            return


def _gif(frames: Iterator[Image.Image], rate: float) -> bytes:
    """Return an animated GIF of so many frames per second."""
    buffer = io.BytesIO()
    next(frames).save(buffer, "GIF", save_all=True, append_images=frames, duration=round(1000 / rate), loop=0)
    return buffer.getvalue()


def _mp4(frames: Iterator[Image.Image], rate: float) -> bytes:
    """Return an MP4, in H.264, of so many frames per second."""
    import imageio_ffmpeg

    first, fps = next(frames), cast(int, rate)  # fractions are taken too
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "film.mp4")
        writer = imageio_ffmpeg.write_frames(
            str(film),
            first.size,
            fps=fps,
            macro_block_size=2,
            quality=8,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        try:
            for frame in chain([first], frames):
                writer.send(frame.tobytes())
        finally:
            writer.close()
        return film.read_bytes()


class _Filmed(gym.Wrapper[Any, Any, Any, Any]):
    """Begins every episode alike, and puts images of the first one into its infos.

    A ``VecEnv`` begins the next episode within the step that ends one: from outside, the end is never seen.

    :param env: an environment that renders arrays.
    :param seed: of the initial state.
    :param every: take every so many-th step, and the last.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int, every: int) -> None:
        super().__init__(env)
        self.seed = seed
        self.every = every
        self.taken = 0
        self.is_over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=self.seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.taken += 1
        if not self.is_over and (self.taken % self.every == 0 or terminated or truncated):
            info = info | {IMAGE: self.draw_frame()}
        self.is_over = self.is_over or terminated or truncated
        return observation, reward, terminated, truncated, info

    def draw_frame(self) -> Frame:
        """Draw the environment.

        :raises ValueError: where it cannot be drawn.
        """
        env: ContextEnv = self.env.unwrapped  # pyright: ignore[reportAssignmentType]
        drawn = env.draw()
        return drawn.frame() if isinstance(drawn, Canvas) else drawn


def _filmed(family: Family, context: np.ndarray, seed: int, every: int) -> _Filmed:
    return _Filmed(family.make(context, render_mode="rgb_array"), seed, every)


def _caption(context: np.ndarray, family: Family) -> list[str]:
    """Say a context in words, a line a feature."""
    return [
        f"{feature.name} = {value:.3g}{'' if feature.unit == '1' else ' ' + feature.unit}"
        for feature, value in zip(family.context_space.features, context, strict=True)
    ]


def _panel(image: np.ndarray, caption: list[str], episode_return: float) -> Image.Image:
    """Put a caption and the return so far under an image of the environment."""
    lines = [*caption, f"return {episode_return:.0f}"]
    frame = Image.fromarray(image)
    frame = frame.resize((PANEL, round(PANEL * frame.height / frame.width)))
    panel = Image.new("RGB", (PANEL, frame.height + CAPTION_LINE * len(lines) + 6), "white")
    panel.paste(frame)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)  # has m/s²
    for i, line in enumerate(lines):
        ImageDraw.Draw(panel).text((8, frame.height + CAPTION_LINE * i), line, "black", font)
    return panel


def _side_by_side(panels: list[Image.Image]) -> Image.Image:
    height = panels[0].height + panels[0].height % 2  # of which MP4 halves both sides
    film = Image.new("RGB", (PANEL * len(panels), height), "white")
    for i, panel in enumerate(panels):
        film.paste(panel, (PANEL * i, 0))
    return film
