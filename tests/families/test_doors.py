"""Users' own environments, in projects of their own: each test runs in a folder outside the checkout."""

import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from outside import ROOT, hyperrl, python

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
        return self.observe(), -float(abs(self.temperature - 20)) / 10, False, False, {}

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


def script(folder: Path, text: str, **environment: Any) -> str:
    """Run a script of the user's."""
    (folder / "script.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return python(folder, "script.py", **environment)


def test_a_base_that_must_be_imported_first(project: Path) -> None:
    hyperrl(project, "train", "room.toml", "quick.toml", "--steps", "32", "--device", "cpu", "--no-progress")
    report = hyperrl(project, "evaluate", "runs/room-quick-0", "--contexts", "2", "--episodes", "2", "--plane", "0")
    assert "extrapolation" in report
    bare = DEFINITION.replace("room:Room-v0", "Room-v0")
    (project / "bare.toml").write_text(bare, encoding="utf-8")
    hyperrl(project, "train", "bare.toml", "quick.toml", "--steps", "32", "--import", "room", "--no-progress")
    message = hyperrl(project, "train", "bare.toml", "quick.toml", expect=2)
    assert "bare.toml: unknown base 'Room-v0': no such Gymnasium id" in message


MISSPELT = {
    "room:Rooom-v0": "unknown base 'room:Rooom-v0': no such Gymnasium id. Did you mean 'Room-v0'?",
    "roomm:Room-v0": "base 'roomm:Room-v0': there is no module 'roomm' that Python can import",
    "CartPol-v1": "unknown base 'CartPol-v1': no such Gymnasium id. Did you mean 'CartPole-v1'?",
    "CartPole-v9": "unknown base 'CartPole-v9': no such Gymnasium id. Did you mean 'CartPole-v",
    "Cart/Pole/v1": "unknown base 'Cart/Pole/v1': no such Gymnasium id.",
}


def test_a_misspelt_base_is_one_sentence(project: Path) -> None:
    for i, base in enumerate(MISSPELT):
        (project / f"{i}.toml").write_text(DEFINITION.replace("room:Room-v0", base), encoding="utf-8")
    program = """
        import hyperrl
        for i in range(5):
            try:
                hyperrl.load_family(f"{i}.toml")
            except ValueError as error:
                print(error)
    """
    said = script(project, program).splitlines()
    for line, (i, message) in zip(said, enumerate(MISSPELT.values()), strict=True):
        assert line.startswith(f"{i}.toml: {message}")
    assert hyperrl(project, "train", "0.toml", "quick.toml", expect=2).splitlines() == [f"error: {said[0]}"]


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


@pytest.mark.slow
def test_a_family_made_in_python_on_the_command_line(project: Path) -> None:
    hyperrl(project, "train", "rooms:ROOM", "quick.toml", "--steps", "32", "--no-progress")
    hyperrl(project, "evaluate", "runs/python_room-quick-0", "--contexts", "2", "--episodes", "2", "--no-progress")
    text = (project / "rooms.py").read_text(encoding="utf-8").replace("(0.02, 0.2)", "(0.02, 0.3)")
    (project / "rooms.py").write_text(text, encoding="utf-8")
    said = hyperrl(project, "record", "runs/python_room-quick-0", "--out", "film.gif", expect=2)
    assert "runs/python_room-quick-0 was trained on another family 'python_room'" in said
    said = hyperrl(project, "train", "rooms:ROM", "quick.toml", expect=2)
    assert "module 'rooms' has no 'ROM'. Did you mean 'ROOM'?" in said


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of an installed package that offers definitions, one family made in Python among them."""
    site = tmp_path / "site"
    definitions = site / "plants" / "definitions"
    definitions.mkdir(parents=True)
    (site / "plants" / "__init__.py").write_text("raise RuntimeError('not to be imported for its folder')")
    (definitions / "warm_room.toml").write_text(DEFINITION.replace("my/Room-v0", "plants/WarmRoom-v0"), "utf-8")
    (definitions / "plant-ppo.toml").write_text(AGENT, encoding="utf-8")
    for name, text in (("room.py", ROOM), ("rooms.py", PYTHON)):
        (site / name).write_text(text, encoding="utf-8")
    info = site / "plants-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plants\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hyperrl.families]\nall = plants.definitions\npython_room = rooms:ROOM\n"
        "[hyperrl.agents]\nall = plants.definitions\n"
    )
    return site


def test_folders_of_the_users_own(project: Path) -> None:
    for kind, source, name in (("envs", "room", "room"), ("envs", "room", "pendulum"), ("agents", "quick", "swift")):
        (project / "mine" / kind).mkdir(parents=True, exist_ok=True)
        text = (project / f"{source}.toml").read_text(encoding="utf-8").replace("my/Room-v0", f"my/{name}-v0")
        (project / "mine" / kind / f"{name}.toml").write_text(text, encoding="utf-8")
    path = os.pathsep.join(["nowhere", "mine"])
    listed = hyperrl(project, "list", HYPERRL_PATH=path)
    assert "family room (of HYPERRL_PATH: mine/envs/room.toml)" in listed
    assert "family pendulum (of HYPERRL_PATH: mine/envs/pendulum.toml, hides that of hyperrl)" in listed
    assert "swift (of HYPERRL_PATH: mine/agents/swift.toml)" in listed
    assert "HYPERRL_PATH: nowhere has no folder envs or agents" in listed
    hyperrl(project, "train", "room", "swift", "--steps", "32", "--no-progress", HYPERRL_PATH=path)
    program = """
        import gymnasium, hyperrl
        env = gymnasium.make("my/room-v0")
        assert env.spec.max_episode_steps == 20
        env.reset(seed=0)
        assert [env.step(env.action_space.sample())[3] for _ in range(20)] == [False] * 19 + [True]
        assert gymnasium.make("my/pendulum-v0").reset()[0]["context"].shape == (2,)
        assert gymnasium.make("hyperrl/Pendulum-v0").reset()[0]["context"].shape == (4,)  # hidden by name, not by id
        assert hyperrl.load_family("pendulum").context_space.names == ("power", "loss")
        assert len(gymnasium.make_vec("my/room-v0", num_envs=2).reset()[0]["context"]) == 2
    """
    script(project, program, HYPERRL_PATH=path)


@pytest.mark.slow
def test_definitions_that_packages_offer(project: Path, package: Path) -> None:
    listed = hyperrl(project, "list", paths=(package,))
    assert "family warm_room (of plants: " in listed
    assert "family python_room (of plants: rooms:ROOM)" in listed
    assert "plant-ppo (of plants: " in listed
    hyperrl(project, "train", "python_room", "plant-ppo", "--steps", "32", "--no-progress", paths=(package,))
    hyperrl(project, "evaluate", "runs/python_room-plant-ppo-0", "--contexts", "2", paths=(package,))
    program = """
        import sys, gymnasium, hyperrl
        assert "rooms" not in sys.modules and "plants" not in sys.modules
        for name in ("plants/WarmRoom-v0", "hyperrl/python_room-v0"):
            env = gymnasium.make(name)
            env.reset(seed=0)
            assert [env.step(env.action_space.sample())[3] for _ in range(20)] == [False] * 19 + [True]
    """
    script(project, program, paths=(package,))


HALF = {
    "feature": DEFINITION[: DEFINITION.index("default")].replace("my/Room", "my/Half") + "defau",
    "base": 'id = "my/Half2-v0"\nbase = "roo',
    "id": 'id = "my/Ro',
    "number": "id = 3",
    "bad_id": 'id = "not/a/good/id"\nbase = "room:Room-v0"',
    "control": "\x00\x01",
    "empty": "",
}


@pytest.mark.slow
def test_a_half_written_file_breaks_nothing_but_itself(project: Path) -> None:
    (project / "mine" / "envs").mkdir(parents=True)
    for name, text in HALF.items():
        (project / "mine" / "envs" / f"{name}.toml").write_text(text, encoding="utf-8")
    (project / "mine" / "envs" / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert hyperrl(project, "--version", HYPERRL_PATH="mine").strip()
    program = """
        import gymnasium, hyperrl
        gymnasium.make("hyperrl/Pendulum-v0")
        for name in ("feature", "base", "id", "number", "control", "empty", "bytes"):
            try:
                hyperrl.load_family(name)
            except ValueError as error:
                print(name, error)
        for name in ("my/Half-v0", "my/Half2-v0"):
            try:
                gymnasium.make(name)
            except ValueError as error:
                print(name, error)
    """
    said = script(project, program, HYPERRL_PATH="mine").splitlines()
    names = ["feature", "base", "id", "number", "control", "empty", "bytes"]
    assert [line.split(": ")[0] for line in said] == [
        *(f"{name} mine/envs/{name}.toml" for name in names),
        "my/Half-v0 mine/envs/feature.toml",
        "my/Half2-v0 mine/envs/base.toml",
    ]
    listed = hyperrl(project, "list", HYPERRL_PATH="mine")
    for name in names:
        assert f"family {name} (of HYPERRL_PATH: mine/envs/{name}.toml) cannot be loaded: mine/envs/{name}" in listed
    assert "family pendulum" in listed
    said = hyperrl(project, "train", "feature", "quick.toml", expect=2, HYPERRL_PATH="mine")
    assert "mine/envs/feature.toml: not valid TOML" in said


def test_check_on_the_command_line(project: Path) -> None:
    assert "FAIL" not in hyperrl(project, "check", "room.toml")
    dead = DEFINITION.replace('loss = "loss"', 'outside = "0 * loss"')
    (project / "room.toml").write_text(dead, encoding="utf-8")
    said = hyperrl(project, "check", "room.toml", expect=1)
    assert "nothing changes in" in said
    assert "1 of 9 checks fail." in said


def test_the_guide_is_followed_to_the_letter(tmp_path: Path) -> None:
    """Its files are written, its commands run, as they stand."""
    guide = (ROOT / "docs" / "new-family.md").read_text(encoding="utf-8")
    files = re.compile(r"^```(?:python|toml)\n# (\w+\.(?:py|toml))\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for name, code in files.findall(guide):
        (tmp_path / name).write_text(code, encoding="utf-8")
    commands = re.findall(r"^hyperrl .*$", guide, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["check", "train", "evaluate", "check", "train"]
    shorter = {"train": ("--steps", "100"), "evaluate": ("--contexts", "2", "--episodes", "1", "--plane", "2")}
    for command in commands:
        words = command.split()[1:]
        said = hyperrl(tmp_path, *words, *shorter.get(words[0], ()))
        assert "FAIL" not in said
