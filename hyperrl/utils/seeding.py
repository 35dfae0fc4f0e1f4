"""Seeds: checked, and spread over the integers."""

from __future__ import annotations

import numpy as np


def check_seed(seed: int) -> None:
    """Refuse a negative seed.

    :raises ValueError: in words; numpy's do not say what is negative.
    """
    if seed < 0:
        raise ValueError(f"expected a seed ≥ 0, got seed={seed}")


def stream(seed: int, *path: int) -> int:
    """Spread a user's seed over the integers: environments numbered from it do not meet those of ``seed + 1``.

    :param path: further numbers, each of which gives another stream.
    :raises ValueError: for a negative one.
    """
    check_seed(seed)
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0]) // 2
