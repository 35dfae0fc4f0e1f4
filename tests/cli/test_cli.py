import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from outside import ROOT

from hyperrl import __version__, load_family
from hyperrl.cli import evaluate
from hyperrl.contexts import SPLITS
from hyperrl.evaluation.report import Report, Split
from hyperrl.evaluation.statistics import Estimate
from hyperrl.export.formats import load
from hyperrl.inference import InferringAgent
from hyperrl.training import Run
from hyperrl.utils.definitions import names

COMMANDS = ("train", "tune", "evaluate", "reference", "compare", "adapt", "infer", "record", "export", "list")
Command = Callable[..., str]
QUICK = """
algorithm = "PPO"
policy = "{policy}"
n_envs = 4
normalize_reward = true
[hyperparameters]
n_steps = 64
batch_size = 64
[policy_kwargs]
"""


def test_help_explains_every_command(hyperrl: Command) -> None:
    text = hyperrl("--help")
    assert all(command in text for command in COMMANDS)
    for command in COMMANDS:
        text = hyperrl(command, "--help")
        options = [line.split()[1] for line in text.splitlines() if line.startswith("│ --")]
        assert text.count("default:") + text.count("Default:") >= len(options)


def test_version(hyperrl: Command) -> None:
    assert hyperrl("--version") == f"{__version__}\n"


def test_list_names_everything(hyperrl: Command) -> None:
    text = hyperrl("list")
    for name in (*names("envs"), *names("agents"), "torque_gain", "m/s²"):
        assert name in text


