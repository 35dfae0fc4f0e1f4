import itertools
import pickle
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3.common.utils import check_for_correct_spaces

from hyperrl import load_family
from hyperrl.contexts import MESH_SPLITS, SPLITS, ContextBox, ContextSpace, Feature

LENGTH = Feature("length", "m", 1.0, train=((0.5, 1.5),), bounds=((0.1, 2.0),))
GAIN = Feature("gain", "1", 1.0, train=((-2, -0.5), (0.5, 2)), bounds=((-3, -0.25), (0.25, 3)))
SIDE = Feature("side", "1", 1.0, train=((-1, -1), (1, 1)), bounds=((-1, -1), (1, 1)))
SPACE = ContextSpace((LENGTH, GAIN, SIDE))


@st.composite
def features(draw: st.DrawFn, name: str) -> Feature:
    """A feature of one or two intervals, the bounds around them."""
    ends = sorted(draw(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2, unique=True)))
    margin = draw(st.floats(0.01, 10))
    train = [tuple(ends)]
    bounds = [(ends[0] - margin, ends[1] + margin)]
    if draw(st.booleans()):
        shift = ends[1] - ends[0] + 4 * margin
        train.append((ends[0] + shift, ends[1] + shift))
        bounds.append((ends[0] + shift - margin, ends[1] + shift + margin))
    return Feature(name, "1", ends[0], tuple(train), tuple(bounds))


spaces = st.integers(1, 4).flatmap(lambda d: st.tuples(*(features(f"f{i}") for i in range(d)))).map(ContextSpace)
seeds = st.integers(0, 2**32)


@given(spaces, st.sampled_from(SPLITS), st.integers(1, 30), seeds)
def test_the_distance_from_the_training_range_is_zero_inside_alone(
    space: ContextSpace, split: str, n: int, seed: int
) -> None:
    contexts = space.sample(split, n, seed)
    beyond = space.beyond(contexts)
    assert (beyond >= 0).all()
    assert_array_equal((beyond == 0).all(axis=1), space.in_training_range(contexts))
    low, high = space.train_range
    past_the_ends = (np.maximum(low - contexts, contexts - high) / (high - low)).clip(min=0)
    assert (beyond >= past_the_ends * (1 - 1e-9)).all()  # a gap within the range lies outside it too


def test_the_distance_is_in_widths_of_the_training_range() -> None:
    contexts = [[1.0, 1.0, -1.0], [2.0, 3.0, 1.0], [0.25, -0.25, 1.0]]
    assert_allclose(SPACE.beyond(contexts), [[0, 0, 0], [0.5, 0.25, 0], [0.25, 0.0625, 0]])


@given(spaces, st.sampled_from(SPLITS), st.integers(1, 30), seeds)
def test_contexts_lie_in_their_split(space: ContextSpace, split: str, n: int, seed: int) -> None:
    contexts = space.sample(split, n, seed)
    assert contexts.shape == (n, len(space))
    assert_array_equal(space.matrix(contexts), contexts)  # within the bounds
    assert (space.in_training_range(contexts) == (split != "extrapolation")).all()


@given(spaces, st.sampled_from(SPLITS), st.integers(1, 30), seeds)
def test_the_same_seed_gives_the_same_contexts(space: ContextSpace, split: str, n: int, seed: int) -> None:
    assert_array_equal(space.sample(split, n, seed), space.sample(split, n, seed))
    assert not np.array_equal(space.sample("train", n, seed), space.sample("train", n, seed + 1))


@given(spaces, st.integers(2, 30), seeds)
def test_splits_are_disjoint(space: ContextSpace, n: int, seed: int) -> None:
    rows = [tuple(row) for split in SPLITS for row in space.sample(split, n, seed)]
    assert len(set(rows)) == len(rows)


@given(spaces, seeds)
def test_normalisation_maps_the_training_range_to_one(space: ContextSpace, seed: int) -> None:
    low, high = space.train_range
    assert_allclose(space.normalize(low), -1, atol=1e-9)
    assert_allclose(space.normalize(high), 1, atol=1e-9)
    contexts = space.sample("extrapolation", 5, seed)
    assert_allclose(space.denormalize(space.normalize(contexts)), contexts, rtol=1e-9, atol=1e-9)


def test_interpolation_is_equidistant_in_each_feature() -> None:
    mesh = SPACE.sample("interpolation", 10, seed=3)
    assert_allclose(np.sort(mesh[:, 0]), np.linspace(0.55, 1.45, 10))
    assert_allclose(np.sort(mesh[:, 1]), [-1.85, -1.55, -1.25, -0.95, -0.65, 0.65, 0.95, 1.25, 1.55, 1.85])
    assert_array_equal(np.sort(mesh[:, 2]), [-1] * 5 + [1] * 5)


