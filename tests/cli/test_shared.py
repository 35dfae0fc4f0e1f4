"""The commands take agents that come along, and shared folders, where they take runs."""

from pathlib import Path

import numpy as np
import pytest

from hyperrl import load_agent
from hyperrl.evaluation import Report
from hyperrl.sharing import names
from tests.cli.conftest import Command

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run"
QUICK = ("--contexts", 1, "--episodes", 1, "--no-progress")
NO_PICTURES = ("--plane", 0, "--sensitivity", 0, "--splits", "train")


def test_a_run_is_shared_evaluated_and_compared(hyperrl: Command) -> None:
    assert "Wrote mine" in hyperrl("share", FIXTURE, "--out", "mine")
    assert "is never overwritten" in hyperrl("share", FIXTURE, "--out", "mine", expect=2)
    assert "mine has not been evaluated: run `hyperrl evaluate mine`" in hyperrl("compare", "mine", expect=2)
    hyperrl("evaluate", "mine", *QUICK, *NO_PICTURES)
    assert Report.load("mine/evaluation.json").agent == "small"
    assert "small" in hyperrl("compare", "mine", "mine/evaluation.json", expect=2)  # one training, twice
    assert "small" in hyperrl("compare", "mine")


def test_every_command_takes_an_agent_that_comes_along(hyperrl: Command) -> None:
    listed = hyperrl("list")
    assert all(name in listed for name in names())
    agent, own = "pendulum/hyper-ppo", "pendulum-hyper-ppo"
    hyperrl("evaluate", agent, *QUICK, *NO_PICTURES)
    hyperrl("export", agent, "--context", "length=0.7", "--format", "safetensors")
    hyperrl("adapt", agent, *QUICK, "--seeds", 1, "--evaluations", 1, "--method", "zero-shot")
    written = ("evaluation.json", "policy.safetensors", "adaptation")
    assert all(Path(f"{own}.{name}").exists() for name in written)
    from hyperrl.export import formats

    frozen = formats.load(f"{own}.policy.safetensors")
    observation = np.array([[0.6, -0.8, 1.5]], dtype=np.float32)
    context = np.array([[10, 1, 0.7, 1]], dtype=np.float32)
    whole = {"observation": observation, "context": context}
    expected = load_agent(agent, "cpu").predict(whole, deterministic=True)[0]
    np.testing.assert_allclose(frozen.predict(observation), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pendulum/hyper-pp",), "Did you mean 'pendulum/hyper-ppo'?"),
        (("pendulum/hyper-ppo", "--trust"), "--trust is for run folders"),
        (("pendulum/hyper-ppo", "--algorithm", "PPO"), "--algorithm is for a model's zip"),
        (("pendulum/hyper-ppo", "--family", "cartpole"), "is of another family 'pendulum' than that of"),
    ],
)
def test_what_cannot_be_opened_says_why(hyperrl: Command, arguments: tuple[str, ...], message: str) -> None:
    assert message in hyperrl("evaluate", *arguments, expect=2)


def test_explain(hyperrl: Command) -> None:
    quick = ("--contexts", 4, "--states", 20, "--episodes", 0)
    assert "small on pendulum: weights, head low_rank" in hyperrl("explain", FIXTURE, *quick)
    Path("explained").mkdir()
    assert "is never overwritten" in hyperrl("explain", FIXTURE, "--out", "explained", expect=2)
