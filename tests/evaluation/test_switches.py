"""Rewards step by step where the context changes within an episode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hyperrl
from hyperrl.evaluation.report import Report
from hyperrl.evaluation.switches import after_switch
from hyperrl.experiments.comparison import Comparison

PENDULUM = hyperrl.load_family("pendulum")
CARTPOLE = hyperrl.load_family("cartpole")


class Constant:
    """Takes one action, and notes which contexts it is told."""

    def __init__(self, action: Any) -> None:
        self.action = action
        self.told: list[np.ndarray] = []

    def predict(self, observation: Any) -> np.ndarray:
        self.told.append(observation["context"])
        return np.array([self.action] * len(observation["context"]))


def test_rewards_are_those_of_the_episodes_in_their_intervals() -> None:
    model = Constant([0.5])
    measured = after_switch(model, PENDULUM, 60, "extrapolation", contexts=3, episodes=2, seed=4)
    told = np.array(model.told)  # (steps, n, d)
    changes = (told[1:] != told[:-1]).any(-1)
    assert set((changes.any(1).nonzero()[0] + 1).tolist()) == {60, 120}
    contexts = PENDULUM.context_space.sample("extrapolation", 3, 4).astype(np.float32)
    assert (told[:, :, None] == contexts).all(-1).any(-1).all()

    among = np.repeat(PENDULUM.context_space.sample("extrapolation", 3, 4), 2, axis=0)
    vec_env: Any = PENDULUM.vec_env(6, contexts=among, switch=60, seed=4)
    vec_env.reset()
    rewards = np.array([vec_env.step(np.full((6, 1), 0.5))[1] for _ in range(180)]).T.reshape(3, 2, 3, 60).mean(axis=1)
    assert_allclose(measured.first, rewards[:, 0])
    assert_allclose(measured.later, (rewards[:, 1] + rewards[:, 2]) / 2)


def test_what_follows_an_early_end_counts_nothing() -> None:
    measured = after_switch(Constant(1), CARTPOLE, 100, contexts=4, episodes=3)  # falls within some ten steps
    assert_allclose(measured.first[:, :5], 1.0)
    assert (np.diff(measured.first, axis=1) <= 0).all()
    assert (measured.first[:, 60:] == 0).all()
    assert (measured.later == 0).all()


def test_a_report_keeps_them_and_a_comparison_puts_seeds_together(tmp_path: Path) -> None:
    report = hyperrl.evaluate(Constant([0.0]), PENDULUM, ("train", "extrapolation"), contexts=3, episodes=1, switch=50)
    report.save(tmp_path / "a.json")
    loaded = Report.load(tmp_path / "a.json")
    assert_allclose(loaded.after_switch["train"].later, report.after_switch["train"].later)
    alone = after_switch(Constant([0.0]), PENDULUM, 50, "train", contexts=3, episodes=1)
    assert_allclose(alone.later, report.after_switch["train"].later)

    def of(seed: int, factor: float) -> Report:
        return Report(
            "pendulum",
            report.splits,
            agent="mine",
            seed=seed,
            settings=report.settings,
            after_switch={
                name: type(rewards)(rewards.first * factor, rewards.later * factor)
                for name, rewards in report.after_switch.items()
            },
        )

    lines = Comparison([of(0, 1.0), of(1, 3.0)]).after_switch
    assert list(lines) == [f"{s}, {c}" for c in ("first context", "later contexts") for s in ("train", "extrapolation")]
    steps, (mean, low, high) = lines["train, later contexts"]["mine"]
    assert steps.tolist() == list(range(1, 51))
    assert_allclose(mean, 2 * alone.later.mean(axis=0))
    assert ((low < mean) & (mean < high)).all()


@pytest.mark.parametrize("switch", [-1, 101, 200])
def test_an_episode_must_have_time_for_a_switch(switch: int) -> None:
    with pytest.raises(ValueError, match=f"expected from 1 to 100 steps .*got switch={switch}"):
        hyperrl.evaluate(Constant([0.0]), PENDULUM, ("train",), switch=switch)
