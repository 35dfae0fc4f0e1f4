"""Context spaces: the named physical features over which a family of environments varies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from hyperrl.utils.errors import nearest
from hyperrl.utils.seeding import check_seed

Interval = tuple[float, float]
Vector = NDArray[np.float64]

SPLITS = ("train", "interpolation", "extrapolation")
MESH_SPLITS = ("mesh-train", "mesh-interpolation", "mesh-extrapolation")
"""The same by the protocol of the Actuator Inversion Benchmark (Benad et al. 2026), see :meth:`ContextSpace.sample`."""
MESH_VALUES = 50
MESH_MARGIN = 0.01


@dataclass(frozen=True)
class Feature:
    """One named number of the context, with its ranges.

    A range is a union of closed intervals in increasing order: ``((-2, -0.5), (0.5, 2))`` has a gap around zero. A list
    of choices is a union of intervals of no width: ``((-1, -1), (1, 1))``.

    :param name: the name that users write.
    :param unit: the physical unit, ``"1"`` for none.
    :param default: the value of the unmodified environment.
    :param train: the training range.
    :param bounds: the outer bounds, which contain the training range; a value outside is refused.
    :param relevant: whether the environment depends on it; see :meth:`ContextSpace.with_irrelevant`.

    >>> Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),))
    Feature(name='length', unit='m', default=1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),), relevant=True)
    """

    name: str
    unit: str
    default: float
    train: tuple[Interval, ...]
    bounds: tuple[Interval, ...]
    relevant: bool = True

    def __post_init__(self) -> None:
        for what, intervals in (("train", self.train), ("bounds", self.bounds)):
            ends = [end for interval in intervals for end in interval]
            if not ends or not np.all(np.isfinite(ends)) or ends != sorted(ends):
                raise ValueError(
                    f"feature {self.name!r}: {what} must be finite intervals [low, high] in increasing order, "
                    f"got {show_range(intervals)}"
                )
        if not all(any(low <= a and b <= high for low, high in self.bounds) for a, b in self.train):
            raise ValueError(
                f"feature {self.name!r}: the training range {show_range(self.train)} must lie inside the bounds "
                f"{show_range(self.bounds)}"
            )
        if not _inside(np.float64(self.default), self.bounds):
            raise ValueError(
                f"feature {self.name!r}: the default {self.default} must lie inside the bounds "
                f"{show_range(self.bounds)}"
            )

    @property
    def is_choice(self) -> bool:
        """Whether the training range is a list of choices."""
        return all(low == high for low, high in self.train)


@dataclass(frozen=True)
class ContextSpace:
    """The features of a family, in the order of the context vector ``c`` of shape ``(d,)``.

    >>> space = ContextSpace((
    ...     Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),)),
    ...     Feature("gain", "1", 1.0, train=((-1, -1), (1, 1)), bounds=((-1, -1), (1, 1))),
    ... ))
    >>> space.names
    ('length', 'gain')
    >>> space.vector({"length": 0.7})
    array([0.7, 1. ])
    >>> space.sample("interpolation", 4, seed=0).shape
    (4, 2)
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("a context space needs at least one feature")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"the features of a context space must have different names, got {self.names}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def relevant(self) -> ContextSpace:
        """The features that the environment depends on; they come first."""
        return ContextSpace(tuple(feature for feature in self.features if feature.relevant))

    def with_irrelevant(self, n: int) -> ContextSpace:
        """Append ``n`` features on which nothing depends, each uniform in [-1, 1].

        The other features are sampled as without them. ``extrapolation`` does not leave their range.
        """
        if n < 0:
            raise ValueError(f"expected a number of irrelevant features, got {n}")
        unit = ((-1.0, 1.0),)
        features = (Feature(f"irrelevant_{i}", "1", 0.0, unit, unit, relevant=False) for i in range(n))
        return ContextSpace((*self.relevant.features, *features))

    @property
    def units(self) -> tuple[str, ...]:
        """The features' units."""
        return tuple(feature.unit for feature in self.features)

    @property
    def default(self) -> Vector:
        """The context of the unmodified environment, shape ``(d,)``."""
        return np.array([feature.default for feature in self.features])

    @property
    def low(self) -> Vector:
        """The smallest value in bounds of each feature, shape ``(d,)``."""
        return np.array([feature.bounds[0][0] for feature in self.features])

    @property
    def high(self) -> Vector:
        """The largest value in bounds of each feature, shape ``(d,)``."""
        return np.array([feature.bounds[-1][1] for feature in self.features])

    @cached_property
    def train_range(self) -> tuple[Vector, Vector]:
        """The smallest and the largest training value of each feature, two arrays of shape ``(d,)``."""
        low = np.array([feature.train[0][0] for feature in self.features])
        high = np.array([feature.train[-1][1] for feature in self.features])
        return low, high

    def index(self, name: str) -> int:
        """Return the index of a feature in the context vector."""
        if name not in self.names:
            raise ValueError(
                f"unknown feature {name!r}: the features are {list(self.names)}.{nearest(name, self.names)}"
            )
        return self.names.index(name)

    def vector(self, context: Mapping[str, float] | ArrayLike) -> Vector:
        """Return a context as a vector of shape ``(d,)``. Features that are not named have their default.

        :param context: a mapping from feature names to values, or a vector of shape ``(d,)``.
        :raises ValueError: for an unknown feature, a value outside the bounds, NaN or a wrong shape.
        """
        if isinstance(context, Mapping):
            vector = self.default
            for name, value in context.items():
                vector[self.index(name)] = value
        else:
            vector = np.asarray(context, dtype=np.float64)
            if vector.shape != (len(self),):
                raise ValueError(
                    f"expected a context of shape ({len(self)},) for the features {list(self.names)}, "
                    f"got shape {vector.shape}"
                )
        return self.matrix(vector[None])[0]

    def matrix(self, contexts: ArrayLike) -> Vector:
        """Check contexts and return them as an array of shape ``(n, d)``.

        A value out of bounds that equals one in float32, as observed contexts may, becomes that bound.

        :raises ValueError: for a value outside the bounds, NaN or a wrong shape.

        >>> low = Feature("length", "m", 1.0, train=((0.7, 1.5),), bounds=((0.7, 1.5),))
        >>> ContextSpace((low,)).matrix(np.array([[0.7]], dtype=np.float32))
        array([[0.7]])
        """
        array = np.array(contexts, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self):
            raise ValueError(
                f"expected contexts of shape (n, {len(self)}) for the features {list(self.names)}, "
                f"got shape {array.shape}"
            )
        for column, feature in zip(array.T, self.features, strict=True):
            _snap(column, feature.bounds)
            outside = ~_inside(column, feature.bounds)
            if outside.any():
                raise ValueError(
                    f"feature {feature.name!r} must lie in {show_range(feature.bounds)} {feature.unit}, "
                    f"got {column[outside][0]}"
                )
        return array

    def as_dict(self, context: ArrayLike) -> dict[str, float]:
        """Return a context vector of shape ``(d,)`` as a mapping from names to values."""
        return dict(zip(self.names, np.asarray(context, dtype=np.float64).tolist(), strict=True))

    def normalize(self, contexts: ArrayLike) -> Vector:
        """Map the training range of each feature to [-1, 1]: ``(..., d) -> (..., d)``."""
        center, half_width = self.center_and_half_width
        return (np.asarray(contexts, dtype=np.float64) - center) / half_width

    def denormalize(self, normalized: ArrayLike) -> Vector:
        """Invert :meth:`normalize`."""
        center, half_width = self.center_and_half_width
        return np.asarray(normalized, dtype=np.float64) * half_width + center

    @cached_property
    def center_and_half_width(self) -> tuple[Vector, Vector]:
        """Centre and half width of the training range, two arrays ``(d,)``; a half width of zero becomes one."""
        low, high = self.train_range
        half_width = (high - low) / 2
        return (low + high) / 2, np.where(half_width == 0, 1.0, half_width)

    def in_training_range(self, contexts: ArrayLike) -> NDArray[np.bool_]:
        """Return for contexts of shape ``(n, d)`` whether every feature lies in its training range."""
        return _all_inside(contexts, [feature.train for feature in self.features])

    def beyond(self, contexts: ArrayLike) -> Vector:
        """Return how far each feature lies outside its training range, in widths of it: ``(n, d) -> (n, d)``.

        The width is that from the smallest to the largest training value, 2 where they are equal. Inside the range the
        distance is 0; in a gap of the range it is that to the nearer end.

        >>> space = ContextSpace((Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),)),))
        >>> space.beyond([[1.2], [1.75], [0.1]])
        array([[0.  ],
               [0.25],
               [0.4 ]])
        """
        array = np.asarray(contexts, dtype=np.float64)
        distance = np.full(array.shape, np.inf)
        for i, feature in enumerate(self.features):
            for low, high in feature.train:
                to_interval = np.maximum(low - array[:, i], array[:, i] - high).clip(min=0)
                distance[:, i] = np.minimum(distance[:, i], to_interval)
        _, half_width = self.center_and_half_width
        return distance / (2 * half_width)

    def in_bounds(self, contexts: ArrayLike) -> NDArray[np.bool_]:
        """Return for contexts ``(n, d)`` whether every feature lies in its bounds, float32 ones as in matrix."""
        array = np.array(contexts, dtype=np.float64)
        for column, feature in zip(array.T, self.features, strict=True):
            _snap(column, feature.bounds)
        return _all_inside(array, [feature.bounds for feature in self.features])

    def sample(self, split: str, n: int, seed: int | np.random.Generator = 0) -> Vector:
        """Return ``n`` contexts of a split, an array of shape ``(n, d)``.

        ``train`` draws uniformly from the training range. The other two are for evaluation and evenly spread.
        ``interpolation`` gives every feature ``n`` equidistant values of its training range, paired at random (a Latin
        hypercube, McKay et al. 1979). ``extrapolation`` does so over the outer bounds, and moves one feature of each
        context outside its training range, the features in turn.

        The splits that begin with ``mesh-`` are those of Benad et al. (2026), the same for every seed. Each feature has
        50 equidistant values: of ``mesh-train`` over the training range, of ``mesh-interpolation`` 1 % of its width
        inside, of ``mesh-extrapolation`` outside, from 1 % of its width beyond the range to the bounds, as many below
        as above. A choice has its values, and so has what the bounds leave no room for. Of all combinations, sorted by
        the first feature, then by the second and so on, ``n`` equidistant ones are taken.

        :param split: ``"train"``, ``"interpolation"``, ``"extrapolation"``, or one of them after ``"mesh-"``.
        :param n: how many contexts.
        :param seed: the same seed gives the same contexts.
        :raises ValueError: for an unknown split, or for extrapolation if the bounds leave no room.
        """
        known = SPLITS + MESH_SPLITS
        if split not in known:
            raise ValueError(f"unknown split {split!r}: the splits are {list(known)}.{nearest(split, known)}")
        if n < 1:
            raise ValueError(f"expected at least one context, got n={n}")
        if not isinstance(seed, np.random.Generator):
            check_seed(seed)
            seed = np.random.default_rng([seed, known.index(split)])
        k = len(self.relevant)
        if k < len(self):
            irrelevant = _tabulate([feature.train for feature in self.features[k:]])
            relevant = self.relevant.sample(split, n, seed)
            return np.hstack([relevant, _quantiles(irrelevant, seed.random((n, len(self) - k)))])
        if split == "train":
            return self.from_uniform(seed.random((n, len(self))))
        if split == "interpolation":
            return self.from_uniform(latin_hypercube(n, len(self), seed))
        if split in ("mesh-train", "mesh-interpolation"):
            return _equidistant([_values_inside(feature, split == "mesh-train") for feature in self.features], n)
        outside = {
            j: gaps for j, feature in enumerate(self.features) if (gaps := _difference(feature.bounds, feature.train))
        }
        if not outside:
            raise ValueError(
                f"no context lies outside the training range: the bounds of {list(self.names)} leave no room, "
                "so evaluate on 'train' and 'interpolation' only"
            )
        if split == "mesh-extrapolation":
            return _equidistant([_values_outside(feature) for feature in self.features], n)
        contexts = self.from_uniform(latin_hypercube(n, len(self), seed), bounds=True)
        for rows, (j, gaps) in zip(np.array_split(seed.permutation(n), len(outside)), outside.items(), strict=True):
            contexts[rows, j] = _quantiles(_tabulate([gaps]), latin_hypercube(len(rows), 1, seed))[:, 0]
        return contexts

    def from_uniform(self, uniform: ArrayLike, bounds: bool = False) -> Vector:
        """Map numbers in [0, 1) of shape ``(n, d)`` evenly to contexts of the training range.

        :param uniform: shape ``(n, d)``.
        :param bounds: map to the outer bounds instead.

        >>> gain = ((-1, -0.5), (0.5, 1))
        >>> space = ContextSpace((Feature("gain", "1", 1.0, train=gain, bounds=gain),))
        >>> space.from_uniform([[0.0], [0.25], [0.75]]).ravel()
        array([-1.  , -0.75,  0.75])
        """
        return _quantiles(self._bounds_table if bounds else self.train_table, np.asarray(uniform, dtype=np.float64))

    def to_uniform(self, context: ArrayLike) -> Vector:
        """Invert ``from_uniform(..., bounds=True)`` for one context, shape ``(d,)``. A choice maps to its middle.

        >>> gain = Feature("gain", "1", 1.0, train=((-1, -1), (1, 1)), bounds=((-1, -1), (1, 1)))
        >>> ContextSpace((gain,)).to_uniform([1.0])
        array([0.75])
        """
        low, high, ends = self._bounds_table  # (m, d)
        vector = self.vector(context)
        i = np.argmax((low <= vector) & (vector <= high), axis=0)[None]  # the interval of each feature, (1, d)
        tables = (low, high, ends, np.diff(ends, axis=0, prepend=0.0))
        low, high, end, weight = (np.take_along_axis(table, i, axis=0)[0] for table in tables)
        return (end - np.where(low == high, weight / 2, high - vector)) / ends[-1]

    @cached_property
    def train_table(self) -> tuple[Vector, Vector, Vector]:
        """The ``m`` intervals of the training range: low, high, and the weight up to each end, shape ``(m, d)``."""
        return _tabulate([feature.train for feature in self.features])

    @cached_property
    def _bounds_table(self) -> tuple[Vector, Vector, Vector]:
        return _tabulate([feature.bounds for feature in self.features])


