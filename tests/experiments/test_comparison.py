"""Who is compared with whom: by what was trained, whatever it is called."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hyperrl
from hyperrl.cli.main import main
from hyperrl.evaluation.pooling import pooled_improvement, pooled_iqm
from hyperrl.evaluation.reference import find_reference
from hyperrl.evaluation.report import Report, Split
from hyperrl.experiments.comparison import (
    Comparison,
    ComparisonRecord,
    PooledComparison,
    PooledRecord,
    compare_by_family,
)
from hyperrl.report.markdown import write_report
from hyperrl.training.run import Run, group_runs
from hyperrl.utils.definitions import folder
from hyperrl.utils.records import read

RECIPE = """
algorithm = "PPO"
policy = "unaware"
n_envs = 2
[hyperparameters]
n_steps = 4
batch_size = 8
learning_rate = 1e-3
[policy_kwargs]
net_arch = [4]
"""
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Train and evaluate an agent of few parameters."""

    def make(
        out: str, seed: int = 0, text: str = RECIPE, name: str = "mine", family: Any = "ode", **kwargs: Any
    ) -> Run:
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(text)
        hyperrl.train(family, recipe, kwargs.pop("steps", 1), seed, tmp_path / out, device="cpu", **kwargs)
        run = Run.open(tmp_path / out)
        hyperrl.evaluate(run.model("cpu"), run.family, ("train",), 20, 2).save(run.evaluation_path)
        return run

    return make


def test_trainings_that_differ_in_nothing_but_the_seed_are_one_agent(make: Make) -> None:
    one = make("one")
    renamed = make("two", 1, text="# a comment\n" + RECIPE, name="renamed")
    assert one.training.digest == renamed.training.digest
    comparison = Comparison([one, renamed])
    assert comparison.agents == ["mine"]
    assert comparison.returns("mine", "train").shape == (2, 20, 2)
    with pytest.raises(ValueError, match=r"two is a second run of renamed with seed 1"):
        Comparison([one, renamed, renamed])
    with pytest.raises(ValueError, match=r"one is the same training as .*one, with the same seed 0"):
        group_runs([one, one])


def test_recipes_of_one_name_and_other_contents_are_two_agents(make: Make) -> None:
    runs = [
        make("one"),
        make("two", text=RECIPE.replace("1e-3", "1e-2")),
        make("fixed", contexts=3),
        make("more", family=hyperrl.load_family("ode").with_irrelevant(2)),
    ]
    labels = [
        "mine (learning_rate=0.001, contexts=None)",
        "mine (learning_rate=0.01, contexts=None)",
        "mine (learning_rate=0.001, contexts=3)",
    ]
    assert Comparison(runs).agents == [*labels, "mine +2 irrelevant"]
    assert list(group_runs(runs[:3])) == labels
    matched = 'match_parameters = "hyper-ppo"\n' + RECIPE
    other = make("matched", text=matched)
    assert other.training.recipe["match_parameters"]["policy"] == "hyper"  # what it says, not what it is called
    long = make("long", text=RECIPE.replace("[4]", "[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]"))
    assert Comparison([runs[0], long]).agents[1] == f"mine ({long.training.agent_digest[:6]})"


def test_mismatches_are_refused_with_the_difference_named(make: Make, tmp_path: Path) -> None:
    one, longer = make("one"), make("longer", 1, steps=20)
    with pytest.raises(ValueError, match=r"differ in steps: .*longer has 20, .*one has 1$"):
        Comparison([one, longer])
    with pytest.raises(ValueError, match=r"equal length: .*longer has steps=20, .*one has steps=1$"):
        group_runs([one, longer])
    changed = tmp_path / "ode.toml"
    changed.write_text((folder("envs") / "ode.toml").read_text().replace("default = 1.0", "default = 2.0"))
    other = make("other", 1, family=changed)
    with pytest.raises(ValueError, match=r"differ in definition of the family: .*other has"):
        Comparison([one, other])
    with pytest.raises(ValueError, match=r"of one family: .*other is of another than .*one"):
        group_runs([one, other])