@pytest.mark.parametrize("name", ["ode", "double_integrator", "double_integrator_friction"])
def test_meshes_are_the_published_ones(name: str) -> None:
    """As Benad et al. (2026) make them: linspace along each feature, product, sort, linspace of the indices."""
    space = load_family(name).context_space
    lines: dict[str, list[np.ndarray]] = {split: [] for split in MESH_SPLITS}
    for feature in space.features:
        (low, *_), (*_, high) = feature.train[0], feature.train[-1]
        margin, start, end = 0.01 * (high - low), feature.bounds[0][0], feature.bounds[-1][1]
        below, above = np.linspace(start, low - margin, 25), np.linspace(high + margin, end, 25)
        of_split = np.linspace(low, high, 50), np.linspace(low + margin, high - margin, 50), np.r_[below, above]
        for line, values in zip(lines.values(), of_split, strict=True):
            line.append(np.array([-1.0, 1.0]) if feature.is_choice else values)
    for split, line in lines.items():
        mesh = np.array(sorted(itertools.product(*line)))
        picked = mesh[np.linspace(0, len(mesh) - 1, 20, dtype=int)]
        assert_allclose(space.sample(split, 20, seed=7), picked, rtol=1e-12)


@given(spaces, st.integers(1, 30))
def test_meshes_leave_the_training_range_with_every_feature_at_once(space: ContextSpace, n: int) -> None:
    train, inner, outer = (space.sample(split, n) for split in MESH_SPLITS)
    assert space.in_training_range(np.vstack([train, inner])).all()
    assert_array_equal(space.matrix(outer), outer)  # within the bounds
    _, half_width = space.center_and_half_width
    assert (space.beyond(outer) > 0).all()
    assert (np.abs(inner - train) <= 0.0201 * half_width).all()  # 1 % of the range: what is said of the protocol
    assert_array_equal(space.sample("mesh-train", n, seed=1), train)


def test_a_mesh_of_fewer_combinations_than_contexts_repeats_them() -> None:
    contexts = ContextSpace((SIDE,)).sample("mesh-train", 5)
    assert_array_equal(contexts, [[-1], [-1], [-1], [1], [1]])
    with pytest.raises(ValueError, match="leave no room"):
        ContextSpace((SIDE,)).sample("mesh-extrapolation", 3)


def test_a_choice_stays_where_the_other_features_of_a_mesh_leave_the_training_range() -> None:
    contexts = SPACE.sample("mesh-extrapolation", 50 * 50 * 2)
    assert (SPACE.beyond(contexts)[:, :2] > 0).all()
    for value in (-1, 1):
        assert len(np.unique(contexts[contexts[:, 2] == value, :2], axis=0)) == 50 * 50


def test_training_draws_fill_a_union_of_intervals_evenly() -> None:
    draws = SPACE.sample("train", 20_000)
    counts, _ = np.histogram(draws[:, 1], bins=[-2, -1.25, -0.5, 0.5, 1.25, 2])
    assert counts[2] == 0
    assert_allclose(counts[[0, 1, 3, 4]] / 20_000, 0.25, atol=0.02)
    assert abs(draws[:, 2].mean()) < 0.03


def test_a_feature_of_one_value_is_normalised_to_zero() -> None:
    space = ContextSpace((Feature("mass", "kg", 1.0, train=((1, 1),), bounds=((0.5, 2),)),))
    assert_array_equal(space.normalize([[1.0], [1.5]]), [[0.0], [0.5]])


