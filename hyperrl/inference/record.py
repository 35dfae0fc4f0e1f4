"""What is written down of an estimator: what it infers, and how it was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from hyperrl.contexts import Feature
from hyperrl.utils.errors import nearest
from hyperrl.utils.seeding import check_seed

STEPS: Final = 1_500_000
"""Environment steps to learn from, by default."""
SWITCH: Final = (20, 200)
"""Steps between two contexts of an episode, by default."""
RANGES: Final = ("train", "bounds")
"""Where the contexts to learn from may be drawn from."""


@dataclass(frozen=True)
class Learning:
    """How an estimator is learnt, see :func:`~hyperrl.infer_context`.

    :param steps: environment steps.
    :param seed: the same seed gives the same estimator.
    :param contexts: where they are drawn from.
    :param switch: the least and the greatest number of steps after which the context changes, or ``None``.
    :raises ValueError: for no steps, a seed that is none, and for other contexts than :data:`RANGES`.
    """

    steps: int = STEPS
    seed: int = 0
    contexts: str = "train"
    switch: tuple[int, int] | None = SWITCH

    def __post_init__(self) -> None:
        if self.contexts not in RANGES:
            raise ValueError(
                f"unknown contexts {self.contexts!r}: they are {list(RANGES)}.{nearest(self.contexts, RANGES)}"
            )
        if self.steps < 1:
            raise ValueError(f"expected at least one step, got steps={self.steps}")
        check_seed(self.seed)


@dataclass(frozen=True)
class EstimatorRecord:
    """What the file of an estimator says beside its numbers.

    :param features: the features that it infers.
    :param hidden: see :class:`~hyperrl.inference.Estimator`, as for ``bounds``.
    :param learning: how it was learnt; of older files unknown.
    """

    SCHEMA: ClassVar[str] = "estimator-1"

    features: tuple[Feature, ...]
    hidden: int
    bounds: bool
    learning: Learning | None = None
