"""Films: an agent at work in several contexts side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from hyperrl.families.family import Family
from hyperrl.utils.files import refuse_existing, write_bytes

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

PANEL = 240  # pixels
CAPTION_LINE = 15  # pixels


def record(
    model: BaseAlgorithm,
    family: Family,
    contexts: ArrayLike,
    path: str | Path,
    seed: int = 0,
    every: int = 2,
) -> None:
    """Film one episode in each context and write them side by side as an animated GIF.

    A panel whose episode is over stands still. Its caption says the context and the return so far.

    :param model: a model that acts on the family's observations.
    :param family: the family.
    :param contexts: shape ``(n, d)``, physical units.
    :param path: the file to write, ending in ``.gif``; it must not exist.
    :param seed: seed of the initial states.
    :param every: take every so many-th step.
    :raises ValueError: for a context out of bounds, and for a file that exists or is no GIF.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"expected the name of a .gif file, got {str(path)!r}")
    refuse_existing(path, "choose another file")
    contexts = family.context_space.matrix(contexts)
    envs = [family.make(context, render_mode="rgb_array") for context in contexts]
    observations = [env.reset(seed=seed)[0] for env in envs]
    returns, over = np.zeros(len(envs)), np.zeros(len(envs), dtype=bool)
    panels = [_panel(env, context, family, 0.0) for env, context in zip(envs, contexts, strict=True)]
    frames = [_side_by_side(panels)]
    step = 0
    while not over.all():
        step += 1
        for i in np.flatnonzero(~over):
            action, _ = model.predict(observations[i], deterministic=True)
            observations[i], reward, terminated, truncated, _ = envs[i].step(action)
            returns[i] += float(reward)
            over[i] = terminated or truncated
            if step % every == 0 or over[i]:
                panels[i] = _panel(envs[i], contexts[i], family, returns[i])
        if step % every == 0 or over.all():
            frames.append(_side_by_side(panels))
    for env in envs:
        env.close()
    milliseconds = round(1000 * every / envs[0].metadata.get("render_fps", 30))
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    write_bytes(path, buffer.getvalue())


def _panel(env: Any, context: np.ndarray, family: Family, score: float) -> Image.Image:
    """Draw an environment with its caption."""
    space = family.context_space
    lines = [
        f"{feature.name} = {value:.3g}{'' if feature.unit == '1' else ' ' + feature.unit}"
        for feature, value in zip(space.features, context, strict=True)
    ]
    lines.append(f"return {score:.0f}")
    frame = Image.fromarray(env.render())
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
