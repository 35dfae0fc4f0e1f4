import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hyperrl
from hyperrl.evaluation import Report
from hyperrl.experiments import Comparison, LocalEngine, sweeps
from hyperrl.experiments.sweeps import SweepState, read_sweep, sweep
from hyperrl.inference.record import Learning
from hyperrl.training import Run, agent_spec, read_overrides
from tests.experiments.work import Inline

FILE = """
families = ["ode", "pendulum"]
agents = ["hyper-ppo", {recipe = "concat-ppo", name = "small", set = {"policy.net_arch" = [8, 8]}}]
steps = {ode = 2000, pendulum = 1000}
seeds = [3, 4]
set = {n_envs = 4, n_steps = 64, batch_size = 64, n_epochs = 1}
evaluate = {contexts = 2, episodes = 2, splits = ["train", "extrapolation"]}
results = "results"
"""


def write(folder: Path, text: str = FILE) -> Path:
    (folder / "tiny.toml").write_text(text)
    return folder / "tiny.toml"


def test_a_sweep_is_families_by_agents_by_seeds(tmp_path: Path) -> None:
    cells = read_sweep(write(tmp_path))
    assert [cell.name for cell in cells] == [
        f"{family}-{agent}-{seed}"
        for seed in (3, 4)  # first, so that an interrupted sweep has as many of each agent
        for family in ("ode", "pendulum")
        for agent in ("hyper-ppo", "small")
    ]
    assert {cell.steps for cell in cells if cell.family == "ode"} == {2000}
    assert cells[0].agent.definition.n_envs == 4
    assert cells[-1].agent.definition.policy_kwargs["net_arch"] == [8, 8]
    assert len(read_sweep(write(tmp_path, FILE + "irrelevant = [0, 2]"))) == 16


def test_fixed_contexts_of_a_split_are_those_of_every_seed(tmp_path: Path) -> None:
    cells = read_sweep(write(tmp_path, FILE + 'contexts = 5\nsplit = "mesh-train"\nirrelevant = [0, 1]'))
    for cell in cells:
        fixed = cell.load_family().context_space.sample("mesh-train", 5)
        assert_array_equal(cell.contexts, fixed)
        assert_array_equal(cell.training.contexts, fixed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"ode", ', '"oed", ', r"tiny.toml: unknown family 'oed'.* Did you mean 'ode'\?"),
        ("hyper-ppo", "hyper-pp", "unknown agent 'hyper-pp'.* Did you mean 'hyper-ppo'"),
        ("n_epochs", "n_epoch", "PPO knows no 'n_epoch'.* Did you mean 'n_epochs'"),
        ("steps = {ode", "step = {ode", "unknown key 'step'.* Did you mean 'steps'"),
        ("ode = 2000, ", "", "'steps' does not say how many for 'ode'"),
        ("seeds = [3, 4]", "seeds = [-1]", "'seeds' must be a number ≥ 1, or a list of seeds ≥ 0"),
        ('name = "small", ', 'names = "small", ', "unknown key 'names'.* Did you mean 'name'"),
        ('name = "small"', 'name = "hyper-ppo"', "must have names of their own"),
        ("families = [", "families = [[", "not valid TOML"),
        ("seeds =", 'split = "mesh-train"\nseeds =', "'split' = 'mesh-train' says where 'contexts' come from"),
        (
            "seeds =",
            'contexts = 2\nsplit = "mesh-trian"\nseeds =',
            "unknown split 'mesh-trian'.* Did you mean 'mesh-train'",
        ),
        ("episodes = 2", "episode = 2", "'evaluate': unknown key 'episode'.* Did you mean 'episodes'"),
        ("seeds =", "infer = {step = 5}\nseeds =", "'infer': unknown key 'step'.* Did you mean 'steps'"),
        ("seeds =", "infer = {steps = 0}\nseeds =", "expected at least one step, got steps=0"),
        ("seeds =", 'infer = {steps = "many"}\nseeds =', "'infer': 'steps' must be of type int, got str 'many'"),
        ("seeds =", "infer = {switch = [9, 5]}\nseeds =", r"got switch=\[9, 5\]"),
        ("seeds =", 'infer = {contexts = "bound"}\nseeds =', "unknown contexts 'bound'.* Did you mean 'bounds'"),
        (
            "concat-ppo",
            'unaware-ppo", set = {}}]\ninfer = {}#',
            "expected a model that reads its context, .* got one with UnawarePolicy",
        ),
    ],
)
def test_a_faulty_file_is_refused_before_anything_runs(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(write(tmp_path, FILE.replace(old, new, 1)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_sweep_like_another_has_its_keys(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "more.toml").write_text('like = "tiny.toml"\nseeds = [5]\nset = {n_envs = 8}\nresults = "more"\n')
    cells = read_sweep(tmp_path / "more.toml")
    assert [(cell.family, cell.agent.name, cell.seed, cell.steps) for cell in cells] == [
        (family, agent, 5, steps)
        for family, steps in (("ode", 2000), ("pendulum", 1000))
        for agent in ("hyper-ppo", "small")
    ]
    assert {cell.agent.definition.n_envs for cell in cells} == {8}
    assert [dict(cell.evaluation) for cell in cells] == [dict(cell.evaluation) for cell in read_sweep(path)][:4]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ("3", "more.toml: 'like' must name a sweep's file in the same folder, such as 'aib.toml', got 3"),
        ('"../tiny.toml"', r"in the same folder, such as 'aib.toml', got '../tiny.toml'"),
        ('"tiy.toml"', "tiy.toml cannot be read: No such file"),
        ('"more.toml"', "'like' names 'more.toml', which is like 'more.toml' itself"),
    ],
)
def test_a_sweep_like_what_is_no_sweep_is_refused(like: str, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "more.toml").write_text(f"like = {like}\n")
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path / "more.toml")


