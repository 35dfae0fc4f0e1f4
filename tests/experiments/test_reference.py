import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import hyperrl
from hyperrl.evaluation.reference import Reference, ReferenceSettings, find_reference, known_scores, reference_path
from hyperrl.experiments import specialists
from hyperrl.experiments.engines import LocalEngine
from hyperrl.experiments.specialists import make_reference, optimum
from hyperrl.families.family import Family
from hyperrl.physics.ode import _extreme_rates
from hyperrl.rollouts.episodes import play
from hyperrl.training.run import Run
from hyperrl.utils.definitions import folder, names

ODE = hyperrl.load_family("ode")
QUICK = """
algorithm = "PPO"
policy = "unaware"
n_envs = 16
[hyperparameters]
n_steps = 64
batch_size = 256
learning_rate = 3e-3
gamma = 0.9
[policy_kwargs]
"""


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """A family of the user's own, whose episodes are short."""
    path = tmp_path / "mine.toml"
    path.write_text(
        (folder("envs") / "cartpole.toml").read_text().replace("physics =", "max_episode_steps = 60\nphysics =")
    )
    return hyperrl.load_family(path)


def of(family: Family, contexts: Any, random: Any, best: Any) -> Reference:
    names, settings = family.context_space.names, ReferenceSettings("optimum", 0, ("train",), 2, 10)
    contexts, random, best = (np.array(a, dtype=float) for a in (contexts, random, best))
    return Reference(family.name, names, family.digest, contexts, random, best, settings, {"hyperrl": "0.1.0"})


def test_scores_are_0_for_random_and_1_for_the_best() -> None:
    reference = of(ODE, [[1, 2], [3, 4]], [-10, 20], [90, 30])
    returns = np.array([[20.0, 30.0, 25.0], [-10.0, 90.0, 190.0]])
    expected = [[0, 1, 0.5], [0, 1, 2]]
    assert_allclose(reference.scores([[3, 4], [1, 2]], returns), expected)
    assert_allclose(reference.scores([[3, 4, 0.5], [1, 2, 0.1]], returns), expected)  # features that do nothing
    several = np.stack([returns, returns + 5])
    assert_allclose(reference.scores([[3, 4], [1, 2]], several)[0], expected)