def test_vector_fills_in_defaults() -> None:
    assert_array_equal(SPACE.vector({"gain": -2}), [1.0, -2.0, 1.0])
    assert SPACE.as_dict(SPACE.vector({})) == {"length": 1.0, "gain": 1.0, "side": 1.0}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"lenght": 1.0},
            "unknown feature 'lenght': the features are ['length', 'gain', 'side']. Did you mean 'length'?",
        ),
        ({"length": 2.5}, "feature 'length' must lie in [0.1, 2] m, got 2.5"),
        ({"length": float("nan")}, "feature 'length' must lie in [0.1, 2] m, got nan"),
        ({"gain": 0.0}, "feature 'gain' must lie in [-3, -0.25] or [0.25, 3] 1, got 0.0"),
        ({"side": 0.5}, "feature 'side' must lie in -1 or 1 1, got 0.5"),
        ([1.0, 1.0], "expected a context of shape (3,)"),
    ],
)
def test_bad_contexts_are_refused(context: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SPACE.vector(context)


@pytest.mark.parametrize(
    ("split", "n", "message"),
    [("test", 1, "unknown split 'test'"), ("trian", 1, "Did you mean 'train'?"), ("train", 0, "at least one context")],
)
def test_bad_samples_are_refused(split: str, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SPACE.sample(split, n)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a seed ≥ 0, got seed=-1"):
        SPACE.sample("train", 1, -1)


def test_extrapolation_needs_room() -> None:
    with pytest.raises(ValueError, match="leave no room"):
        ContextSpace((SIDE,)).sample("extrapolation", 3)


@pytest.mark.parametrize(
    ("default", "train", "bounds", "message"),
    [
        (1.0, ((0.0, 3.0),), ((0.0, 2.0),), "the training range [0, 3] must lie inside the bounds [0, 2]"),
        (5.0, ((0.0, 1.0),), ((0.0, 2.0),), "the default 5.0 must lie inside the bounds"),
        (1.0, ((1.0, 0.0),), ((0.0, 2.0),), "in increasing order"),
        (1.0, ((0.0, float("inf")),), ((0.0, 2.0),), "must be finite"),
        (1.0, (), ((0.0, 2.0),), "train must be finite intervals"),
    ],
)
def test_bad_features_are_refused(default: float, train: tuple, bounds: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Feature("x", "1", default, train, bounds)


def test_context_box_carries_its_space_through_a_pickle() -> None:
    box = ContextBox(SPACE)
    again = pickle.loads(pickle.dumps(box))
    assert again == box
    assert again.context_space == SPACE
    assert box.contains(SPACE.sample("extrapolation", 1)[0].astype(np.float32))


@pytest.mark.parametrize("split", [*SPLITS, "mesh-extrapolation"])
def test_irrelevant_features_leave_the_others_as_they_are(split: str) -> None:
    space = load_family("pendulum").context_space
    more = space.with_irrelevant(20)
    contexts = more.sample(split, 12, seed=3)
    np.testing.assert_array_equal(contexts[:, :4], space.sample(split, 12, seed=3))
    extra = contexts[:, 4:]
    assert np.all(np.abs(extra) <= 1)
    assert len(np.unique(extra)) == extra.size
    assert more.relevant == space
    assert more.with_irrelevant(0) == space.with_irrelevant(0) == space
    with pytest.raises(ValueError, match="number of irrelevant features, got -1"):
        space.with_irrelevant(-1)


def test_observed_contexts_at_the_bounds_are_accepted() -> None:
    bounds = ((-1.1, -0.7), (0.7, 1.1))  # no float32 among them
    space = ContextSpace((Feature("gain", "1", 0.7, train=bounds, bounds=bounds),))
    for value in (-1.1, -0.7, 0.7, 1.1):
        observed = np.array([value], dtype=np.float32)
        assert space.vector(observed).tolist() == [value]
        assert space.in_bounds(observed[None]).all()
        for outside in (np.nextafter(observed, np.float32(-9)), np.nextafter(observed, np.float32(9))):
            if not any(low <= outside[0] <= high for low, high in bounds):
                assert not space.in_bounds(outside[None]).any()
                with pytest.raises(ValueError, match="feature 'gain' must lie in"):
                    space.vector(outside)


def test_boxes_of_other_features_differ() -> None:
    """A vector must mean the same context in both: names, units and bounds count, in order."""

    def box(*said: tuple[str, str, float]) -> ContextBox:
        features = (Feature(n, u, 1.0, train=((1.0, high),), bounds=((0.5, high),)) for n, u, high in said)
        return ContextBox(ContextSpace(tuple(features)))

    ours = box(("mass", "kg", 2.0), ("length", "m", 2.0))
    assert ours == box(("mass", "kg", 2.0), ("length", "m", 2.0))
    for other in (
        box(("length", "m", 2.0), ("mass", "kg", 2.0)),
        box(("mass", "kg", 2.0), ("width", "m", 2.0)),
        box(("mass", "g", 2.0), ("length", "m", 2.0)),
        box(("mass", "kg", 2.0), ("length", "m", 2.1)),
    ):
        assert ours != other
        env: Any = SimpleNamespace(observation_space=other, action_space=Discrete(2))
        with pytest.raises(ValueError, match=re.escape(f"{ours!r} != {other!r}")):
            check_for_correct_spaces(env, ours, env.action_space)
    assert repr(ours) == "ContextBox(mass [kg] in [0.5, 2], length [m] in [0.5, 2])"
    narrower = ContextBox(
        ContextSpace(
            tuple(
                Feature(name, unit, 1.2, train=((1.0, 1.5),), bounds=((0.5, 2.0),))
                for name, unit in (("mass", "kg"), ("length", "m"))
            )
        )
    )
    assert ours == narrower  # an agent keeps the training range that it carries
    assert ours == Box(ours.low, ours.high, dtype=np.float32)