def test_what_needs_no_agent_imports_no_torch() -> None:
    program = """
import sys
from hyperrl.cli.main import main
sys.argv = ["hyperrl", "list"]
main()
heavy = {"torch", "stable_baselines3", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = os.environ | dict(PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=environment)


def test_train_evaluate_compare(hyperrl: Command, tmp_path: Path) -> None:
    for name, policy in (("hyper-ppo", "hyper"), ("unaware-ppo", "unaware")):
        Path(f"{name}.toml").write_text(QUICK.format(policy=policy))
    trainings = (("hyper-ppo", 0, 0), ("hyper-ppo", 1, 0), ("hyper-ppo", 0, 3), ("unaware-ppo", 0, 0))
    for agent, seed, irrelevant in trainings:
        arguments = ("--steps", 1, "--seed", seed, "--irrelevant", irrelevant, "--device", "cpu", "--no-progress")
        assert "Next: hyperrl evaluate" in hyperrl("train", "cartpole", f"{agent}.toml", *arguments)
        run = f"runs/cartpole-{agent}{f'-irrelevant{irrelevant}' if irrelevant else ''}-{seed}"
        options = (
            "--contexts",
            3,
            "--episodes",
            2,
            "--plane",
            3,
            "--sensitivity",
            3,
            "--noise",
            0.1,
            0.5,
            "--switch",
            20,
            "--no-progress",
        )
        text = hyperrl("evaluate", run, *options)
        assert all(
            word in text
            for word in (
                *SPLITS,
                "raw returns",
                "variance",
                "wrong context, on interpolation: noise",
                "another context every 20 steps",
                "Rank correlation of distance and returns",
            )
        )
        written = json.loads((tmp_path / run / "evaluation.json").read_text())
        assert written["training"]["seed"] == written["seed"] == seed
        assert written["training"]["irrelevant"] == irrelevant
        assert len(written["splits"]["train"]["contexts"][0]) == 5 + irrelevant
        assert "is never overwritten" in hyperrl("evaluate", run, expect=2)
    runs = sorted(str(path) for path in (tmp_path / "runs").iterdir())
    text = hyperrl("compare", *runs, "--out", tmp_path / "comparison")
    assert "hyper-ppo" in text
    assert "unaware-ppo" in text
    written = (tmp_path / "comparison" / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", written)
    assert set(pictures) == {path.name for path in (tmp_path / "comparison").glob("*.png")}
    assert {
        "splits.png",
        "profiles.png",
        "planes.png",
        "sensitivity.png",
        "perturbations.png",
        "irrelevant.png",
        "switches.png",
        "curves.png",
    } <= set(pictures)
    for picture in pictures:
        assert (tmp_path / "comparison" / picture).read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["rows"]
    assert {(row["agent"], row["split"], row["seeds"]) for row in rows} == {
        (agent, split, seeds)
        for agent, seeds in (("hyper-ppo", 2), ("hyper-ppo +3 irrelevant", 1), ("unaware-ppo", 1))
        for split in SPLITS
    }
    for row in rows:
        assert f"`{row['agent']}` | {row['parameters']:,} | {row['seeds']} | {row['split']} | " in written
        assert str(Estimate(*row["iqm"])) in written
    assert "is never overwritten" in hyperrl("compare", *runs, "--out", tmp_path / "comparison", expect=2)
    assert "is a second run of hyper-ppo with seed 0" in hyperrl("compare", runs[0], runs[0], expect=2)
    hyperrl("evaluate", runs[0], "--contexts", 2, "--plane", 0, "--out", tmp_path / "other.json", "--no-progress")
    (Path(runs[0]) / "evaluation.json").write_text((tmp_path / "other.json").read_text())
    assert f"differ in contexts: {runs[1]} has 3, {runs[0]} has 2" in hyperrl("compare", *runs, expect=2)
    (Path(runs[0]) / "evaluation.json").unlink()
    assert "has not been evaluated" in hyperrl("compare", *runs, expect=2)


def test_tune(hyperrl: Command, tmp_path: Path) -> None:
    arguments = ("tune", "pendulum", "hyper-ppo", "--trials", 1, "--steps", 1, "--device", "cpu")
    text = hyperrl(*arguments)
    assert "tune, best -" in text
    best = "runs/tune-pendulum-hyper-ppo-0/hyper-ppo-tuned.toml"
    assert f"Next: hyperrl train pendulum {best}" in text
    assert "is never overwritten" in hyperrl(*arguments, expect=2)
    hyperrl(*arguments, "--resume")
    hyperrl("train", "pendulum", best, "--steps", 1, "--device", "cpu", "--no-progress")
    assert (tmp_path / "runs" / "pendulum-hyper-ppo-tuned-0" / "model.zip").is_file()


def test_export(hyperrl: Command, tmp_path: Path) -> None:
    hyperrl("train", "pendulum", "hyper-ppo", "--steps", 1, "--device", "cpu", "--no-progress")
    run = "runs/pendulum-hyper-ppo-0"
    arguments = ("export", run, "--format", "safetensors")
    assert "Did you mean 'length'" in hyperrl(*arguments, "--context", "lenght=1", expect=2)
    assert "expected a name and its value" in hyperrl(*arguments, "--context", "length", expect=2)
    assert "give the context" in hyperrl(*arguments, expect=2)
    assert "Wrote runs/" in hyperrl(*arguments, "--context", "length=0.7", "mass=1.2")
    values = {feature["name"]: feature["value"] for feature in load(f"{run}/policy.safetensors").description["context"]}
    assert values == {"gravity": 10.0, "mass": 1.2, "length": 0.7, "torque_gain": 1.0}
    assert "is never overwritten" in hyperrl(*arguments, "--context", "length=0.7", expect=2)
    hyperrl("export", run, "--format", "pt2", "--out", tmp_path / "open.pt2")
    assert (tmp_path / "open.pt2").is_file()


def test_seeds_are_trained_side_by_side(hyperrl: Command) -> None:
    small = ("n_envs=2", "n_steps=4", "batch_size=8", "n_epochs=1", "policy.net_arch=[4]")
    arguments = ("train", "pendulum", "hyper-ppo", "--set", *small, "--steps", 1, "--seeds", 2, "--device", "cpu")
    hyperrl(*arguments, "--seed", 5)
    assert Path("runs/pendulum-hyper-ppo-5/run.json").exists()
    assert Path("runs/pendulum-hyper-ppo-6/run.json").exists()
    assert "leave out --out and --resume" in hyperrl(*arguments, "--out", "x", "--resume", expect=2)


def test_commands_play_recurrent_agents_and_show_that_they_work(
    hyperrl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyperrl("train", "double_integrator", "recurrent-ppo", "--steps", 1, "--device", "cpu", "--no-progress")
    text = hyperrl("record", "runs/double_integrator-recurrent-ppo-0", "--out", "film.gif", "--contexts", 2)
    assert re.search(r"100%.*100/100 .*step", text)
    assert "Wrote film.gif" in text
    quiet = ("--out", "other.gif", "--contexts", 2, "--no-progress")
    assert hyperrl("record", "runs/double_integrator-recurrent-ppo-0", *quiet) == "Wrote other.gif\n"
    text = hyperrl("adapt", "runs/double_integrator-recurrent-ppo-0", "--contexts", 1, "--episodes", 1, "--seeds", 1)
    assert "identify" in text
    assert "finetune" not in text
    hyperrl("train", "double_integrator", "hyper-ppo", "--steps", 1, "--device", "cpu", "--no-progress")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    assert "checking that it acts as the model does" in hyperrl(
        "export", "runs/double_integrator-hyper-ppo-0", "--format", "safetensors", "--context", "mass=0.7"
    )


def test_scores_where_there_is_a_reference(hyperrl: Command, tmp_path: Path) -> None:
    hyperrl("train", "ode", "unaware-ppo", "--steps", 1, "--device", "cpu", "--no-progress")
    small = ("--contexts", 2, "--episodes", 3, "--no-progress")
    assert "4 contexts" in hyperrl("reference", "ode", *small, "--splits", "train", "interpolation", "--out", "r.json")
    assert "is never overwritten" in hyperrl("reference", "ode", *small, "--out", "r.json", expect=2)
    quick = (*small, "--plane", 0, "--sensitivity", 0)
    text = hyperrl("evaluate", "runs/ode-unaware-ppo-0", *quick, "--reference", "r.json")
    assert "extrapolation: raw returns, 2 of 2 contexts have no reference" in text
    assert text.count("no reference") == 1


def test_adapt(hyperrl: Command, tmp_path: Path) -> None:
    for family in ("cartpole", "ode"):
        hyperrl("train", family, "hyper-ppo", "--steps", 1, "--device", "cpu", "--no-progress")
    run = "runs/cartpole-hyper-ppo-0"
    quick = ("--episodes", 1, "--seeds", 1, "--evaluations", 2, "--no-progress")
    text = hyperrl("adapt", run, "--context", "length=0.7", "--unknown", *quick)
    assert all(method in text for method in ("search", "identify", "scratch"))
    assert "zero-shot" not in text
    data = json.loads((tmp_path / run / "adaptation" / "adaptation.json").read_text())
    assert data["contexts"] == [[9.8, 1.0, 0.1, 0.7, 10.0]]
    assert data["trainings"]["hyper-ppo"][0]["steps"] == 1
    assert "is never overwritten" in hyperrl("adapt", run, *quick, expect=2)
    hyperrl("adapt", run, "--method", "finetune", "--proximal", "inf", "--contexts", 1, "--out", "new/folder", *quick)
    assert json.loads(Path("new/folder/adaptation.json").read_text())["settings"]["proximal"] == "Infinity"
    for command in (("adapt", run, *quick), ("evaluate", run), ("export", run), ("compare", run)):
        assert "cannot be written" in hyperrl(*command, "--out", f"{run}/run.json/x", expect=2)
    learning = ("--method", "finetune", "--hyperparameters", "n_steps=5", "learning_rate=1e-4", "--contexts", 1)
    text = hyperrl("adapt", "runs/ode-hyper-ppo-0", *learning, "--out", "other", *quick)
    assert "1 a specialist's" in text
    assert "[never," in text  # and not taken for markup
    wrong = ("adapt", run, "--out", "wrong", *quick)
    assert "needs the context" in hyperrl(*wrong, "--unknown", "--method", "finetune", expect=2)
    assert "of one family" in hyperrl("adapt", "runs/ode-hyper-ppo-0", *wrong[1:], expect=2)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "pendulm", "hyper-ppo"), "Did you mean 'pendulum'?"),
        (("train", "pendulum", "hyper"), "unknown agent 'hyper'"),
        (("evaluate", "nowhere"), "nowhere is no run folder"),
        (("compare", "nowhere"), "nowhere is no run folder"),
        (("export", "nowhere"), "nowhere is no run folder"),
        (("compare",), "at least one run"),
        (("adapt",), "at least one run"),
        (("trian", "pendulum", "hyper-ppo"), "train"),
    ],
)
def test_mistakes_get_one_clear_line(
    hyperrl: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    text = hyperrl(*arguments, expect=2)
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("little")
def test_a_context_is_hidden_once_it_can_be_inferred(hyperrl: Command) -> None:
    Path("hyper-ppo.toml").write_text(QUICK.format(policy="hyper"))
    hyperrl("train", "cartpole", "hyper-ppo.toml", "--steps", 1, "--device", "cpu", "--no-progress")
    run = Path("runs/cartpole-hyper-ppo-0")
    sizes = ("--contexts", 2, "--episodes", 1, "--no-progress")
    quick = ("--plane", 0, "--sensitivity", 0, "--splits", "train")
    assert f"hyperrl infer {run}" in hyperrl("evaluate", run, "--hidden", *sizes, *quick, expect=2)
    assert "Next: hyperrl evaluate" in hyperrl("infer", run, "--steps", 1, "--no-progress")
    assert "exists already" in hyperrl("infer", run, expect=2)
    hyperrl("evaluate", run, "--hidden", *sizes, *quick)
    report = json.loads((run / "evaluation-hidden.json").read_text())
    assert report["agent"] == "hyper-ppo hidden"
    assert report["training"] == json.loads((run / "run.json").read_text())["training"]
    estimator = run / "estimator.safetensors"
    agent = InferringAgent.load(estimator, Run.open(run).model("cpu"))
    agent.learning = None  # as of a file of before it was noted
    kept = estimator.rename("kept.safetensors")
    agent.save(estimator)
    hyperrl("evaluate", run, "--hidden", "--out", "older.json", *sizes, *quick)
    assert json.loads(Path("older.json").read_text())["agent"] == "hyper-ppo hidden"
    kept.replace(estimator)
    assert "leave out ['noise']" in hyperrl("evaluate", run, "--hidden", "--noise", 0.1, "--out", "x.json", expect=2)
    hyperrl("record", run, "--hidden", "--out", "film.gif", "--contexts", 1, "--no-progress")
    hyperrl("infer", run, "--context", "length=0.7", "--out", "belief.png")
    assert Path("film.gif").stat().st_size > 1000
    assert Path("belief.png").stat().st_size > 1000
    adapting = ("--contexts", 2, "--episodes", 1, "--seeds", 1, "--evaluations", 1, "--no-progress")
    text = hyperrl("adapt", run, "--method", "infer", "zero-shot", *adapting)
    assert "hyper-ppo, infer" in text
    assert (run / "adaptation" / "first-episode.png").stat().st_size > 1000
    assert "'onnx', 'pt2'" in hyperrl("export", run, "--hidden", "--format", "safetensors", expect=2)


def test_returns_that_are_all_alike_have_no_rank_correlation(capsys: pytest.CaptureFixture[str]) -> None:
    space = load_family("double_integrator").context_space
    contexts = {split: space.sample(split, 3, 0) for split in SPLITS}
    made = {split: Split(of, np.zeros((3, 1)), novelty=space.beyond(of).max(axis=1)) for split, of in contexts.items()}
    evaluate._print_report(Report("double_integrator", made, agent="x", seed=0), None, "x")
    assert "Rank correlation of distance and returns: none, all returns are alike" in capsys.readouterr().out
