"""Commands that take the zip of a model that Stable-Baselines3 trained, without any of hyperrl's recipes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import VecNormalize

from hyperrl import HyperPolicy, load_family
from hyperrl.evaluation import evaluate
from hyperrl.evaluation.report import Report
from hyperrl.policies import ConcatPolicy
from tests.cli.conftest import Command

FAMILY = load_family("pendulum")
QUICK = ("--family", "pendulum", "--contexts", 2, "--episodes", 1, "--no-progress")
NO_PICTURES = ("--plane", 0, "--sensitivity", 0)


@pytest.fixture
def agent(tmp_path: Path) -> Any:
    """A model of nobody's recipe, saved beside where the commands run."""
    model = PPO(HyperPolicy, FAMILY.vec_env(2), n_steps=64, batch_size=64, n_epochs=1, seed=3, device="cpu").learn(128)
    model.save(tmp_path / "agent.zip")
    return model


def test_evaluate_and_the_same_in_python(agent: Any, tmp_path: Path, hyperrl: Command) -> None:
    hyperrl("evaluate", "agent.zip", *QUICK, *NO_PICTURES)
    report = Report.load(tmp_path / "agent.evaluation.json")
    assert (report.agent, report.seed, report.training) == ("agent", 3, None)
    expected = evaluate(agent, FAMILY, contexts=2, episodes=1)
    for split, found in report.splits.items():
        np.testing.assert_allclose(found.returns, expected.splits[split].returns, rtol=1e-5)
    assert "is never overwritten" in hyperrl("evaluate", "agent.zip", *QUICK, expect=2)


def test_export_adapt_and_record(agent: Any, tmp_path: Path, hyperrl: Command) -> None:
    hyperrl("export", "agent.zip", "--context", "length=0.7", "--format", "safetensors")
    assert (tmp_path / "agent.policy.safetensors").is_file()
    hyperrl("adapt", "agent.zip", *QUICK, "--seeds", 1, "--evaluations", 1, "--method", "identify")
    assert json.loads((tmp_path / "agent.adaptation" / "adaptation.json").read_text())
    hyperrl("record", "agent.zip", "--family", "pendulum", "--contexts", 1, "--out", "film.gif")
    assert (tmp_path / "film.gif").is_file()


def test_a_normalizer_of_observations(tmp_path: Path, hyperrl: Command) -> None:
    env = VecNormalize(FAMILY.vec_env(2), norm_obs_keys=["observation"])
    model = A2C(ConcatPolicy, env, device="cpu").learn(100)
    model.save(tmp_path / "agent.zip")
    env.save(str(tmp_path / "normalizer.pkl"))
    given = (*QUICK, *NO_PICTURES, "--splits", "train")
    hyperrl("evaluate", "agent.zip", *given, "--normalizer", "normalizer.pkl")
    found = Report.load(tmp_path / "agent.evaluation.json").splits["train"].returns
    expected = evaluate(model, FAMILY, ("train",), contexts=2, episodes=1).splits["train"].returns
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mistakes_are_one_sentence(agent: Any, tmp_path: Path, hyperrl: Command) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    for arguments, message in (
        (("evaluate", "agent.zip"), "agent.zip does not say of which family it is: give --family"),
        (("evaluate", "nowhere.zip", *QUICK), "no such file: nowhere.zip"),
        (("evaluate", "text.zip", *QUICK), "text.zip: no model that Stable-Baselines3 saved"),
        (("evaluate", "agent.zip", "--family", "cartpole"), "the model acts on observations"),
        (("evaluate", "agent.zip", *QUICK, "--algorithm", "SAC"), "agent.zip: SAC cannot load it"),
        (("evaluate", ".", *QUICK), "--family is for a model's zip"),
        (("adapt", "agent.zip", "agent.zip", *QUICK), "zips of different names"),
        (("adapt", "agent.zip", *QUICK, "--contexts", 0), "expected at least one context, got --contexts 0"),
        (("adapt", "agent.zip", *QUICK, "--contexts", -1), "expected at least one context, got --contexts -1"),
    ):
        printed = hyperrl(*arguments, expect=2)
        assert message in " ".join(printed.split())
        assert "Traceback" not in printed
