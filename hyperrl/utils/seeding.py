"""Seeds: checks, and independent streams."""

from __future__ import annotations

import numpy as np


def check_seed(seed: int) -> None:
    """Refuse a negative seed.

    :raises ValueError: with the seed; numpy's message does not say what is negative.
    """
    if seed < 0:
        raise ValueError(f"expected a seed ≥ 0, got seed={seed}")


def stream(seed: int, *path: int) -> int:
    """Map a user's seed to a distant integer, so that environments numbered from it and from ``seed + 1`` differ.

    :param path: further numbers; each gives another stream.
    :raises ValueError: for a negative seed.
    """
    check_seed(seed)
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0]) // 2
