import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO

import hyperrl
from hyperrl.evaluation.protocol import evaluate
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.statistics import interquartile_mean
from hyperrl.policies import ConcatPolicy, HyperPolicy, UnawarePolicy
from hyperrl.rollouts.episodes import play
from hyperrl.utils.definitions import folder
from hyperrl.utils.provenance import describe_model

SIZES: dict[str, Any] = dict(n_steps=8, batch_size=8, device="cpu", seed=0)
FAMILY = hyperrl.load_family("cartpole")


@pytest.fixture(scope="module")
def model() -> PPO:
    return PPO(HyperPolicy, FAMILY.vec_env(2), **SIZES)


def test_report_holds_each_split(model: PPO) -> None:
    report = evaluate(model, FAMILY, contexts=4, episodes=3, seed=2, plane=3)
    assert list(report.splits) == ["train", "interpolation", "extrapolation"]
    for name, split in report.splits.items():
        assert_array_equal(split.contexts, FAMILY.context_space.sample(name, 4, 2))
        assert split.returns.shape == (4, 3)
        assert split.mean == pytest.approx(split.returns.mean())
        assert split.iqm.low <= split.iqm.value <= split.iqm.high
        assert split.iqm.value == pytest.approx(interquartile_mean(split.returns.mean(axis=1)))
    again = evaluate(model, FAMILY, contexts=4, episodes=3, seed=2)
    assert all(np.array_equal(again.splits[name].returns, report.splits[name].returns) for name in report.splits)
    plane = report.plane
    assert plane is not None
    assert plane.features == ("force_mag", "length")
    assert plane.returns.shape == (3, 3)
    assert np.isnan(plane.returns[:, 1]).all()  # no force at all is out of bounds
    assert report.splits["train"].values is not None
    assert report.splits["train"].values.bias.shape == (4,)
    context = FAMILY.context_space.vector({"force_mag": plane.x[0], "length": plane.y[2]})
    seen = {tuple(c) for c in hyperrl.evaluation.protocol._grid(FAMILY, 3)[0]}
    assert tuple(context) in seen


def test_a_sweep_varies_one_feature_at_a_time() -> None:
    family = hyperrl.load_family("double_integrator")
    lines = hyperrl.evaluation.protocol._lines(family, 4)
    assert_allclose(lines["mass"], [[m, 1.0] for m in np.linspace(0.1, 2.0, 4)])
    assert_array_equal(lines["action_factor"], [[1.0, -1.0], [1.0, 1.0]])  # a list of choices
    inverting = hyperrl.evaluation.protocol._lines(FAMILY, 5)["force_mag"]
    assert_allclose(inverting[:, 4], [-20, -10, 10, 20])  # no force at all is out of bounds
    model = PPO(HyperPolicy, family.vec_env(2), **SIZES)
    report = evaluate(model, family, ("train",), 2, 3, sensitivity=4)
    assert_array_equal(report.sensitivity["mass"].values, lines["mass"][:, 0])
    assert_array_equal(report.sensitivity["mass"].returns[:, 0], play(model, family, lines["mass"], 3).returns)


def test_misreports_change_what_is_told_and_nothing_else() -> None:
    family = hyperrl.load_family("pendulum")
    model = PPO(ConcatPolicy, family.vec_env(2), **SIZES)
    levels = dict(noise=[0.5, 1.0], offset=[0.2], other=[1.0])
    report = evaluate(model, family, ("interpolation",), 3, 2, seed=4, perturbations=levels)
    for kind, sensitivity in report.perturbations.items():
        assert_array_equal(sensitivity.values, [0, *levels[kind]])
        assert_array_equal(sensitivity.returns[0], report.splits["interpolation"].returns)
        assert (
            len(np.unique(sensitivity.returns)) == sensitivity.returns.size
        )  # every level is played, and plays otherwise
    unaware = PPO(UnawarePolicy, family.vec_env(2), **SIZES)
    report = evaluate(unaware, family, ("interpolation",), 3, 2, perturbations=levels)
    for sensitivity in report.perturbations.values():
        assert_array_equal(sensitivity.returns, np.tile(sensitivity.returns[0], (len(sensitivity.values), 1, 1)))


def test_report_survives_its_file(model: PPO, tmp_path: Path) -> None:
    report = evaluate(model, FAMILY, contexts=2, episodes=1, plane=2, sensitivity=2, perturbations=dict(noise=[0.1]))
    report.save(tmp_path / "e.json")
    report.save(tmp_path / "again.json")
    again = Report.load(tmp_path / "e.json")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "e.json").read_text() == (tmp_path / "again.json").read_text()
    assert_report_equal(again, report)
    json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON


def assert_report_equal(x: Any, y: Any) -> None:
    """Compare dataclasses, dictionaries, tuples and arrays, field by field."""
    assert type(x) is type(y)
    if dataclasses.is_dataclass(x):
        assert_report_equal(vars(x), vars(y))
    elif isinstance(x, dict):
        assert list(x) == list(y)
        for key in x:
            assert_report_equal(x[key], y[key])
    elif isinstance(x, tuple):
        for a, b in zip(x, y, strict=True):
            assert_report_equal(a, b)
    else:
        np.testing.assert_array_equal(x, y)


def test_a_report_says_what_it_is_of(model: PPO, tmp_path: Path) -> None:
    arguments: Any = dict(splits=("train",), contexts=1, episodes=1)
    report = evaluate(model, FAMILY, **arguments)
    assert report.versions.keys() >= {"hyperrl", "torch", "stable-baselines3", "gymnasium", "numpy", "python"}
    described = report.model
    assert described is not None
    assert described.algorithm == "PPO"
    assert described.policy == "HyperPolicy"
    assert described.parameters == sum(p.numel() for p in model.policy.parameters())
    again = PPO(HyperPolicy, FAMILY.vec_env(2), **SIZES)
    assert describe_model(again) == described
    assert describe_model(again.learn(8)).sha256 != described.sha256
    text = (folder("envs") / "cartpole.toml").read_text(encoding="utf-8")
    for change, same in (("# a comment\n" + text, True), (text.replace("default = 9.8", "default = 9.7"), False)):
        (tmp_path / "f.toml").write_text(change)
        assert (hyperrl.load_family(tmp_path / "f.toml").digest == report.definition) is same


class Constant:
    def predict(self, observation: Any) -> np.ndarray:
        return np.ones(len(observation["context"]), dtype=int)


def test_an_object_that_predicts_is_evaluated_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = evaluate(Constant(), FAMILY, contexts=2, episodes=3, plane=2, sensitivity=2, progress=True)
    assert report.model is not None
    assert report.model.algorithm.endswith("test_evaluation.Constant")
    assert report.model.sha256 is None
    for split in report.splits.values():
        assert split.values is None
        assert (split.returns > 0).all()
    report.save(tmp_path / "e.json")
    assert_report_equal(Report.load(tmp_path / "e.json"), report)
    # The bar counts steps, up to the time limit of every episode: three splits, four of the plane, 4 * 2 + 2.
    assert f"{(3 * 2 + 4 + 4 * 2 + 2) * 3 * 500 / 1000:.1f}k" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"evaluation-1"', '"evaluation-3"', "was written by schema evaluation-3; this hyperrl reads evaluation-1"),
        ('"evaluation-1"', '"run-1"', "expected a record of schema evaluation-1, got one of schema run-1"),
        ('"schema"', '"chema"', "got a file without one"),
        ('"family": "cartpole"', '"family": 3', "damaged, or edited: Expected `str`, got `int` - at `$.family`"),
        ('"family": "cartpole",', "", "Object missing required field `family`"),
        ('"splits"', '"slpits"', "missing required field `splits`"),
        ('"sha256"', '"sha"', "missing required field `sha256` - at `$.model`"),
        ('"agent"', '"agnet"', "unknown key 'agnet' - at `$`. Did you mean 'agent'?"),
        ('"returns": [', '"returns": [[1], 2, ', "inhomogeneous"),
        ('"returns": [', '"returns": [[1.0], ', "expected contexts of shape (n, d) and returns of shape (n, episodes)"),
        ("{", "", "got no JSON"),
    ],
)
def test_a_file_that_is_no_report_is_refused(model: PPO, tmp_path: Path, old: str, new: str, message: str) -> None:
    evaluate(model, FAMILY, ("train",), 2, 1).save(tmp_path / "e.json")
    text = (tmp_path / "e.json").read_text()
    assert old in text
    (tmp_path / "e.json").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Report.load(tmp_path / "e.json")
    assert str(error.value).startswith(str(tmp_path / "e.json"))


def test_bad_arguments_are_refused(model: PPO) -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        evaluate(model, FAMILY, episodes=0)
    with pytest.raises(ValueError, match=r"unknown split 'test'"):
        evaluate(model, FAMILY, splits=("test",))
    with pytest.raises(ValueError, match="at least one context"):
        evaluate(model, FAMILY, contexts=0)
