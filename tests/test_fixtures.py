"""Files that an earlier version wrote go on loading, and mean the same; ``tests/fixtures/make.py`` made them."""

import json
import shutil
from pathlib import Path

import pytest
from fixtures.make import HERE, observation
from numpy.testing import assert_allclose
from stable_baselines3 import PPO

import hyperrl
from hyperrl.adaptation import Study
from hyperrl.evaluation import Report
from hyperrl.experiments import Comparison
from hyperrl.experiments.comparison import ComparisonRecord
from hyperrl.utils.provenance import describe_model
from hyperrl.utils.records import read

EXPECTED = json.loads((HERE / "expected.json").read_text())


def test_a_zip_loads_and_acts_as_it_did() -> None:
    model = PPO.load(HERE / "agent.zip", device="cpu")
    assert isinstance(model.policy, hyperrl.HyperPolicy)
    assert model.policy.context_space.names == ("gravity", "mass", "length", "torque_gain")
    assert_allclose(model.predict(observation(), deterministic=True)[0], EXPECTED["agent.zip"], rtol=1e-4)


def test_a_run_folder_loads_and_acts_as_it_did() -> None:
    run = hyperrl.Run.open(HERE / "run")
    assert (run.training.family, run.training.agent, run.training.steps) == ("pendulum", "small", 256)
    assert run.family.digest == run.training.definition
    for model in (run.model("cpu"), run.model("cpu", trust=True)):
        assert describe_model(model) == run.result.model
        assert model.get_vec_normalize_env() is not None
        assert_allclose(model.predict(observation(), deterministic=True)[0], EXPECTED["run"], rtol=1e-4)


def test_an_evaluation_loads_and_is_what_its_model_gets() -> None:
    run = hyperrl.Run.open(HERE / "run")
    report = Report.load(run.evaluation_path)
    assert report.settings is not None
    again = hyperrl.evaluate(run.model("cpu"), run.family, contexts=2, episodes=2)
    for name, split in report.splits.items():
        assert_allclose(split.contexts, again.splits[name].contexts)
        assert_allclose(split.returns, again.splits[name].returns, rtol=1e-3)
    assert report.plane is not None
    assert set(report.sensitivity) == set(run.family.context_space.names)


def test_what_was_made_of_them_loads() -> None:
    study = Study.load(HERE / "adaptation.json")
    assert study.lines[1].results[0][0][0].identified is not None
    assert study.lines[0].returns.shape == (1, 1, 1, 2, 2)
    record = read(ComparisonRecord, HERE / "comparison.json")
    comparison = Comparison([hyperrl.Run.open(HERE / "run")])
    assert [(row.agent, row.split) for row in comparison.rows] == [(row.agent, row.split) for row in record.rows]
    assert_allclose([row.mean for row in comparison.rows], [row.mean for row in record.rows])


@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_a_later_version_is_named(name: str, tmp_path: Path) -> None:
    shutil.copytree(HERE / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(path.read_text().replace('-1",', '-2",', 1))
    with pytest.raises(ValueError, match=rf"{name} was written by schema .*-2; this hyperrl reads .*-1"):
        Comparison([hyperrl.Run.open(tmp_path / "run")])
