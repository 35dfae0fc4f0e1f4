"""Users' own environments, in projects of their own: each test runs in a folder outside the checkout."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOM = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Room(gym.Env):
    """Keep a room at 20 °C while it is 0 °C outside."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(-50.0, 100.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    power, loss = 6.0, 0.1

    def __init__(self, outside=0.0, render_mode=None):
        self.outside = outside
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.temperature = self.np_random.uniform(0, 30)
        return self.observe(), {}

    def step(self, action):
        heat = self.power * (action[0] + 1) / 2
        self.temperature += heat - self.loss * (self.temperature - self.outside)
        return self.observe(), -abs(self.temperature - 20) / 10, False, False, {}

    def observe(self):
        return np.array([self.temperature], dtype=np.float32)

    def render(self):
        return np.full((32, 32, 3), int(np.clip(self.temperature * 5, 0, 255)), dtype=np.uint8)


gym.register("Room-v0", entry_point=Room, max_episode_steps=20)
'''

DEFINITION = """
id = "my/Room-v0"
base = "room:Room-v0"

[features.power]
unit = "K/step"
default = 6.0
train = [4.0, 8.0]
bounds = [3.0, 10.0]

[features.loss]
unit = "1/step"
default = 0.1
train = [0.05, 0.15]
bounds = [0.02, 0.2]

[attributes]
power = "power"
loss = "loss"
"""

PYTHON = """
import room
from gymnasium.wrappers import TimeLimit
from hyperrl import Family
from hyperrl.contexts import ContextSpace, Feature

power = Feature("power", "K/step", 6.0, train=((4.0, 8.0),), bounds=((3.0, 10.0),))
loss = Feature("loss", "1/step", 0.1, train=((0.05, 0.15),), bounds=((0.02, 0.2),))


def make(**kwargs):
    return room.Room(**kwargs)


def apply(env, context):
    env.power, env.loss = context["power"], context["loss"]


ROOM = Family(make, ContextSpace((power, loss)), apply, name="python_room", max_episode_steps=20)
"""

AGENT = """
algorithm = "PPO"
policy = "hyper"
n_envs = 2
[hyperparameters]
n_steps = 16
batch_size = 32
n_epochs = 4
learning_rate = 5e-3
[policy_kwargs]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder."""
    for name, text in (("room.py", ROOM), ("rooms.py", PYTHON), ("room.toml", DEFINITION), ("quick.toml", AGENT)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, fails: bool = False, **environment: str) -> str:
    """Run Python in a folder; ``-P`` keeps the folder off its path, as a console script does."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HYPERRL_PATH")}
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env=inherited | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert not fails or "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def hyperrl(folder: Path, *arguments: str, fails: bool = False, **environment: str) -> str:
    return run(folder, "-m", "hyperrl", *arguments, fails=fails, **environment)


def script(folder: Path, text: str, **environment: str) -> str:
    """Run a script of the user's; its folder is on its path."""
    (folder / "script.py").write_text("import sys; sys.path.insert(0, '')\n" + textwrap.dedent(text), encoding="utf-8")
    return run(folder, "script.py", **environment)


def test_a_base_that_must_be_imported_first(project: Path) -> None:
    hyperrl(project, "train", "room.toml", "quick.toml", "--steps", "32", "--device", "cpu", "--no-progress")
    report = hyperrl(project, "evaluate", "runs/room-quick-0", "--contexts", "2", "--episodes", "2", "--plane", "0")
    assert "extrapolation" in report
    bare = DEFINITION.replace("room:Room-v0", "Room-v0")
    (project / "bare.toml").write_text(bare, encoding="utf-8")
    hyperrl(project, "train", "bare.toml", "quick.toml", "--steps", "32", "--import", "room", "--no-progress")
    message = hyperrl(project, "train", "bare.toml", "quick.toml", fails=True)
    assert "bare.toml: unknown base 'Room-v0': no such Gymnasium id" in message


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("room:Rooom-v0", "unknown base 'room:Rooom-v0': no such Gymnasium id. Did you mean 'Room-v0'?"),
        ("roomm:Room-v0", "base 'roomm:Room-v0': there is no module 'roomm' that Python can import"),
        ("CartPol-v1", "unknown base 'CartPol-v1': no such Gymnasium id. Did you mean 'CartPole-v1'?"),
        ("CartPole-v9", "unknown base 'CartPole-v9': no such Gymnasium id. Did you mean 'CartPole-v"),
        ("Cart/Pole/v1", "unknown base 'Cart/Pole/v1': no such Gymnasium id."),
    ],
)
def test_a_misspelt_base_is_one_sentence(project: Path, base: str, message: str) -> None:
    (project / "room.toml").write_text(DEFINITION.replace("room:Room-v0", base), encoding="utf-8")
    said = hyperrl(project, "train", "room.toml", "quick.toml", fails=True)
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_a_family_made_in_python_goes_everywhere(project: Path) -> None:
    program = """
        import hyperrl
        from hyperrl.experiments.comparison import Comparison
        from hyperrl.experiments.specialists import make_reference
        from hyperrl.report.films import record
        from hyperrl.training import Run
        from rooms import ROOM

        if __name__ == "__main__":
            model = hyperrl.train(ROOM, "quick.toml", steps=32, seed=0, out="runs/a", device="cpu")
            again = Run.open("runs/a", ROOM)
            assert again.family.digest == ROOM.digest
            report = hyperrl.evaluate(again.model("cpu"), ROOM, contexts=2, episodes=2, plane=2)
            assert report.splits["train"].returns.shape == (2, 2)
            report.save(again.evaluation_path)
            hyperrl.train("rooms:ROOM", "quick.toml", steps=32, seed=1, out="runs/b", device="cpu")
            found = Run.open("runs/b")
            assert found.family.source == "rooms:ROOM"
            hyperrl.evaluate(found.model("cpu"), found.family, contexts=2, episodes=2, plane=2).save(
                found.evaluation_path
            )
            assert {row.seeds for row in Comparison([again, found]).rows} == {2}
            curve = hyperrl.adapt(model, ROOM.make({"power": 9.0}), method="finetune", episodes=2, evaluations=2)
            record(model, ROOM, ROOM.context_space.sample("train", 2, 0), "film.gif", 0)
            make_reference(ROOM, "work", "quick.toml", steps=2_000, contexts=1, episodes=20, splits=("train",))
            try:
                Run.open("runs/a").family
            except ValueError as error:
                print(error)
    """
    said = script(project, program, MPLBACKEND="agg")
    assert "the family 'python_room' of runs/a was made in Python" in said
    assert "Run.open(path, family)" in said
    assert (project / "film.gif").is_file()


def test_a_family_made_in_python_on_the_command_line(project: Path) -> None:
    hyperrl(project, "train", "rooms:ROOM", "quick.toml", "--steps", "32", "--no-progress")
    hyperrl(project, "evaluate", "runs/python_room-quick-0", "--contexts", "2", "--episodes", "2", "--no-progress")
    text = (project / "rooms.py").read_text(encoding="utf-8").replace("(0.02, 0.2)", "(0.02, 0.3)")
    (project / "rooms.py").write_text(text, encoding="utf-8")
    said = hyperrl(project, "record", "runs/python_room-quick-0", "--out", "film.gif", fails=True)
    assert "runs/python_room-quick-0 was trained on another family 'python_room'" in said
    said = hyperrl(project, "train", "rooms:ROM", "quick.toml", fails=True)
    assert "module 'rooms' has no 'ROM'. Did you mean 'ROOM'?" in said
