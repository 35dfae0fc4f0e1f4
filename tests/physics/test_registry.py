"""Physics of users: a class in a module of theirs, named in the family's file."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outside import python

import hyperrl
from hyperrl import physics

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "new-family.md").read_text(encoding="utf-8")

USE = """
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import hyperrl
from hyperrl.report.films import record
from hyperrl.simulation import BatchedVecEnv

torch.set_num_threads(1)
family = hyperrl.load_family("tank.toml")
batched, single = family.vec_env(4), family.vec_env(2, backend="gymnasium")
assert isinstance(batched, BatchedVecEnv) and isinstance(single, DummyVecEnv)
for vec_env in (batched, single):
    model = PPO(hyperrl.HyperPolicy, vec_env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    model.learn(40)
record(model, family, family.context_space.sample("train", 2, 0), "film.gif", every=50)
env = family.make({"area": 1.5}, render_mode="rgb_array")
env.reset(seed=0)
assert env.render().shape == (400, 400, 3)
"""


def write_tank(folder: Path, code: str = "") -> Path:
    """Write the tank of the guide as a user would."""
    code = code or next(
        block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "class Tank" in block
    )
    toml = next(block for block in re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL) if "Tank" in block)
    (folder / "tank.py").write_text(code, encoding="utf-8")
    (folder / "tank.toml").write_text(toml, encoding="utf-8")
    return folder / "tank.toml"


def broken(**changes: str) -> str:
    """The code of a physics with some of its parts replaced."""
    parts = {
        "imports": "from hyperrl.physics import Physics",
        "head": "class Tank(Physics):",
        "attributes": "features, observation_space, action_space, uniforms = (), None, None, 1",
        "init": "def __init__(self): pass",
        "methods": "initial = step = observe = lambda self, *arguments: None",
    }
    parts |= changes
    imports, head, *body = parts.values()
    return "\n    ".join([f"{imports}\n{head}", *body]) + "\n"


def test_a_users_physics_serves_from_a_folder_of_its_own(tmp_path: Path) -> None:
    write_tank(tmp_path)
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    python(tmp_path, "use.py")
    assert (tmp_path / "film.gif").stat().st_size > 1000


def test_batched_and_single_environments_of_a_users_physics_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tank", raising=False)
    family = hyperrl.load_family(write_tank(tmp_path))
    contexts = family.context_space.sample("train", 2, 1)
    batched: Any = family.vec_env(2, contexts=contexts, seed=0)
    batched.reset()
    singles: list[Any] = [family.make(context) for context in contexts]
    for i, env in enumerate(singles):
        env.reset(seed=0)
        env.unwrapped.env._state = batched.simulator.state[i : i + 1].clone()
    for action in (-0.5, 0.3, 2.0):
        observation, rewards, *_ = batched.step(np.full((2, 1), action))
        for i, env in enumerate(singles):
            single, reward, *_ = env.step(np.array([action]))
            np.testing.assert_array_equal(observation["observation"][i], single["observation"])
            assert rewards[i] == np.float32(reward)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("tanks:Tank", broken(), "no module 'tanks' that Python can import"),
        ("tank.inner:Tank", broken(), "no module 'tank.inner' that Python can import"),
        ("tank:Tnk", broken(), "module 'tank' has no 'Tnk'. Did you mean 'Tank'"),
        ("tank:", broken(), "expected 'module:Name'"),
        (":Tank", broken(), "expected 'module:Name'"),
        ("tank:Tank:Tank", broken(), "expected 'module:Name'"),
        ("tank:Tank", broken(head="class Tank:"), "is no hyperrl.physics.base.Physics"),
        ("tank:Tank", "Tank = 3", "is no class derived from hyperrl.physics.base.Physics, but 3"),
        ("tank:Tank", broken(methods="def step(self): pass"), r"the methods \['initial', 'observe'\] are missing"),
        ("tank:Tank", broken(attributes="features, uniforms = (), 1"), r"\['observation_space', 'action_space'\] are"),
        ("tank:Tank", broken(init="def __init__(self, a, b=1): pass"), r"without arguments, and asks for \['a'\]"),
        (
            "tank:Tank",
            broken(attributes='features, observation_space, action_space, uniforms = ("depth",), None, None, 1'),
            "Tank needs the features .* are not among",
        ),
    ],
)
def test_faulty_physics_are_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, message: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tank", raising=False)
    path = write_tank(tmp_path, code)
    path.write_text(path.read_text(encoding="utf-8").replace("tank:Tank", name), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        hyperrl.load_family(path).physics()
    assert str(path) in str(caught.value)


def test_a_module_that_lacks_something_itself_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tank", raising=False)
    path = write_tank(tmp_path, "import something_absent")
    with pytest.raises(ModuleNotFoundError, match="something_absent"):
        hyperrl.load_family(path).physics()


def test_a_physics_without_a_drawing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tank", raising=False)
    path = write_tank(tmp_path)
    code = (tmp_path / "tank.py").read_text(encoding="utf-8")
    write_tank(tmp_path, code[: code.index("    def draw")])
    env = hyperrl.load_family(path).make({}, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"Tank has no drawing: give it a method draw\(\)"):
        env.render()


def test_pillow_is_imported_by_who_draws(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["PIL"] = None
import hyperrl.physics
for name in hyperrl.physics.PHYSICS:
    hyperrl.physics.load(name)
"""
    python(tmp_path, "-c", code)


def test_names_of_classes_reach_ours_too() -> None:
    assert isinstance(physics.load("hyperrl.physics.ode:Ode"), type(physics.load("ode")))