class ContextBox(spaces.Box):
    """The Gymnasium space of a context in physical units: a float32 ``Box`` that carries its context space.

    A policy that sees this entry in a Dict observation knows the names, units and ranges of the features,
    and so does an agent that was saved and loaded. Two of them are equal when the features have the same names, units
    and bounds in the same order: then a vector means the same context in both. Training ranges may differ.

    >>> length = Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),))
    >>> ContextBox(ContextSpace((length,)))
    ContextBox(length [m] in [0.1, 2])
    """

    def __init__(self, context_space: ContextSpace) -> None:
        super().__init__(context_space.low.astype(np.float32), context_space.high.astype(np.float32), dtype=np.float32)
        self.context_space = context_space

    def __repr__(self) -> str:
        features = (f"{f.name} [{f.unit}] in {show_range(f.bounds)}" for f in self.context_space.features)
        return f"ContextBox({', '.join(features)})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ContextBox):
            return self._meaning == other._meaning
        return super().__eq__(other)

    @property
    def _meaning(self) -> list[tuple[str, str, tuple[Interval, ...]]]:
        return [(feature.name, feature.unit, feature.bounds) for feature in self.context_space.features]


def show_range(intervals: Sequence[Interval]) -> str:
    """Write a range as text.

    >>> show_range([(-2, -0.5), (1, 1)])
    '[-2, -0.5] or 1'
    """
    return " or ".join(f"{low:g}" if low == high else f"[{low:g}, {high:g}]" for low, high in intervals)


