"""A canvas on which physics draw their states: as shapes, which become pixels, or SVG for a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Frame = NDArray[np.uint8]
"""A picture: red, green and blue of each pixel, shape ``(height, width, 3)``."""
Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Point = tuple[float, float]

SIZE = 400  # pixels
OVERSAMPLING = 3  # against jagged edges
INK, GREY, GREEN, RED = (40, 40, 40), (190, 190, 190), (120, 190, 130), (204, 77, 77)


class Canvas:
    """A square picture in the units of the environment, x to the right and y upwards.

    :param reach: the largest coordinate that is shown, on either axis.

    >>> canvas = Canvas(reach=1.5)
    >>> canvas.line([(0, 0), (1, 1)], INK, width=0.1)
    >>> canvas.disc((1, 1), 0.2, RED)
    >>> canvas.frame().shape
    (400, 400, 3)
    >>> canvas.svg().count("<")
    2
    """

    def __init__(self, reach: float) -> None:
        self._reach = reach
        self._shapes: list[_Line | _Disc | _Bar] = []

    def line(self, points: Sequence[Point], color: Color, width: float) -> None:
        """Draw a line with round ends through points; its width is in the environment's units."""
        self._shapes.append(_Line([*points], color, width))

    def disc(self, center: Point, radius: float, color: Color) -> None:
        """Draw a filled circle."""
        self._shapes.append(_Disc(center, radius, color))

    def bar(self, left: float, bottom: float, right: float, top: float, color: Color) -> None:
        """Draw a filled rectangle; top and bottom may be given the other way round."""
        self._shapes.append(_Bar((left, bottom), (right, top), color))

    def frame(self) -> Frame:
        """Return the picture, shape ``(SIZE, SIZE, 3)``."""
        from PIL import Image, ImageDraw  # only who wants pixels needs it

        image = Image.new("RGB", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), "white")
        draw = ImageDraw.Draw(image)
        place, scale = self._scaled(SIZE * OVERSAMPLING)
        for shape in self._shapes:
            shape.paint(draw, place, scale)
        return np.asarray(image.reduce(OVERSAMPLING))

    def svg(self) -> str:
        """Return the picture as elements of an SVG whose view box is ``0 0 SIZE SIZE``."""
        place, scale = self._scaled(SIZE)
        return "".join(shape.svg(place, scale) for shape in self._shapes)

    def _scaled(self, pixels: int) -> tuple[Callable[[Point], Point], float]:
        """Return what maps points to pixels, from the top left, and how many pixels a unit has."""
        scale = pixels / (2 * self._reach)
        return lambda point: (pixels / 2 + point[0] * scale, pixels / 2 - point[1] * scale), scale


class _Line(NamedTuple):
    points: list[Point]
    color: Color
    width: float

    def paint(self, draw: ImageDraw, place: Callable[[Point], Point], scale: float) -> None:
        draw.line([place(point) for point in self.points], self.color, max(1, round(self.width * scale)))
        for point in self.points:
            _Disc(point, self.width / 2, self.color).paint(draw, place, scale)

    def svg(self, place: Callable[[Point], Point], scale: float) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, self.points))
        return (
            f'<polyline points="{points}" fill="none" stroke="{_hex(self.color)}" '
            f'stroke-width="{self.width * scale:.1f}" stroke-linecap="round" stroke-linejoin="round"/>'
        )


class _Disc(NamedTuple):
    center: Point
    radius: float
    color: Color

    def paint(self, draw: ImageDraw, place: Callable[[Point], Point], scale: float) -> None:
        x, y = place(self.center)
        r = self.radius * scale
        draw.ellipse((x - r, y - r, x + r, y + r), self.color)

    def svg(self, place: Callable[[Point], Point], scale: float) -> str:
        x, y = place(self.center)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{self.radius * scale:.1f}" fill="{_hex(self.color)}"/>'


class _Bar(NamedTuple):
    one: Point
    opposite: Point
    color: Color

    def _box(self, place: Callable[[Point], Point]) -> tuple[float, float, float, float]:
        x, y = zip(place(self.one), place(self.opposite), strict=True)
        return min(x), min(y), max(x), max(y)

    def paint(self, draw: ImageDraw, place: Callable[[Point], Point], scale: float) -> None:
        draw.rectangle(self._box(place), self.color)

    def svg(self, place: Callable[[Point], Point], scale: float) -> str:
        left, top, right, bottom = self._box(place)
        return (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
            f'fill="{_hex(self.color)}"/>'
        )


def _hex(color: Color) -> str:
    return "#" + bytes(color).hex()
