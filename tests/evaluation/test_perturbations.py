import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hyperrl
from hyperrl.evaluation.perturbations import PERTURBATIONS, perturb

SPACE = hyperrl.load_family("pendulum").context_space
CONTEXTS = SPACE.sample("interpolation", 8, 0)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_level_zero_is_the_truth_and_seeds_repeat(kind: str) -> None:
    truth = np.repeat(CONTEXTS[:, None], 3, axis=1)
    assert_array_equal(perturb(kind, 0.0, CONTEXTS, 3, SPACE), truth)
    reported = perturb(kind, 0.5, CONTEXTS, 3, SPACE, seed=1)
    assert reported.shape == truth.shape
    assert not np.array_equal(reported, truth)
    assert_array_equal(reported, perturb(kind, 0.5, CONTEXTS, 3, SPACE, seed=1))


def test_noise_has_its_level_in_half_training_ranges() -> None:
    reported = perturb("noise", 0.3, CONTEXTS, 4000, SPACE)
    error = SPACE.normalize(reported) - SPACE.normalize(CONTEXTS)[:, None]
    assert_allclose(error.mean(axis=(0, 1)), 0, atol=0.01)
    assert_allclose(error.std(axis=(0, 1)), 0.3, rtol=0.02)


def test_an_offset_is_its_level_of_half_a_training_range() -> None:
    error = SPACE.normalize(perturb("offset", 0.2, CONTEXTS, 2, SPACE)) - SPACE.normalize(CONTEXTS)[:, None]
    assert_allclose(error, 0.2)


def test_another_context_is_one_of_the_others_as_often_as_said() -> None:
    reported = perturb("other", 1.0, CONTEXTS, 2, SPACE)
    assert {tuple(c) for c in reported.reshape(-1, 4)} == {tuple(c) for c in CONTEXTS}
    assert not (reported == CONTEXTS[:, None]).all(axis=-1).any()
    reported = perturb("other", 0.25, CONTEXTS, 4000, SPACE)
    assert (reported != CONTEXTS[:, None]).any(axis=-1).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("nois", 0.1, "unknown perturbation 'nois': known are .* Did you mean 'noise'"),
        ("noise", -0.1, "a level of 'noise' of 0 or more, got -0.1"),
        ("offset", float("nan"), "a level of 'offset' of 0 or more, got nan"),
        ("other", 1.5, r"a level of 'other' in \[0, 1\], got 1.5"),
    ],
)
def test_bad_misreports_are_refused(kind: str, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perturb(kind, level, CONTEXTS, 1, SPACE)


def test_one_context_has_no_other() -> None:
    with pytest.raises(ValueError, match="at least two of them, got one"):
        perturb("other", 0.5, CONTEXTS[:1], 1, SPACE)
