import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from stable_baselines3 import PPO

import hyperrl
from hyperrl.evaluation.novelty import by_novelty, rank_correlation
from hyperrl.evaluation.protocol import evaluate
from hyperrl.evaluation.reference import Reference, ReferenceSettings
from hyperrl.evaluation.report import Report, Split
from hyperrl.policies import HyperPolicy

DISTANCE = np.array([0.0, 0.0, 0.1, 0.25, 0.3, 2.0])
CONTEXTS = np.arange(6.0)[:, None]
RETURNS = np.array([[8.0], [6.0], [7.0], [5.0], [3.0], [1.0]])
REPORT = Report("f", {"train": Split(CONTEXTS, RETURNS, novelty=DISTANCE)})


def reference(contexts: np.ndarray) -> Reference:
    n = len(contexts)
    settings = ReferenceSettings("optimum", 0, ("train",), n, 1)
    return Reference("f", ("c",), "", contexts, np.zeros(n), np.full(n, 10.0), settings, {})


def test_contexts_are_sorted_by_distance() -> None:
    found = by_novelty(REPORT)
    assert [(str(of), of.contexts) for of in found.classes] == [
        ("inside the range", 2),
        ("up to 0.25", 2),
        ("up to 0.5", 1),
        ("beyond 1", 1),
    ]
    assert_allclose([of.iqm.value for of in found.classes], [7, 6, 3, 1])
    assert found.correlation == pytest.approx(rank_correlation([1.5, 1.5, 3, 4, 5, 6], RETURNS[:, 0]))
    assert not found.is_scored


def test_scores_are_taken_where_every_context_has_one() -> None:
    found = by_novelty(REPORT, reference(CONTEXTS))
    assert found.is_scored
    assert_allclose([of.iqm.value for of in found.classes], [0.7, 0.6, 0.3, 0.1])
    assert not by_novelty(REPORT, reference(CONTEXTS[1:])).is_scored


def test_the_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    for kinds in (3, 10, 1000):  # the fewer, the more ties
        x, y = rng.integers(kinds, size=(2, 30))
        assert rank_correlation(x, x + y) == pytest.approx(spearmanr(x, x + y).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_constant_has_no_rank_correlation() -> None:
    assert math.isnan(rank_correlation([0, 0, 0], [1, 2, 3]))


def test_a_report_of_another_program_may_lack_distances() -> None:
    without = replace(REPORT, splits={"train": Split(CONTEXTS, RETURNS)})
    with pytest.raises(ValueError, match="does not say how far the contexts of 'train' lie"):
        by_novelty(without)


def test_policy_and_evaluation_agree() -> None:
    family = hyperrl.load_family("cartpole")
    model = PPO(HyperPolicy, family.vec_env(2), n_steps=8, batch_size=8, device="cpu")
    split = evaluate(model, family, ("extrapolation",), contexts=5, episodes=1).splits["extrapolation"]
    assert split.novelty is not None
    assert (split.novelty > 0).all()
    policy = model.policy
    assert isinstance(policy, HyperPolicy)
    assert_allclose(policy.novelty(split.contexts), split.novelty)
    assert_allclose(policy.novelty(split.contexts[2]), split.novelty[2:3])
    with pytest.raises(ValueError, match=r"unknown feature 'lenght'.*Did you mean 'length'"):
        policy.novelty({"lenght": 1.0})
