"""How estimates are written in the tables of the pages."""

from collections.abc import Iterable

from hyperrl.evaluation.statistics import Estimate


def shown(estimate: Estimate) -> str:
    """Write an estimate with its interval.

    >>> shown(Estimate(0.5, -0.25, 1.25))
    '0.500 [−0.250, 1.250]'
    """
    return str(estimate).replace("-", "−")


def numbers(counts: Iterable[int]) -> str:
    """Write how many there are of each of several things.

    >>> numbers([3, 5, 4]), numbers([2, 2])
    ('3–5', '2')
    """
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


def whole(estimate: Estimate) -> str:
    """Write an estimate of large numbers, without digits behind the point.

    >>> whole(Estimate(1463.7, -2.0, 1681.2))
    '1464 [−2, 1681]'
    """
    return "{:.0f} [{:.0f}, {:.0f}]".format(*estimate).replace("-", "−")
