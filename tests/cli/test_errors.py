"""What a user can mend is one sentence with exit status 2; what they cannot is a traceback."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Command

TINY = ("--steps", 1, "--device", "cpu", "--no-progress")
QUICK = ("--contexts", 1, "--episodes", 1, "--plane", 0, "--sensitivity", 0, "--no-progress")
RECIPE = """
algorithm = "PPO"
policy = "hyper"
n_envs = 2
normalize_reward = true
[hyperparameters]
n_steps = 8
batch_size = 16
n_epochs = 1
[policy_kwargs]
"""


def one_sentence(text: str) -> str:
    assert text.startswith("error: "), text
    assert "Traceback" not in text
    return " ".join(text.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import hyperrl as package

    folder = tmp_path_factory.mktemp("trained")
    (folder / "quick.toml").write_text(RECIPE)
    package.train("pendulum", folder / "quick.toml", steps=1, out=folder / "run", device="cpu")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


PICKLES = ("model.zip", "vecnormalize.pkl")


@pytest.mark.parametrize("file", ["model.safetensors", "run.json", "family.toml", "agent.toml", *PICKLES])
@pytest.mark.parametrize("damage", ["empty", "cut", "binary"])
def test_damaged_files_of_a_run_are_named(hyperrl: Command, run: Path, file: str, damage: str) -> None:
    content = (run / file).read_bytes()
    (run / file).write_bytes(
        {"empty": b"", "cut": content[: len(content) // 2], "binary": b"\xff\xfe\x00" * 50}[damage]
    )
    command = "evaluate" if file != "agent.toml" else "export"
    arguments = QUICK if command == "evaluate" else ("--context", "length=0.7", "--format", "safetensors")
    trust = ("--trust",) if file in PICKLES else ()
    assert file in one_sentence(hyperrl(command, run, *arguments, *trust, expect=2))


def test_full_disks_and_folders_in_the_way(hyperrl: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    text = one_sentence(hyperrl("evaluate", run, *QUICK, "--out", "file/evaluation.json", expect=2))
    assert "file" in text

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    text = one_sentence(hyperrl("evaluate", run, *QUICK, "--out", "evaluation.json", expect=2))
    assert text == "error: evaluation.json: No space left on device"
    text = one_sentence(hyperrl("train", "pendulum", "hyper-ppo", *TINY, "--out", "new", expect=2))
    assert "No space left on device" in text


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_there_are(hyperrl: Command, threads: int) -> None:
    text = one_sentence(hyperrl("train", "pendulum", "hyper-ppo", *TINY, "--threads", threads, expect=2))
    assert f"threads, the cores of this machine, got --threads {threads}" in text


def test_a_base_that_is_misspelt(hyperrl: Command) -> None:
    family = (
        Path(hyperrl_file("pendulum"))
        .read_text()
        .replace("Pendulum-v1", "Pendulm-v1")
        .replace('physics = "pendulum"', "")
    )
    Path("mine.toml").write_text(family)
    assert "Did you mean" in one_sentence(hyperrl("train", "mine.toml", "hyper-ppo", *TINY, expect=2))


def hyperrl_file(name: str) -> Path:
    from hyperrl.utils.definitions import folder

    return folder("envs") / f"{name}.toml"


def test_square_brackets_are_printed(hyperrl: Command, run: Path) -> None:
    Path("wrong.toml").write_text(RECIPE.replace("[policy_kwargs]", "[policy_kwargs]\n[policy]"))
    text = hyperrl("train", "pendulum", "wrong.toml", *TINY, expect=2)
    assert "wrong.toml" in text
    text = hyperrl("export", run, "--context", "[red]=1", expect=2)
    assert "'[red]'" in one_sentence(text)
    text = hyperrl(
        "export", run, "--context", "length=0.7", "--format", "safetensors", "--out", "[bold]p[b].safetensors"
    )
    assert "Wrote [bold]p[b].safetensors" in text
    text = hyperrl("evaluate", run, *QUICK, "--out", "a[link].json")
    assert "pendulum" in text


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (("adapt", "{run}", "--method", "search"), "cma", "adapt"),
        (("export", "{run}", "--context", "length=0.7"), "onnxruntime", "export"),
        (("tune", "pendulum", "hyper-ppo"), "optuna", "tune"),
    ],
)
def test_a_missing_library_is_found_before_any_work(
    hyperrl: Command, run: Path, monkeypatch: pytest.MonkeyPatch, command: Any, package: str, extra: str
) -> None:
    (run / "model.safetensors").unlink()  # nothing can have been loaded
    found = hyperrl_find_spec()
    monkeypatch.setattr(
        "hyperrl.utils.extras.find_spec", lambda name: None if name == package else found(name), raising=True
    )
    text = one_sentence(hyperrl(*(str(word).format(run=run) for word in command), expect=2))
    assert f"needs {package}: pip install {package}, or in hyperrl's checkout pip install '.[{extra}]'" in text


def hyperrl_find_spec() -> Any:
    from importlib.util import find_spec

    return find_spec


@pytest.mark.parametrize("bug", [KeyError("x"), TypeError("unsupported operand"), None])
def test_defects_are_tracebacks(hyperrl: Command, monkeypatch: pytest.MonkeyPatch, bug: Exception | None) -> None:
    def broken(kind: str) -> list[str]:
        if bug is None:
            np.linalg.inv(np.zeros((2, 3)))
            np.zeros(3).reshape(2)
        else:
            raise bug
        return []

    monkeypatch.setattr("hyperrl.utils.definitions.catalogue", broken)
    with pytest.raises(type(bug) if bug else np.linalg.LinAlgError):
        hyperrl("list")


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = f"{sys.executable} -m hyperrl list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "Traceback" not in done.stderr


def test_the_help_reads_well(hyperrl: Command) -> None:
    from hyperrl.cli.main import COMMANDS

    listed = hyperrl("--help")
    for command in COMMANDS:
        assert listed.count(f"• {command} ") == 1
        text = hyperrl(command, "--help")
        for ugly in ("{None}", "STR", "INT", "FLOAT", "(default: )", "default: None", "[["):
            assert ugly not in text