def _snap(column: Vector, intervals: Sequence[Interval]) -> None:
    """Replace values outside all intervals that equal an end of one in float32 by that end, in place."""
    outside = ~_inside(column, intervals)
    if outside.any():
        single = column.astype(np.float32)
        for end in {end for interval in intervals for end in interval}:
            column[outside & (single == np.float32(end))] = end


def _inside(values: Vector | np.float64, intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    """Return which values lie in one of the intervals; NaN lies in none."""
    return np.any([(low <= values) & (values <= high) for low, high in intervals], axis=0)


def _all_inside(contexts: ArrayLike, ranges: Sequence[tuple[Interval, ...]]) -> NDArray[np.bool_]:
    """Return for contexts of shape ``(n, d)`` whether every feature lies in its range, shape ``(n,)``."""
    columns = np.asarray(contexts, dtype=np.float64).T
    return np.all([_inside(column, intervals) for column, intervals in zip(columns, ranges, strict=True)], axis=0)


def _tabulate(ranges: Sequence[Sequence[Interval]]) -> tuple[Vector, Vector, Vector]:
    """Put the intervals of ``d`` ranges into arrays of shape ``(m, d)``: low, high, and the cumulative weight.

    The weight of an interval is its length; in a list of choices all have the same weight. Ranges of fewer than ``m``
    intervals are filled with their highest value at weight zero.
    """
    m = max(len(intervals) for intervals in ranges)
    padded = [[*intervals, *[(intervals[-1][1],) * 2] * (m - len(intervals))] for intervals in ranges]
    low, high = np.array(padded, dtype=np.float64).T  # (m, d)
    weight = high - low
    for i, intervals in enumerate(ranges):
        if not weight[:, i].any():
            weight[: len(intervals), i] = 1.0
    return low, high, np.cumsum(weight, axis=0)


def _quantiles(table: tuple[Vector, Vector, Vector], u: Vector) -> Vector:
    """Map ``u`` in [0, 1) of shape ``(n, d)`` to values of ``d`` tabulated ranges."""
    low, high, ends = table
    along = u * ends[-1]
    value = np.minimum(low[0] + along, high[0])
    for i in range(1, len(ends)):
        beyond = np.minimum(np.maximum(low[i] + (along - ends[i - 1]), low[i]), high[i])
        value = np.where(along >= ends[i - 1], beyond, value)
    return value


def _difference(bounds: Sequence[Interval], train: Sequence[Interval]) -> list[Interval]:
    """Return the bounds without the training range, which lies inside them.

    >>> [(round(low, 3), round(high, 3)) for low, high in _difference([(-3, -1), (1, 3)], [(-2, -1), (1, 3)])]
    [(-3, -2.0)]
    """
    gaps: list[Interval] = []
    for low, high in bounds:
        for a, b in train:
            if low <= a and b <= high:
                if low < a:
                    gaps.append((low, math.nextafter(a, -math.inf)))
                low = math.nextafter(b, math.inf)
        if low <= high:
            gaps.append((low, high))
    return gaps


def _values_inside(feature: Feature, to_the_ends: bool) -> Vector:
    """Return a feature's values in the mesh of its training range, in increasing order."""
    if feature.is_choice:
        return np.array([low for low, _ in feature.train])
    margin = 0.0 if to_the_ends else _margin(feature)
    inner = [(low + min(margin, (high - low) / 2), high - min(margin, (high - low) / 2)) for low, high in feature.train]
    return _quantiles(_tabulate([inner]), np.linspace(0, 1, MESH_VALUES)[:, None])[:, 0]


def _values_outside(feature: Feature) -> Vector:
    """Return a feature's values in the mesh outside its training range, in increasing order.

    >>> length = Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),))
    >>> _values_outside(length)[[0, 24, 25, 49]].round(4)
    array([0.1 , 0.49, 1.51, 2.  ])
    """
    gaps = _difference(feature.bounds, feature.train)
    if not gaps:
        return _values_inside(feature, to_the_ends=True)
    margin, ends = _margin(feature), {end for interval in feature.bounds for end in interval}
    values = []
    for (low, high), share in zip(gaps, np.array_split(np.arange(MESH_VALUES), len(gaps)), strict=True):
        start, stop = low + margin * (low not in ends), high - margin * (high not in ends)
        values.append(np.linspace(start, max(start, stop), len(share)).clip(low, high))
    return np.concatenate(values)


def _margin(feature: Feature) -> float:
    return MESH_MARGIN * (feature.train[-1][1] - feature.train[0][0])


def _equidistant(values: Sequence[Vector], n: int) -> Vector:
    """Return ``n`` equidistant ones of the sorted combinations of each feature's values, shape ``(n, d)``.

    >>> _equidistant([np.array([1.0, 2.0]), np.array([0.0, 0.5, 1.0])], 3)
    array([[1., 0.],
           [1., 1.],
           [2., 1.]])
    """
    total = math.prod(map(len, values))
    contexts = np.empty((n, len(values)))
    for i, row in enumerate(contexts):
        index = i * (total - 1) // max(n - 1, 1) if n <= total else i * total // n
        for j in reversed(range(len(values))):
            index, digit = divmod(index, len(values[j]))
            row[j] = values[j][digit]
    return contexts


def latin_hypercube(n: int, d: int, rng: np.random.Generator) -> Vector:
    """Return ``n`` points in the unit cube; each coordinate has each of the values (i + 0.5) / n once."""
    return (rng.permuted(np.tile(np.arange(n), (d, 1)), axis=1).T + 0.5) / n
