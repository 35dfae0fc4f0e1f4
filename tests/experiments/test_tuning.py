from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest

import hyperrl
import hyperrl.utils.extras
from hyperrl.experiments.engines import LocalEngine
from hyperrl.experiments.tuning import STUDY, Search
from hyperrl.experiments.tuning import tune as tune_on_engine
from hyperrl.hypernet import HEADS
from hyperrl.training.recipe import agent_spec
from hyperrl.utils.definitions import names
from tests.experiments.work import Inline

RECIPE = """
# small rollouts
algorithm = "PPO"
policy = "hyper"
n_envs = 4
[hyperparameters]
n_steps = 16
batch_size = 32
n_epochs = 1
learning_rate = "lin_1e-3"
[policy_kwargs]
head = "low_rank"
rank = 3
net_arch = [8]
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let trials be judged by their rank alone, by a function that a test may replace."""
    judge = {"by": lambda model: -abs((model.policy.hyper_config.rank or 0) - 3)}
    monkeypatch.setattr(Search, "returns", lambda self, model: float(judge["by"](model)))
    return judge


tune = partial(tune_on_engine, engine=Inline())


def journal(out: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(out / "optuna.log"))  # pyright: ignore[reportAttributeAccessIssue]
    return optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend))


def test_an_interrupted_search_goes_on(
    quick: Path, tmp_path: Path, score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    arguments: Any = dict(steps=64, out=out, device="cpu")
    done = []

    def interrupt(model: Any) -> float:
        done.append(model)
        if len(done) == 2:
            raise KeyboardInterrupt
        return 1.0

    score["by"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        tune("pendulum", quick, 3, **arguments)
    assert agent_spec(out / "quick-tuned.toml").definition.policy_kwargs["rank"] == 3
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        tune("pendulum", quick, 3, **arguments)
    with pytest.raises(ValueError, match="holds another search: steps, seed differ"):
        tune("pendulum", quick, 3, resume=True, **(arguments | dict(steps=65, seed=1)))
    score["by"] = lambda model: float(len(journal(out).trials))
    best = tune("pendulum", quick, 3, resume=True, **arguments)
    trials = journal(out).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].params.keys() == {"head", "rank", "embedding", "learning_rate"}
    as_it_is = agent_spec(out / "trial-0.toml").definition
    given = agent_spec(quick).definition
    assert as_it_is.policy_kwargs == given.policy_kwargs | {"embedding": [64, 16]}  # which is the default
    assert as_it_is.hyperparameters["learning_rate"] == "lin_0.001"
    assert trials[1].params != trials[2].params != trials[3].params
    assert best.definition == agent_spec(out / "trial-3.toml").definition
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert tune("pendulum", quick, 3, resume=True, **arguments) == best
    after = {path: path.read_bytes() for path in out.iterdir() if path.name != "optuna.log"}
    assert after.items() <= before.items()


def test_a_killed_trial_does_not_count(quick: Path, tmp_path: Path, score: Any) -> None:
    out = tmp_path / "search"
    tune("pendulum", quick, 1, 64, out=out, device="cpu")
    journal(out).ask()  # and nobody tells
    tune("pendulum", quick, 2, 64, out=out, resume=True, device="cpu")
    assert [trial.state.name for trial in journal(out).trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_the_search_finds_what_is_best(quick: Path, tmp_path: Path, score: Any) -> None:
    score["by"] = lambda model: (
        -abs((model.policy.hyper_config.rank or 0) - 12) - 10 * (model.policy.hyper_config.head != "low_rank")
    )
    best = tune("pendulum", quick, 12, 64, out=tmp_path / "search", device="cpu")
    assert best.definition.policy_kwargs["head"] == "low_rank"
    assert abs(best.definition.policy_kwargs["rank"] - 12) < 9  # where the recipe was


def test_a_recipe_says_what_the_trial_was(quick: Path, tmp_path: Path, score: Any) -> None:
    out = tmp_path / "search"
    tune("pendulum", quick, 12, 64, out=out, device="cpu")
    given = agent_spec(quick).definition
    trials = journal(out).trials
    assert len({trial.params["head"] for trial in trials}) > 2
    for trial in trials:
        text = (out / f"trial-{trial.number}.toml").read_text()
        assert "# small rollouts" in text
        definition = agent_spec(out / f"trial-{trial.number}.toml").definition
        kwargs = definition.policy_kwargs
        assert kwargs["head"] == trial.params["head"] in HEADS
        assert kwargs.get("rank") == trial.params.get("rank")
        assert kwargs["embedding"] == [64, trial.params["embedding"]]
        assert kwargs["net_arch"] == [8]
        rate = definition.hyperparameters["learning_rate"]
        assert float(rate.removeprefix("lin_")) == pytest.approx(trial.params["learning_rate"], rel=1e-2)
        others = {key: value for key, value in definition.hyperparameters.items() if key != "learning_rate"}
        assert given.hyperparameters.items() >= others.items()


def test_a_trial_worse_than_the_median_is_given_up(quick: Path, tmp_path: Path, score: Any) -> None:
    out = tmp_path / "search"
    steps = []

    def judge(model: Any) -> float:
        steps.append(model.num_timesteps)
        return -float(len(steps))  # each worse than all before

    score["by"] = judge
    tune("pendulum", quick, 7, 320, out=out, device="cpu")
    trials = journal(out).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5 + ["PRUNED"] * 2
    assert steps == [64, 128, 192, 256, 320] * 5 + [64, 64]
    assert trials[0].intermediate_values == {1: -1, 2: -2, 3: -3, 4: -4, 5: -5}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_divergence_in_every_trial_is_an_error(quick: Path, tmp_path: Path, score: Any, value: float) -> None:
    score["by"] = lambda model: value
    with pytest.raises(ValueError, match="training diverged in each of 2 trials"):
        tune("pendulum", quick, 2, 64, out=tmp_path / "search", device="cpu")
    assert not (tmp_path / "search" / "quick-tuned.toml").exists()


def test_the_best_recipe_trains(quick: Path, tmp_path: Path) -> None:
    """Nothing replaced: judged by returns."""
    out = tmp_path / "search"
    best = tune("pendulum", quick, 2, 128, out=out, device="cpu")
    values = [trial.value for trial in journal(out).trials]
    assert all(-2500 < value < 0 for value in values)
    assert f"mean return {max(values):.4g} after 128 steps" in best.source.read_text()
    model = hyperrl.train("pendulum", best.source, steps=64, device="cpu", out=tmp_path / "run")
    assert model.policy.hyper_config.head == best.definition.policy_kwargs["head"]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("agent", [name for name in names("agents") if agent_spec(name).definition.policy != "hyper"])
def test_baselines_are_refused(agent: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected policy = 'hyper', got"):
        tune("pendulum", agent, out=tmp_path / "search")
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_refused(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (dict(trials=0), dict(steps=0)):
        with pytest.raises(ValueError, match=r"expected (trials|steps) ≥ 1, got (trials|steps)=0"):
            tune("pendulum", quick, out=tmp_path / "search", **arguments)
    with pytest.raises(ValueError, match="holds no search"):
        tune("pendulum", quick, out=tmp_path, resume=True)
    quick.write_text(RECIPE.replace("n_epochs", "nepochs"))
    with pytest.raises(ValueError, match="PPO knows no 'nepochs'"):
        tune("pendulum", quick, out=tmp_path / "search")
    monkeypatch.setattr(hyperrl.utils.extras, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install '\.\[tune\]'"):
        tune("pendulum", quick, out=tmp_path / "search")
    assert list(tmp_path.iterdir()) == [quick]


def test_a_search_goes_on_after_a_kill_while_optuna_held_its_lock(
    quick: Path, tmp_path: Path, score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("search")
    tune("pendulum", quick, 1, 64, out=out, device="cpu")
    (out / "optuna.log.lock").symlink_to("search/optuna.log")  # as Optuna's lock of a relative path
    tune("pendulum", quick, 2, 64, out=out, resume=True, device="cpu")
    (out / "optuna.log.lock").unlink()
    assert len(journal(out).trials) == 2


def test_a_search_goes_on_under_another_name(quick: Path, tmp_path: Path, score: Any) -> None:
    tune("pendulum", quick, 2, 64, out=tmp_path / "search", device="cpu")
    (tmp_path / "search").rename(tmp_path / "renamed")
    tune("pendulum", quick, 3, 64, out=tmp_path / "renamed", resume=True, device="cpu")
    assert len(journal(tmp_path / "renamed").trials) == 3


def test_a_last_line_that_was_cut_is_done_again(quick: Path, tmp_path: Path, score: Any) -> None:
    out = tmp_path / "search"
    tune("pendulum", quick, 1, 64, out=out, device="cpu")
    whole = (out / "optuna.log").read_bytes()
    (out / "optuna.log").write_bytes(whole[:-7])  # the end of the trial
    tune("pendulum", quick, 2, 64, out=out, resume=True, device="cpu")
    assert [trial.state.name for trial in journal(out).trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert journal(out).trials[1].params["rank"] == 3  # the recipe as it is, again
    (out / "optuna.log").write_bytes(b"{}\n" + whole)
    with pytest.raises(ValueError, match=r"optuna\.log is damaged, so the search cannot go on"):
        tune("pendulum", quick, 2, 64, out=out, resume=True, device="cpu")


def test_an_empty_folder_that_a_kill_left_is_a_search(quick: Path, tmp_path: Path, score: Any) -> None:
    (tmp_path / "search").mkdir()
    tune("pendulum", quick, 1, 64, out=tmp_path / "search", resume=True, device="cpu")
    assert len(journal(tmp_path / "search").trials) == 1


def test_two_searches_never_write_to_one_folder(quick: Path, tmp_path: Path, score: Any) -> None:
    refused = []

    def another(model: Any) -> float:
        with pytest.raises(ValueError, match="another process is writing") as error:
            tune("pendulum", quick, 1, 64, out=tmp_path / "search", resume=True, device="cpu")
        refused.append(error)
        return 1.0

    score["by"] = another
    tune("pendulum", quick, 1, 64, out=tmp_path / "search", device="cpu")
    assert refused


@pytest.mark.slow
def test_trials_that_run_side_by_side_share_one_search(quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    tune_on_engine("pendulum", quick, 6, 256, out=out, device="cpu", engine=LocalEngine(2))
    trials = journal(out).trials
    assert sorted(trial.number for trial in trials) == list(range(6))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert len({str(trial.params) for trial in trials}) == 6
    assert trials[0].params["rank"] == 3  # the recipe as it is comes first
    times: Any = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    assert any(end > start for (_, end), (start, _) in pairwise(sorted(times)))  # side by side
    tune_on_engine("pendulum", quick, 7, 256, out=out, device="cpu", resume=True, engine=LocalEngine(2))
    assert len(journal(out).trials) == 7


def test_workers_that_do_not_see_the_folder_are_refused(quick: Path, tmp_path: Path) -> None:
    engine = LocalEngine(2)
    engine.shared_storage = False
    with pytest.raises(ValueError, match=r"trials share one journal file.*Give --shared-storage"):
        tune_on_engine("pendulum", quick, out=tmp_path / "search", engine=engine)
    assert not (tmp_path / "search").exists()
