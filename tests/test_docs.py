"""What the pages say runs: their Python and their commands, in order, with few steps."""

import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

import hyperrl.adaptation.dynamics
import hyperrl.policies
from hyperrl.adaptation.dynamics import Dynamics, learn_dynamics
from hyperrl.cli.main import main
from hyperrl.policies import POLICY_OF

ROOT = Path(__file__).parents[1]
OUTSIDE = ("sb3.md",)  # tests/test_sb3_page.py
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in OUTSIDE)]
BLOCK = re.compile(r"^```(python|toml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS_RUN = ("README.md", "export.md")  # those of other pages take long, or write into envs/
SMALLER = {
    "adapt": ("--contexts", "1", "--episodes", "1", "--seeds", "1", "--method", "zero-shot", "identify"),
    "evaluate": ("--contexts", "3", "--episodes", "1", "--plane", "3", "--sensitivity", "0"),
    "record": ("--contexts", "1"),
    "tune": ("--trials", "1", "--steps", "1"),
}
SB3 = (ROOT / "docs" / "sb3.md").read_text(encoding="utf-8")


@pytest.fixture
def as_before(tmp_path: Path) -> Iterator[None]:
    """Forget the modules that a page writes, and the environments that it registers."""
    modules, registered = set(sys.modules), dict(gym.registry)
    yield
    for name in set(sys.modules) - modules:
        if Path(str(getattr(sys.modules[name], "__file__", None))).parent == tmp_path:
            del sys.modules[name]
    gym.registry.clear()
    gym.registry.update(registered)


@pytest.mark.usefixtures("as_before", "little")
@pytest.mark.filterwarnings("ignore:rich is experimental")  # the progress bar
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as for a script in this folder
    for algorithm in (OnPolicyAlgorithm, OffPolicyAlgorithm):
        monkeypatch.setattr(algorithm, "learn", _briefly(algorithm.learn))
    monkeypatch.setattr(hyperrl.adaptation.dynamics, "learn_dynamics", _few_transitions)
    monkeypatch.setattr(hyperrl.adaptation.dynamics, "HELD_OUT", 2)
    monkeypatch.setattr(hyperrl, "evaluate", partial(hyperrl.evaluate, contexts=3, episodes=2))
    monkeypatch.setattr(hyperrl, "infer_context", partial(hyperrl.infer_context, steps=1))
    monkeypatch.setattr(hyperrl, "adapt", partial(hyperrl.adapt, evaluations=2))
    namespace: dict[str, Any] = {"__name__": page.stem}
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        language, code = block.groups()
        if name := re.match(r"# (\w+\.(py|toml))\n", code):
            Path(name[1]).write_text(code, encoding="utf-8")
        if name and name[2] == "py":
            importlib.import_module(name[1].removesuffix(".py"))
        elif language == "python":
            line = text[: block.start(2)].count("\n")  # so that a traceback names the page's own line
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
        elif language == "sh" and page.name in COMMANDS_RUN:
            for command in re.findall(r"^hyperrl .*$", code, re.MULTILINE):
                _run(command, monkeypatch)


def test_each_policy_is_in_the_table_of_algorithms() -> None:
    rows = dict(re.findall(r"^\| ([\w, -]+) \| `(Hyper\w+)` \|$", SB3, re.MULTILINE))
    said = {name.replace("-", ""): policy for names, policy in rows.items() for name in re.split(r", ", names)}
    assert all(getattr(hyperrl.policies, policy) for policy in said.values())
    assert said == POLICY_OF


def test_the_evidence_exists_and_takes_the_algorithms() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(test_\w+)\.(test_\w+)` \|$", SB3, re.MULTILINE)
    table = SB3[SB3.index("## Evidence") :]
    assert len(rows) == table.count("\n| ") - 2  # all of it was understood
    for _, algorithms, module, name in rows:
        (file,) = (ROOT / "tests").rglob(f"{module}.py")
        test = getattr(importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)), name)
        for algorithm in algorithms.split(", "):
            assert _takes(test, algorithm), f"{module}.{name} does not take {algorithm}"
    for algorithm in POLICY_OF:
        assert sum(algorithm in algorithms.split(", ") for _, algorithms, *_ in rows) >= 5


def test_each_promise_of_reliability_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text[text.index("| promise | test |") :]
    rows = re.findall(r"^\| ([^|]+) \| `(test_\w+)\.(test_\w+)` \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n| ") - 1 > 20  # all of it was understood, but for the line of dashes
    for promise, module, name in rows:
        (file,) = (ROOT / "tests").rglob(f"{module}.py")
        assert re.search(rf"^def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE), promise


def _few_transitions(family: Any, model: Any, transitions: int) -> Dynamics:
    """Learn dynamics from few transitions."""
    return learn_dynamics(family, model, min(transitions, 6_400), steps=20)


def _briefly(learn: Any) -> Any:
    """Let an algorithm learn for at most 300 steps, or one rollout."""

    def brief(self: Any, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        return learn(self, min(total_timesteps, 300), *args, **kwargs)

    return brief


def _run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line of a shell's, in small."""
    words = shlex.split(command, comments=True)
    arguments = [path for word in words for path in (sorted(map(str, Path().glob(word))) or [word])]
    monkeypatch.setattr("sys.argv", [*arguments, *SMALLER.get(arguments[1], ())])
    try:
        main()
    except SystemExit as end:
        assert not end.code, command  # noqa: PT017


def _takes(test: Any, algorithm: str) -> bool:
    """Say whether a test is parametrised by an algorithm, by its name or class, or names it in its code."""

    def mentions(value: Any) -> bool:
        if isinstance(value, tuple | list):
            return any(map(mentions, value))
        return algorithm in (value, getattr(value, "__name__", None))

    marks = [mark.args[1] for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return any(map(mentions, map(list, marks))) or re.search(rf"\b{algorithm}\b", inspect.getsource(test)) is not None
