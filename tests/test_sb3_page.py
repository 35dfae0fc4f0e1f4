"""docs/sb3.md, followed by a user of Stable-Baselines3 in a folder outside the checkout, with fewer steps."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from outside import ROOT, hyperrl, python

PAGE = (ROOT / "docs" / "sb3.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|toml|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|toml))\n")
PACKAGE = re.compile(r"# pip install (.*)\n")
BRIEFLY = """
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm


def briefly(learn):
    return lambda self, total_timesteps, *args, **kwargs: learn(self, min(total_timesteps, 300), *args, **kwargs)


for algorithm in (OnPolicyAlgorithm, OffPolicyAlgorithm):
    algorithm.learn = briefly(algorithm.learn)
"""
SMALLER = {
    "train": ("--steps", 1, "--device", "cpu", "--no-progress"),
    "evaluate": ("--contexts", 2, "--episodes", 1, "--plane", 0, "--no-progress"),
    "tune": ("--trials", 1, "--steps", 1, "--device", "cpu", "--no-progress"),
    "export": ("--format", "safetensors"),
}


def write_files(folder: Path) -> None:
    """Write the files that the page shows."""
    for _, code in BLOCKS:
        if name := FILE.match(code):
            (folder / name[1]).write_text(code, encoding="utf-8")


def test_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    script = [
        code for language, code in BLOCKS if language == "python" and not (FILE.match(code) or PACKAGE.match(code))
    ]
    (tmp_path / "page.py").write_text("\n".join([BRIEFLY, *script]))
    assert "('power', 'loss')" in python(tmp_path, "page.py")
    commands = [
        line.split("#")[0].split() for language, code in BLOCKS if language == "sh" for line in code.splitlines()
    ]
    assert {words[1] for words in commands if words[0] == "hyperrl"} == SMALLER.keys()
    for words in commands:
        if words[0] == "hyperrl":
            hyperrl(tmp_path, *words[1:], *SMALLER[words[1]])
    assert (tmp_path / "agent.policy.safetensors").is_file()
    assert (tmp_path / "runs" / "room-mine-0" / "model.zip").is_file()


def test_the_room_passes_the_check_of_stable_baselines(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "check.py").write_text(
        "from stable_baselines3.common.env_checker import check_env\nfrom room import Room\n\ncheck_env(Room())\n"
    )
    python(tmp_path, "check.py", PYTHONWARNINGS="error")


@pytest.mark.skipif(find_spec("rl_zoo3") is None, reason="rl_zoo3 is not installed: pip install '.[zoo]'")
def test_the_commands_of_rl_zoo(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "zoo" / "ppo.yml", tmp_path)
    commands = [
        line.split() for language, code in BLOCKS if language == "sh" for line in code.splitlines() if "rl_zoo3" in line
    ]
    sizes = ("-params", "n_envs:2", "n_steps:64", "batch_size:64")
    smaller = {
        "rl_zoo3.train": ("-n", 128, "--eval-freq", -1, "--device", "cpu", *sizes),
        "rl_zoo3.enjoy": ("-n", 201, "--device", "cpu"),
    }
    assert {words[2] for words in commands} == smaller.keys()
    for words in commands:
        python(tmp_path, *words[1:], *smaller[words[2]])


FOREIGN = {match[1]: code for _, code in BLOCKS if (match := PACKAGE.match(code))}
MODULES = {"gymnasium[box2d]": "Box2D", "highway-env": "highway_env", "minigrid": "minigrid", "panda-gym": "panda_gym"}
FIRST = f"""
import warnings
warnings.simplefilter("ignore")
{BRIEFLY}
import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

import hyperrl
from hyperrl.contexts import ContextSpace, Feature
"""
# The context changes what is observed under the same actions from the same seed, and an agent learns.
THEN = """
def play(value, steps=40):
    env = make()
    observation, _ = env.reset(seed=1, options={"context": {space.names[0]: value}})
    assert observation["context"] == np.float32(value)
    env.action_space.seed(0)
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen += [*(entry for key, entry in sorted(observation.items()) if key != "context"), reward]
        if terminated or truncated:
            break
    env.close()
    return np.concatenate([np.ravel(entry) for entry in seen])


low, high = (float(end) for end in (space.low[0], space.high[0]))
same, other = play(high), play(low)
assert np.array_equal(play(high), same), "the same context gives the same episode"
assert not np.array_equal(same, other), "another context gives another episode"
check_env(make(), skip_render_check=True)
model = PPO(hyperrl.HyperPolicy, make_vec_env(make, n_envs=2), n_steps=32, batch_size=32, n_epochs=1, device="cpu")
model.learn(64)
print("learnt in", model.policy.context_space.names)
"""
CARL = """
vec_env = make_vec_env(make, n_envs=2)
contexts = {tuple(row) for _ in range(10) for row in vec_env.reset()["context"].round(3)}
assert len(contexts) == 10, contexts
model = PPO(hyperrl.HyperPolicy, vec_env, n_steps=256, batch_size=64, n_epochs=1, device="cpu").learn(300)
print("learnt in", model.policy.context_box.shape)
"""


def imports(package: str) -> str:
    """Name the module of a package that the page installs."""
    return next((module for start, module in MODULES.items() if package.strip("'").startswith(start)), "carl")


@pytest.mark.parametrize("package", FOREIGN)
def test_environments_of_other_packages(package: str, tmp_path: Path) -> None:
    module = imports(package)
    if find_spec(module) is None or (module == "carl" and find_spec("ConfigSpace") is None):
        pytest.skip(f"not installed: pip install {package}")
    code = FOREIGN[package]
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 10
    (tmp_path / "foreign.py").write_text("\n".join([FIRST, code, CARL if module == "carl" else THEN]))
    assert "learnt in" in python(tmp_path, "foreign.py")


def test_the_page_shows_what_it_promises() -> None:
    assert len(FOREIGN) >= 4
    assert {imports(package) for package in FOREIGN} == {*MODULES.values(), "carl"}