def test_cells_are_trained_once_and_stand_in_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[SweepState] = []
    path = write(tmp_path, FILE.replace('"ode", ', "").replace("seeds = [3, 4]", "seeds = [3]"))
    result = sweep(path, tmp_path / "runs", engine=LocalEngine(1), watch=states.append)
    assert list(result.reports) == ["pendulum-hyper-ppo-3", "pendulum-small-3"]
    assert not result.errors
    assert states[-1].cells == 2
    assert states[0].remaining == 2000
    run = Run.open(tmp_path / "runs" / "pendulum-small-3")
    assert run.agent.definition.policy_kwargs["net_arch"] == [8, 8]
    assert run.training.overrides["n_envs"] == 4
    assert run.model("cpu").n_envs is not None

    # The same numbers as training by hand, and a file of results that is small and loads by itself.
    file = tmp_path / "results" / "pendulum-small-3.json"
    assert file.stat().st_size < 8000
    report = Report.load(file)
    model = hyperrl.train("pendulum", replace(run.agent, name="other"), 1000, 3, device="cpu")
    again = hyperrl.evaluate(model, run.family, ("train", "extrapolation"), contexts=2, episodes=2)
    np.testing.assert_allclose(report.splits["train"].returns, again.splits["train"].returns, rtol=1e-5)
    assert report.curve is not None
    assert Comparison([report, *map(Report.load, (tmp_path / "results").glob("*hyper*"))]).curves.keys() == {
        "small",
        "hyper-ppo",
    }

    # A second call has nothing to do, not even where the run folders are missing.
    monkeypatch.setattr(sweeps, "LocalEngine", None)
    for runs in ("runs", "elsewhere"):
        engine: Any = Refuse()
        once_more = sweep(path, tmp_path / runs, engine=engine)
        assert_array_equal(
            once_more.reports["pendulum-small-3"].splits["train"].returns, report.splits["train"].returns
        )

    # Another evaluation is asked for: neither the file nor that of the run folder is one.
    other = write(tmp_path, path.read_text().replace("episodes = 2", "episodes = 3"))
    with pytest.raises(ValueError, match=r"hyper-ppo-3.json is of another evaluation: episodes was 2, now 3\. Rem"):
        sweep(other, tmp_path / "runs")
    with pytest.raises(ValueError, match=r"evaluation.json is of another evaluation: episodes was 2, now 3"):
        sweep(other, tmp_path / "runs", results=tmp_path / "nowhere")
    write(tmp_path, path.read_text().replace("episodes = 3", "episodes = 2"))

    # A file of another training stands for nothing.
    data = json.loads(file.read_text())
    data["training"]["steps"] = 999
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"pendulum-small-3.json is of another training: steps was 1000, now 999"):
        sweep(path, tmp_path / "runs")


