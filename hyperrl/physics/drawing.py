"""Pictures of a state in its context, for families that Gymnasium does not draw or draws alike in every context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frame = NDArray[np.uint8]
Color = tuple[int, int, int]

SIZE = 400  # pixels
OVERSAMPLING = 3  # against jagged edges
INK, GREY, GREEN, RED = (40, 40, 40), (190, 190, 190), (120, 190, 130), (204, 77, 77)


class Canvas:
    """A square picture in the units of the environment, x to the right and y upwards.

    :param reach: the largest coordinate that is shown, on either axis.
    """

    def __init__(self, reach: float) -> None:
        self._pixels = SIZE * OVERSAMPLING
        self._scale = self._pixels / (2 * reach)
        self._image = Image.new("RGB", (self._pixels, self._pixels), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: float) -> None:
        """Draw a line with round ends through points; its width is in the environment's units."""
        self._draw.line([self._place(*point) for point in points], color, max(1, round(width * self._scale)))
        for point in points:
            self.disc(point, width / 2, color)

    def disc(self, center: tuple[float, float], radius: float, color: Color) -> None:
        """Draw a filled circle."""
        x, y = self._place(*center)
        r = radius * self._scale
        self._draw.ellipse((x - r, y - r, x + r, y + r), color)

    def frame(self) -> Frame:
        """Return the picture, shape ``(SIZE, SIZE, 3)``."""
        return np.asarray(self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return self._pixels / 2 + x * self._scale, self._pixels / 2 - y * self._scale


def draw_pendulum(state: NDArray[np.float64], context: Mapping[str, float]) -> Frame:
    """Draw the rod as long as it is, and as thick as its mass makes it; 1.6 m are shown either way."""
    canvas = Canvas(1.6)
    angle, length = float(state[0]), context["length"]
    tip = (-length * math.sin(angle), length * math.cos(angle))
    canvas.line([(0, 0), tip], RED, 0.16 * math.sqrt(context["mass"] / length))
    canvas.disc((0, 0), 0.04, INK)
    return canvas.frame()


def draw_double_integrator(state: NDArray[np.float64], context: Mapping[str, float]) -> Frame:
    """Draw the square, the goal in it, and the mass as a disc whose area is proportional to it."""
    canvas = Canvas(1.25)
    canvas.line([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], GREY, 0.02)
    canvas.disc((0, 0), 0.1, GREEN)
    canvas.disc((float(state[0]), float(state[1])), 0.09 * math.sqrt(context["mass"]), RED)
    return canvas.frame()


def draw_ode(state: NDArray[np.float64], context: Mapping[str, float]) -> Frame:
    """Draw the number on a line from -2 to 2, at whose ends it stays where it is farther out."""
    canvas = Canvas(2.3)
    canvas.line([(-2, 0), (2, 0)], GREY, 0.03)
    canvas.line([(0, -0.3), (0, 0.3)], GREEN, 0.06)
    canvas.disc((min(max(float(state[0]), -2.0), 2.0), 0.0), 0.1, RED)
    return canvas.frame()


DRAWINGS: dict[str, Callable[[NDArray[np.float64], Mapping[str, float]], Frame]] = {
    "pendulum": draw_pendulum,
    "double_integrator": draw_double_integrator,
    "ode": draw_ode,
}
"""The drawing of each physics that has one here; the others are drawn by Gymnasium, in their context."""
