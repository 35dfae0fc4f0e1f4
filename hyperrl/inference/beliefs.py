"""Beliefs: distributions over contexts, parametrised by the outputs of a network."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from hyperrl.contexts import ContextSpace, Feature, Interval

FINEST: Final = -6.0  # logarithm of the smallest standard deviation, in half widths of an interval
COARSEST: Final = 2.0
RATIO: Final = 3.0  # bounds of one sign that are this many times apart are taken on a logarithmic scale
NEVER: Final = -1e9  # the logit of an interval that there is not
INTERVAL: Final = 0.95


class Belief(NamedTuple):
    """What is believed of ``d`` features, in physical units."""

    context: Tensor
    """The context to act on, in bounds, shape ``(..., d)``: the median within each feature's most likely interval."""
    mean: Tensor
    """Shape ``(..., d)``."""
    std: Tensor
    """Shape ``(..., d)``."""
    low: Tensor
    """Lower end of the 95 % interval, shape ``(..., d)``."""
    high: Tensor
    """Upper end of the 95 % interval, shape ``(..., d)``."""


class Beliefs(nn.Module):
    """Independent distributions of features, each over the intervals of its bounds.

    A feature's bounds are one interval or several, such as those of a gain that may be negative, or a list of choices.
    Its distribution is a probability for each interval, and a normal distribution within each that has a width: of
    the value, or of its logarithm where the bounds span a wide ratio. Outputs of zero are the middle of each interval.

    :param space: the features.
    :param bounds: scale outputs by the bounds, where contexts are drawn from these, rather than by the training range.

    >>> from hyperrl import load_family
    >>> beliefs = Beliefs(load_family("double_integrator").context_space)
    >>> beliefs(torch.zeros(1, beliefs.outputs)).context.shape
    torch.Size([1, 2])
    """

    low: Tensor  # (d, k), as all of these: k intervals of each feature, of which some may not be there
    high: Tensor
    middle: Tensor  # of the values, or of their logarithms
    half_width: Tensor
    sign: Tensor
    is_log: Tensor
    is_there: Tensor
    is_point: Tensor

    def __init__(self, space: ContextSpace, bounds: bool = False) -> None:
        super().__init__()
        self.bounds: Final = bounds
        k = max(len(feature.bounds) for feature in space.features)
        columns: dict[str, list[list[float]]] = {}
        for feature in space.features:
            rows = [_interval(feature, interval, bounds) for interval in feature.bounds]
            rows += [rows[-1] | {"is_there": False}] * (k - len(rows))
            for name in rows[0]:
                columns.setdefault(name, []).append([float(row[name]) for row in rows])
        for name, values in columns.items():
            tensor = torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, tensor.bool() if name.startswith("is_") else tensor.float(), persistent=False)
        self.outputs: Final = 3 * self.low.numel()
        """How many numbers parametrise a belief."""

    def log_prob(self, outputs: Tensor, context: Tensor) -> Tensor:
        """Return the log likelihood of each feature of contexts in scaled units: ``(..., m), (..., d) -> (..., d)``."""
        weight, mean, log_std = self._split(outputs)
        value = context.unsqueeze(-1)  # (..., d, 1)
        distance = (self.low - value).clamp(min=0) + (value - self.high).clamp(min=0)
        own = distance.masked_fill(~self.is_there, math.inf).argmin(-1, keepdim=True)  # (..., d, 1)
        magnitude = (value * self.sign).clamp(min=1e-12)
        scaled = (torch.where(self.is_log, magnitude.log() * self.sign, value) - self.middle) / self.half_width
        normal = -0.5 * ((scaled - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
        likelihood = weight + normal.masked_fill(self.is_point, 0.0)
        return likelihood.gather(-1, own).squeeze(-1)

    def context(self, outputs: Tensor) -> Tensor:
        """Return the context to act on: ``(..., m) -> (..., d)``, see :class:`Belief`."""
        log_weight, center, _ = self._split(outputs)
        likeliest = log_weight.argmax(-1, keepdim=True)
        return self._physical(center, clip=True).gather(-1, likeliest).squeeze(-1)

    def forward(self, outputs: Tensor) -> Belief:
        """Return the belief that outputs ``(..., m)`` parametrise."""
        log_weight, center, log_std = self._split(outputs)
        weight, spread = log_weight.exp(), log_std.exp().masked_fill(self.is_point, 0.0)
        # Moments within each interval: of a normal, or of a log-normal distribution.
        s = spread * self.half_width
        middle = self._physical(center)
        mean = torch.where(self.is_log, middle * (0.5 * s.square()).exp(), middle)
        std = torch.where(self.is_log, mean.abs() * torch.expm1(s.square()).sqrt(), s)
        overall = (weight * mean).sum(-1)
        variance = (weight * (std.square() + (mean - overall.unsqueeze(-1)).square())).sum(-1)
        low, high = (self._quantile(q, weight, center, spread) for q in ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
        return Belief(self.context(outputs), overall, variance.sqrt(), low, high)

    def _split(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logarithms of weights, means and logarithms of standard deviations, each ``(..., d, k)``."""
        logits, mean, log_std = outputs.unflatten(-1, (3, *self.low.shape)).unbind(-3)
        log_weight = logits.masked_fill(~self.is_there, NEVER).log_softmax(-1)
        mean = mean.masked_fill(self.is_point, 0.0)
        return log_weight, mean, (log_std - 0.5).clamp(FINEST, COARSEST)  # of a uniform distribution: -0.55

    def _physical(self, scaled: Tensor, clip: bool = False) -> Tensor:
        """Return values in physical units of ones in scaled units, ``(..., d, k)``."""
        value = scaled * self.half_width + self.middle
        value = torch.where(self.is_log, self.sign * (self.sign * value).clamp(max=50.0).exp(), value)
        return value.maximum(self.low).minimum(self.high) if clip else value

    def _quantile(self, q: float, weight: Tensor, center: Tensor, spread: Tensor) -> Tensor:
        """Return a quantile of each feature, in bounds, ``(..., d)``: the intervals follow one another."""
        above = weight.cumsum(-1)
        of = (above < q).sum(-1, keepdim=True).clamp(max=weight.shape[-1] - 1)  # the interval it lies in
        within = (q - (above - weight).gather(-1, of)) / weight.gather(-1, of).clamp(min=1e-12)
        z = torch.special.ndtri(within.clamp(1e-6, 1 - 1e-6))
        return self._physical(center + spread * z, clip=True).gather(-1, of).squeeze(-1)


def _interval(feature: Feature, interval: Interval, bounds: bool) -> dict[str, float | bool]:
    """Describe one interval of a feature's bounds."""
    low, high = interval
    inside = [(a, b) for a, b in feature.train if low <= a and b <= high]
    start, end = (inside[0][0], inside[-1][1]) if inside and not bounds else interval
    sign = -1.0 if high <= 0 else 1.0
    near, far = sorted((abs(low), abs(high)))
    is_log = low * high > 0 and far >= RATIO * near
    if is_log:
        start, end = (sign * math.log(abs(x)) for x in (start, end))
    return {
        "low": low,
        "high": high,
        "middle": (start + end) / 2,
        "half_width": (end - start) / 2 or 1.0,
        "sign": sign,
        "is_log": is_log,
        "is_there": True,
        "is_point": low == high,
    }