def test_agents_may_learn_to_do_without_being_told(tmp_path: Path) -> None:
    one = FILE.replace("[3, 4]", "[3]").replace('"ode", ', "").replace('"hyper-ppo", ', "")
    told = write(tmp_path, one)
    runs = tmp_path / "runs"
    sweep(told, runs, engine=Inline())
    text = told.read_text().replace('"results"', '"hidden"')
    hidden = write(tmp_path, text + "infer = {steps = 51_200, switch = []}")
    report = sweep(hidden, runs, engine=Inline()).reports["pendulum-small-3"]  # the trainings stand
    assert report.inference == Learning(51_200, 3, "train", None)
    assert report.agent == "small hidden"

    run = Run.open(runs / "pendulum-small-3")
    model = run.model("cpu")
    agent = hyperrl.infer_context(model, run.family, 51_200, 3, switch=None)
    again = hyperrl.evaluate(agent, run.family, ("train", "extrapolation"), contexts=2, episodes=2)
    np.testing.assert_allclose(report.splits["train"].returns, again.splits["train"].returns, rtol=1e-5)
    assert Report.load(run.evaluation_path).inference is None

    other = write(tmp_path, hidden.read_text().replace("51_200", "60_000"))
    with pytest.raises(ValueError, match=r"of another evaluation: inference was Learning\(steps=51200"):
        sweep(other, runs)
    for path in runs.glob("*/evaluation-hidden.json"):
        path.unlink()
    found = sweep(other, runs, engine=Inline(), results=tmp_path / "others").errors["pendulum-small-3"]
    assert "estimator.safetensors was learnt by Learning(steps=51200" in str(found)


def test_the_sweep_of_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    cells = read_sweep(write(tmp_path, page.split("```toml\n")[1].split("```")[0]))
    assert len(cells) == 2 * 3 * 5
    assert cells[0].agent.definition.n_envs == 64
    assert {cell.steps for cell in cells} == {40_000, 20_000}


class Refuse(LocalEngine):
    """An engine with nothing to do."""

    def run(self, work: Any, tasks: Any, watch: Any = None) -> Any:
        assert not tasks
        yield from ()


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    bad = FILE.replace('"ode", ', "").replace("splits = [", 'splits = ["trian", ').replace("[3, 4]", "[3]")
    result = sweep(write(tmp_path, bad), tmp_path / "runs", engine=Inline())
    assert not result.reports
    assert "unknown split 'trian'" in str(result.errors["pendulum-small-3"])
    assert "Traceback" in (tmp_path / "runs" / "pendulum-small-3.error.txt").read_text()
    trained = (tmp_path / "runs" / "pendulum-small-3" / "model.zip").stat().st_mtime_ns
    result = sweep(write(tmp_path, bad.replace('"trian", ', "")), tmp_path / "runs", engine=Inline())
    assert len(result.reports) == 2
    assert not list((tmp_path / "runs").glob("*.error.txt"))
    assert (tmp_path / "runs" / "pendulum-small-3" / "model.zip").stat().st_mtime_ns == trained


def test_overrides_take_the_place_of_what_the_recipe_says() -> None:
    spec = agent_spec("hyper-ppo", read_overrides(["learning_rate=lin_7e-4", "policy.rank=16", "n_envs=128"]))
    plain = agent_spec("hyper-ppo")
    assert spec.definition.hyperparameters == plain.definition.hyperparameters | {"learning_rate": "lin_7e-4"}
    assert spec.definition.policy_kwargs == plain.definition.policy_kwargs | {"rank": 16}
    assert spec.definition.n_envs == 128
    with pytest.raises(ValueError, match="expected key=value"):
        read_overrides(["n_envs"])
    with pytest.raises(ValueError, match="'n_envs' must be of type int, got str 'many'"):
        agent_spec("hyper-ppo", {"n_envs": "many"})
