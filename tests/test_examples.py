"""Each example reaches its figure: fewer seeds and steps than it reports, so with a margin."""

import pytest

pytest.importorskip("sklearn", reason="the examples need the dev extra")

import classification
import compression
import gan
import regression
import shared
import transfer


def test_interval_is_that_of_student():
    mean, low, high = shared.interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)  # 4.3027·1/√3


def test_matched_mlp_has_the_parameters_asked_for():
    assert 5000 <= shared.size(shared.matched_mlp(3, 2, 5000, shared.nn.Tanh)) < 5200


def test_regression_errs_less_than_concatenation_and_maml(tmp_path):
    result = regression.main(seeds=1, steps=300, out=tmp_path / "picture.png")
    hyper, concat, maml = result.values()
    assert hyper["inside"].value < 0.02
    assert hyper["inside"].value < 0.7 * concat["inside"].value < maml["inside"].value
    assert hyper["amplitude 5 to 7.5"].value < 0.7 * concat["amplitude 5 to 7.5"].value
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_classification_holds_between_trained_angles(tmp_path):
    result = classification.main(seeds=1, steps=700, out=tmp_path / "picture.png")
    unseen = {method: figures["unseen angles"].value for method, figures in result.items()}
    linear, _, concat, unaware = unseen.values()
    assert linear > 0.85
    assert linear > concat + 0.02 > unaware + 0.04
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_generated_weights_start_lower_and_stay_lower(tmp_path):
    result = transfer.main(seeds=1, steps=400, out=tmp_path / "picture.png")
    generated, blind, scratch = result.values()
    for step, margin in (("0", 0.4), ("10", 0.6), ("100", 1.0)):
        assert generated[step].value < margin * min(blind[step].value, scratch[step].value)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_gan_covers_its_modes(tmp_path):
    result = gan.main(seeds=2, out=tmp_path / "picture.png")
    hyper, concat = result.values()
    assert hyper["modes covered"].value >= 11.5 / 12
    assert hyper["good samples"].value > 0.65
    assert hyper["good samples"].value > concat["good samples"].value + 0.04
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_compression_saves_parameters_at_equal_accuracy(tmp_path):
    result = compression.main(seeds=1, steps=300, out=tmp_path / "picture.png")
    generator, _, separate, *_, small = result.values()
    assert separate["parameters"].value > 10 * generator["parameters"].value
    assert generator["accuracy"].value > separate["accuracy"].value - 0.01
    assert generator["accuracy"].value > small["accuracy"].value + 0.1
    assert (tmp_path / "picture.png").stat().st_size > 10_000