def test_nothing_is_interpolated() -> None:
    reference = of(ODE, [[1, 2], [3, 4]], [0, 0], [1, 1])
    contexts = np.array([[1, 2], [2, 3], [3, 4 + 1e-6], [3, 4 + 1e-14]])
    scores = reference.scores(contexts, np.ones((4, 2)))
    assert_array_equal(np.isnan(scores).all(axis=1), [False, True, True, False])
    assert known_scores(reference, contexts, np.ones((5, 4, 2))).shape == (5, 2, 2)
    assert known_scores(None, contexts, np.ones((5, 4, 2))).shape == (5, 0, 2)


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    reference = of(ODE, ODE.context_space.sample("train", 3), [0.1, 0.2, 0.3], [1, 2, 3])
    reference.save(tmp_path / "r.json")
    again = Reference.load(tmp_path / "r.json", ODE)
    assert again.features == reference.features
    assert again.settings == reference.settings
    assert again.versions == reference.versions
    for key in ("contexts", "random", "best"):
        assert_array_equal(getattr(again, key), getattr(reference, key))
    with pytest.raises(ValueError, match="is never overwritten"):
        reference.save(tmp_path / "r.json")
    with pytest.raises(ValueError, match="another definition of ode than"):
        Reference.load(tmp_path / "r.json", hyperrl.load_family("pendulum"))
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read: No such file"):
        Reference.load(tmp_path / "nowhere.json", ODE)
    for text in ("", "[]", '{"family": "ode"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: expected a record of hyperrl's"):
            Reference.load(tmp_path / "bad.json", ODE)


def test_a_reference_is_found_beside_the_file_or_by_the_name(family: Family, tmp_path: Path) -> None:
    assert find_reference(family) is None
    of(family, [family.context_space.default], [0], [1]).save(reference_path(family))
    assert (tmp_path / "mine.reference.json").is_file()
    assert find_reference(family) is not None
    whole = reference_path(family).read_text()
    reference_path(family).write_text(whole[:-20])
    with pytest.raises(ValueError, match=r"mine\.reference\.json: .*got no JSON"):
        find_reference(family)
    reference_path(family).write_text(whole)
    changed = tmp_path / "mine.toml"
    changed.write_text(changed.read_text().replace("default = 9.8", "default = 9.7"))
    assert find_reference(hyperrl.load_family(changed)) is None
    # As in a run folder: a copy of a packaged family.
    shutil.copy(folder("envs") / "ode.toml", tmp_path / "ode.toml")
    copied, packaged = find_reference(hyperrl.load_family(tmp_path / "ode.toml")), find_reference(ODE)
    assert copied is not None
    assert packaged is not None
    assert_array_equal(copied.best, packaged.best)


PACKAGED = [name for name in names("envs") if (folder("envs") / f"{name}.reference.json").exists()]


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_references_are_of_the_packaged_families(name: str) -> None:
    family = hyperrl.load_family(name)
    reference = find_reference(family)
    assert reference is not None, "the family has changed: make its reference anew"
    for split in reference.settings.splits:
        contexts = family.context_space.sample(split, 20, 0)  # as `hyperrl evaluate` does by default
        assert known_scores(reference, contexts, np.zeros((20, 1))).shape[0] > 15
    best = optimum(family, reference.contexts)
    if best is not None:
        assert_allclose(reference.best, best)


@pytest.mark.parametrize("coefficients", [[1.0, 1.0], [0.0, 3.0], [4.0, -0.5], [0.0, 0.0], [1.0, -2.0, 3.0], [2.0]])
def test_extreme_rates_of_the_ode_are_those_of_all_actions(coefficients: list[float]) -> None:
    axis = np.linspace(-1, 1, 401)
    action = axis[:, None] + 1j * axis
    rates = np.sum([c * action ** (k + 1) for k, c in enumerate(coefficients)], axis=0).real
    assert_allclose(_extreme_rates(coefficients), (-rates.min(), rates.max()), atol=1e-3)


@pytest.mark.parametrize("context", [[3.0, 0.0], [-0.5, 0.0], [0.0, 0.0]])
def test_the_optimum_of_the_ode_is_what_its_policy_gets(context: list[float]) -> None:
    """Without c₁ the best action is known: straight to zero, as far as it goes."""
    env: Any = ODE.vec_env(4000, contexts=[context], seed=0)
    observation, returns = env.reset(), np.zeros(4000)
    for _ in range(200):
        x = observation["observation"][:, 0].astype(float)
        real = np.clip(-x / (0.01 * context[0]), -1, 1) if context[0] else x
        observation, rewards, _, _ = env.step(np.stack([real, np.zeros(4000)], axis=1))
        returns += rewards
    best = optimum(ODE, np.array([context]))
    assert best is not None
    assert_allclose(returns.mean(), best[0], rtol=0.02)


def test_nothing_beats_the_optimum_of_the_ode() -> None:
    """A policy that tries many actions at every step and takes the one that ends nearest to zero."""
    contexts, physics, starts = ODE.context_space.sample("extrapolation", 3, 0), ODE.physics(), 60
    axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
    actions = torch.cartesian_prod(axis, axis)
    c = dict(zip(("c0", "c1"), torch.as_tensor(contexts.T).repeat_interleave(starts, dim=1), strict=True))
    every = {name: column.repeat_interleave(len(actions)) for name, column in c.items()}
    uniform = (torch.arange(starts, dtype=torch.float64) + 0.5) / starts
    state, returns = physics.initial(uniform.repeat(3)[:, None], c), np.zeros(3 * starts)
    for _ in range(200):
        tried, rewards, _ = physics.step(state.repeat_interleave(len(actions), 0), actions.repeat(3 * starts, 1), every)
        tried = tried.reshape(3 * starts, -1)
        best = tried.abs().argmin(1, keepdim=True)
        state = tried.gather(1, best)
        returns += rewards.reshape(tried.shape).gather(1, best)[:, 0].numpy()
    ratio = returns.reshape(3, starts).mean(axis=1) / optimum(ODE, contexts)
    assert np.all(ratio <= 1.002)
    assert np.all(ratio >= 0.98)


@pytest.mark.slow
def test_specialists_are_trained_once(family: Family, tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    quick.write_text(QUICK)
    arguments: Any = dict(agent=quick, splits=("interpolation",), contexts=2, episodes=40, engine=LocalEngine(2))
    made, left_out = make_reference(family, tmp_path / "work", steps=4000, **arguments)
    contexts = family.context_space.sample("interpolation", 2, 0)
    assert {tuple(c) for c in (*made.contexts, *left_out)} == {tuple(c) for c in contexts}
    assert len(made.contexts)
    assert np.all(made.best > made.random + 5)
    assert made.settings.best == "specialist"
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")}
    again, _ = make_reference(family, tmp_path / "work", steps=4000, **arguments)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")} == stamps
    assert_array_equal(again.best, made.best)
    best, _ = make_reference(family, tmp_path / "work", steps=4000, **arguments, seeds=2)
    assert {path: path.stat().st_mtime_ns for path in stamps if path != tmp_path / "work"}.items() <= stamps.items()
    assert best.settings.seeds == 2
    second = [Run.open(tmp_path / "work" / f"{i:03d}-1") for i in range(2)]
    assert [run.training.seed for run in second] == [1, 1]
    own = [play(run.model("cpu"), family, run.training.contexts or (), 40, 0).returns.mean() for run in second]
    assert_allclose(best.best, np.maximum(made.best, own))
    with pytest.raises(ValueError, match=r"00\d holds another specialist: steps was 4000, now 9000"):
        make_reference(family, tmp_path / "work", steps=9000, **arguments | dict(engine=LocalEngine(1)))


def test_specialists_that_learnt_nothing_are_no_reference(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: Any = dict(work=tmp_path, splits=("interpolation",), contexts=2, episodes=20)
    monkeypatch.setattr(specialists, "gather", lambda engine, work, tasks, *_: [[1.0] * 20, [60.0] * 20])
    made, left_out = make_reference(family, **arguments)
    assert_array_equal(made.best, [60])
    assert len(left_out) == 1
    monkeypatch.setattr(specialists, "gather", lambda engine, work, tasks, *_: [[1.0] * 20] * 2)
    with pytest.raises(ValueError, match="no specialist on mine gets clearly more than random"):
        make_reference(family, **arguments)


def test_a_known_optimum_needs_no_training(tmp_path: Path) -> None:
    made, left_out = make_reference(ODE, tmp_path / "work", contexts=4, episodes=20)
    assert not (tmp_path / "work").exists()
    assert len(made.contexts) + len(left_out) == 12
    assert made.settings.best == "optimum"
    assert np.all(made.best > made.random)
    made.save(tmp_path / "r.json")
    assert Reference.load(tmp_path / "r.json", ODE).settings == made.settings


def test_a_family_that_other_processes_cannot_find_is_refused(tmp_path: Path) -> None:
    hidden = Family(
        lambda: gym.make("CartPole-v1"), ODE.context_space, lambda env, c: None, name="h", max_episode_steps=9
    )
    with pytest.raises(ValueError, match=r"family 'h' cannot be sent to the processes that train, which find its"):
        make_reference(hidden, tmp_path, splits=("train",), contexts=1, episodes=1)
