"""A canvas on which physics draw their states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""A picture: red, green and blue of each pixel, shape ``(height, width, 3)``."""
Color = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

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
    """

    def __init__(self, reach: float) -> None:
        from PIL import Image, ImageDraw  # only who draws needs it

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

    def bar(self, left: float, bottom: float, right: float, top: float, color: Color) -> None:
        """Draw a filled rectangle; top and bottom may be given the other way round."""
        x, y = zip(self._place(left, bottom), self._place(right, top), strict=True)
        self._draw.rectangle((min(x), min(y), max(x), max(y)), color)

    def frame(self) -> Frame:
        """Return the picture, shape ``(SIZE, SIZE, 3)``."""
        from PIL import Image

        return np.asarray(self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return self._pixels / 2 + x * self._scale, self._pixels / 2 - y * self._scale