def test_the_evaluation_of_another_run_is_refused(make: Make) -> None:
    one, other = make("one"), make("two", 1)
    one.evaluation_path.write_bytes(other.evaluation_path.read_bytes())
    with pytest.raises(ValueError, match=r"one/evaluation.json is the evaluation of another model than .*model.zip"):
        Comparison([one, other])
    one.evaluation_path.unlink()
    with pytest.raises(ValueError, match="has not been evaluated"):
        Comparison([one, other])


def test_a_report_of_an_agent_without_a_run_folder_joins(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make("one")
    split = Report.load(run.evaluation_path).splits["train"]
    mine = {  # as docs/evaluation.md says
        "schema": "evaluation-1",
        "family": "ode",
        "agent": "theirs",
        "seed": 0,
        "splits": {"train": {"contexts": split.contexts.tolist(), "returns": (split.returns + 1).tolist()}},
    }
    (tmp_path / "theirs.json").write_text(json.dumps(mine))
    report = Report.load(tmp_path / "theirs.json")
    second = replace(report, seed=1)
    for sources in ([run, report, second], [report, run, second]):
        comparison = Comparison(sources)
        assert set(comparison.agents) == {"mine", "theirs"}
        assert comparison.returns("theirs", "train").shape == (2, 20, 2)
        assert comparison.is_scored
    assert Comparison([report]).steps is None
    rows = {row.agent: row for row in comparison.rows}
    assert rows["theirs"].mean == pytest.approx(rows["mine"].mean + 1)
    assert rows["theirs"].parameters is None
    write_report(comparison, tmp_path / "report")
    assert "| `theirs` | - | 2 |" in (tmp_path / "report" / "report.md").read_text()
    assert read(ComparisonRecord, tmp_path / "report" / "comparison.json") == comparison.record
    monkeypatch.setattr("sys.argv", ["hyperrl", "compare", str(run.path), str(tmp_path / "theirs.json")])
    main()
    assert "theirs" in capsys.readouterr().out

    other = replace(report, splits={"train": Split(split.contexts + 1, split.returns)})
    with pytest.raises(ValueError, match="contexts of train: the report of theirs, seed 0 has other ones than"):
        Comparison([run, other])
    fewer = replace(report, splits={"train": Split(split.contexts, split.returns[:, :1])})
    with pytest.raises(ValueError, match=r"has \(20, 1\), .*one has \(20, 2\)"):
        Comparison([run, fewer])
    with pytest.raises(ValueError, match="must name its agent and the seed of its training, got agent=None"):
        Comparison([run, replace(report, agent=None)])
    with pytest.raises(ValueError, match=r"second run of theirs with seed 0, beside the report of theirs, seed 0"):
        Comparison([report, report])
    namesake = replace(report, agent="mine")
    assert Comparison([run, namesake]).agents == ["mine", "mine (report)"]
    told = replace(report, agent="x", training=run.training, seed=3)  # as `hyperrl evaluate --out` writes it
    assert Comparison([run, told]).returns("mine", "train").shape == (2, 20, 2)


def reports(family: str, agent: str, seeds: int, shift: float, n: int = 20) -> list[Report]:
    """Reports whose scores are uniform around a shift, in contexts that have a reference."""
    loaded = hyperrl.load_family(family)
    reference = find_reference(loaded)
    assert reference is not None
    contexts = reference.contexts[:n]
    random, best = reference.at(contexts)
    made = []
    for seed in range(seeds):
        scores = shift + np.random.default_rng(seed).uniform(-0.2, 0.2, (len(contexts), 3))
        split = Split(contexts, random[:, None] + scores * (best - random)[:, None])
        made.append(Report(family, {"train": split}, agent=agent, seed=seed))
    return made


def test_several_families_are_pooled_by_score_and_count_alike(tmp_path: Path) -> None:
    sources = [
        *reports("ode", "good", 3, 0.9),
        *reports("ode", "bad", 3, 0.2),
        *reports("pendulum", "good", 5, 0.7, n=7),
        *reports("pendulum", "bad", 2, 0.3, n=7),
        *reports("pendulum", "new", 2, 0.3, n=7),
    ]
    comparisons = compare_by_family(sources)
    assert [c.family.name for c in comparisons] == ["ode", "pendulum"]
    pooled = PooledComparison(comparisons)
    assert pooled.agents == ["good", "bad"]
    assert pooled.left_out == ["new"]
    rows = {row.agent: row for row in pooled.rows}
    assert rows["good"].seeds == (3, 5)
    scores = [c.scores("good", "train") for c in comparisons]
    assert rows["good"].score == pooled_iqm(scores)
    assert_allclose(rows["good"].score.value, 0.8, atol=0.03)  # pooled score by score it would be 0.85
    assert_allclose(rows["good"].gap.value, 0.2, atol=0.03)
    (improvement,) = pooled.improvements
    assert improvement.probability == pooled_improvement(scores, [c.scores("bad", "train") for c in comparisons])
    assert improvement.probability.value > 0.95
    profile = pooled.profiles([0.0, 0.8, 2.0])["train"]["good"]
    assert profile.shape == (3, 3)
    assert_allclose(profile[0], [1, 0.5, 0], atol=0.05)
    write_report(pooled, tmp_path / "report")
    assert read(PooledRecord, tmp_path / "report" / "comparison.json") == pooled.record
    assert read(ComparisonRecord, tmp_path / "report" / "ode" / "comparison.json") == comparisons[0].record
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Left out, since not on every family: `new`" in text
    for picture in ("splits.png", "profiles.png", "pendulum/splits.png"):
        assert (tmp_path / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_pooled_is_said(tmp_path: Path) -> None:
    ode, pendulum = reports("ode", "a", 2, 0.5), reports("pendulum", "b", 2, 0.5)
    with pytest.raises(ValueError, match=r"same split of every family, got ode: a on train; pendulum: b on train"):
        PooledComparison(compare_by_family([*ode, *pendulum]))
    split = Split(np.array([[9.8, 1.0, 0.1, 0.123, 5.0]]), np.ones((1, 2)))
    unscored = Report("cartpole", {"train": split}, agent="a", seed=0)
    with pytest.raises(ValueError, match=r"cartpole has no reference in its contexts of train: see `hyperrl reference"):
        PooledComparison(compare_by_family([*ode, unscored]))
    with pytest.raises(ValueError, match="at least two families, got 1"):
        PooledComparison(compare_by_family(ode))
    with pytest.raises(ValueError, match=r"r.json is the reference of one family, and there are runs of ode, pendulum"):
        compare_by_family([*ode, *pendulum], "r.json")


def test_the_command_line_pools_families_and_prints_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for family in ("ode", "pendulum"):
        for agent, shift in (("good", 0.9), ("bad", 0.2)):
            for report in reports(family, agent, 2, shift):
                files.append(str(tmp_path / f"{family}-{agent}-{report.seed}.json"))
                report.save(files[-1])
    monkeypatch.setattr("sys.argv", ["hyperrl", "compare", *files, "--out", str(tmp_path / "out")])
    main()
    text = capsys.readouterr().out
    assert "ode, pendulum together: score" in text
    assert "good better than bad, train: 1.000 [" in text
    assert (tmp_path / "out" / "ode" / "report.md").is_file()
    alone = [file for file in files if "ode-bad" not in file and "pendulum-good" not in file]
    monkeypatch.setattr("sys.argv", ["hyperrl", "compare", *alone])
    main()
    assert "Nothing over all families" in capsys.readouterr().out
