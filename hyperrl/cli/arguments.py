"""Arguments as users write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def assignments(texts: tuple[str, ...], example: str) -> dict[str, float]:
    """Read numbers by name as users write them: ``("length=0.7", "mass=1.2")``."""
    numbers = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ValueError(f"expected a name and its value, such as {example}, got {text!r}") from None
    return numbers
