"""Films: an agent at work in several contexts side by side."""

from __future__ import annotations

import io
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont
from stable_baselines3.common.vec_env import DummyVecEnv
from tqdm import tqdm

from hyperrl.families.family import Family
from hyperrl.rollouts.agent import Agent, Predictor
from hyperrl.rollouts.episodes import time_limit
from hyperrl.rollouts.loop import Tally, rollout
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
    every: int = 2,
    progress: bool = False,
) -> None:
    """Film one episode in each context and write them side by side as an animated GIF.

    A panel whose episode is over stands still. Its caption says the context and the return so far.

    :param model: see :func:`hyperrl.rollouts.play`: statistics of ``VecNormalize`` are applied, a recurrent model keeps
        its memory within an episode.
    :param family: the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param path: the file to write, ending in ``.gif``; it must not exist.
    :param seed: seed of the initial state, the same one in all contexts.
    :param every: take every so many-th step.
    :param progress: show a progress bar.
    :raises ValueError: for a context out of bounds, for a file that exists or is no GIF, for a model of other
        observations, and for a family whose episodes have no time limit.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"expected the name of a .gif file, got {str(path)!r}")
    refuse_existing(path, "choose another file")
    limit = time_limit(family)
    contexts = family.context_space.matrix(contexts)
    captions = [_caption(context, family) for context in contexts]
    tally = Tally(len(contexts))
    bar = tqdm(total=limit, disable=not progress, desc="record", unit="step")
    with closing(DummyVecEnv([partial(_filmed, family, context, seed, every) for context in contexts])) as vec_env, bar:
        observation = vec_env.reset()
        panels = [
            _panel(image, caption, 0.0) for image, caption in zip(vec_env.env_method("render"), captions, strict=True)
        ]
        frames = [_side_by_side(panels)]
        for number, step in enumerate(rollout(Agent(model, vec_env.observation_space), vec_env, observation), 1):
            playing = tally.playing
            tally.add(step)
            for i in playing.nonzero()[0]:
                if IMAGE in step.infos[i]:
                    panels[i] = _panel(step.infos[i][IMAGE], captions[i], tally.returns[i, 0])
            is_over = not tally.playing.any()
            if number % every == 0 or is_over:
                frames.append(_side_by_side(panels))
            bar.update(limit - bar.n if is_over else 1)
            if is_over:
                break
        milliseconds = round(1000 * every / vec_env.metadata.get("render_fps", 30))
        bar.set_description("write")
        buffer = io.BytesIO()
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
        write_bytes(path, buffer.getvalue())


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
            info = info | {IMAGE: self.env.render()}
        self.is_over = self.is_over or terminated or truncated
        return observation, reward, terminated, truncated, info


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
    film = Image.new("RGB", (PANEL * len(panels), panels[0].height), "white")
    for i, panel in enumerate(panels):
        film.paste(panel, (PANEL * i, 0))
    return film
