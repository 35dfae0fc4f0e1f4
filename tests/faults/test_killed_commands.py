"""Every command that writes is killed at random moments, and the same command goes on or begins again.

``tests/training/test_kills.py`` kills trainings at each of their operations on files.
"""

from pathlib import Path

import pytest
from outside import python

TESTS = Path(__file__).parents[1]
PROGRAM = """
import contextlib, io, os, random, shutil, signal, sys, time
from pathlib import Path
import torch, torch._dynamo, torch.utils.tensorboard  # before the forks, each of which would import them
torch.set_num_threads(1)
import hyperrl
from hyperrl.cli.main import main
from killed import in_child

folder, kills, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
FIXTURES = Path("fixtures").resolve()
template, work = folder / "template", folder / "work"
template.mkdir(parents=True)
shutil.copytree(FIXTURES / "run", template / "run")
shutil.copytree(FIXTURES / "run", template / "fresh")
(template / "fresh" / "evaluation.json").unlink()
shutil.copy(FIXTURES / "run" / "agent.toml", template / "small.toml")
(template / "grid.toml").write_text(
    'families = ["pendulum"]\\nagents = ["small.toml"]\\nseeds = [0, 1]\\nsteps = 128\\n'
    'evaluate = {contexts = 2, episodes = 1}\\n'
)
CPU, QUIET = ("--device", "cpu"), "--no-progress"
SMALL = ("--contexts", "1", "--episodes", "1")
COMMANDS = {  # the command, what it writes
    "train": (("train", "pendulum", "small.toml", "--out", "x", "--steps", "256", "--resume", *CPU, QUIET), "x"),
    "evaluate": (("evaluate", "fresh", *SMALL, "--plane", "3", *CPU, QUIET), "fresh/evaluation.json"),
    "compare": (("compare", "run", "--out", "report"), "report"),
    "adapt": (
        ("adapt", "run", *SMALL, "--seeds", "1", "--evaluations", "1", "--method", "zero-shot", "--out", "adapted",
         QUIET),
        "adapted",
    ),
    "export": (
        ("export", "run", "--context", "length=0.7", "--format", "safetensors", "--out", "p.safetensors"),
        "p.safetensors",
    ),
    "record": (("record", "run", "--contexts", "1", "--out", "film.gif", QUIET), "film.gif"),
    "tune": (
        ("tune", "pendulum", "small.toml", "--trials", "2", "--steps", "128", "--out", "search", "--resume", *CPU,
         QUIET),
        "search/small-tuned.toml",
    ),
    "reference": (
        ("reference", "pendulum", "--agent", "small.toml", "--steps", "128", "--splits", "train", *SMALL, "--jobs", "1",
         "--work", "specialists", "--out", "reference.json", QUIET),
        "reference.json",
    ),
    "sweep": (("sweep", "grid.toml", "--out", "cells", "--jobs", "2", QUIET), "cells"),
}


def command(arguments):
    os.setpgid(0, 0)
    os.chdir(work)
    sys.argv = ["hyperrl", *arguments]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            print(said.getvalue(), file=sys.__stderr__)
            raise RuntimeError(arguments) from end


def fresh():
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work)


def kill_after(arguments, seconds):
    child = os.fork()
    if not child:
        try:
            command(arguments)
        finally:
            os._exit(0)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(600):  # the processes that it started end by themselves
        try:
            os.killpg(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise RuntimeError(f"processes of {arguments} live on")


rng = random.Random(0)
died = 0
for name in names:
    arguments, output = COMMANDS[name]
    fresh()
    begun = time.monotonic()
    assert in_child(lambda: command(arguments)) == 0, name
    whole = time.monotonic() - begun
    files = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if "tfevents" not in p.name)
    for _ in range(kills):
        fresh()
        kill_after(arguments, rng.uniform(0, 1.1 * whole))
        if (work / output).exists() and name not in ("tune", "sweep"):
            continue  # it had ended, but for what it says
        died += 1
        left = sorted(p.relative_to(work).as_posix() for p in work.rglob("*"))
        assert in_child(lambda: command(arguments)) == 0, (name, left)
        after = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if "tfevents" not in p.name)
        extra = {path for path in set(after) ^ set(files) if not (name == "tune" and "trial-" in path)}
        assert not extra, (name, left, extra)
print("died", died)
"""


def run(tmp_path: Path, kills: int, *commands: str) -> int:
    printed = python(TESTS, "-c", PROGRAM, tmp_path / "folder", kills, *commands)
    return int(printed.rpartition("died ")[2].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["train", "evaluate", "compare", "adapt", "export", "record", "tune", "reference", "sweep"]
)
def test_a_command_killed_at_random_moments_is_repeated(command: str, tmp_path: Path) -> None:
    assert run(tmp_path, 10, command) > 2


def test_some_commands_killed_once_are_repeated(tmp_path: Path) -> None:
    run(tmp_path, 1, "train", "evaluate", "export")
