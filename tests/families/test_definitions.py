import re
from pathlib import Path

import pytest

from hyperrl.families.definition import family_spec
from hyperrl.families.expressions import Expression
from hyperrl.training.recipe import agent_spec
from hyperrl.utils.definitions import names

FAMILY = """
id = "hyperrl/Mine-v0"
base = "Pendulum-v1"
plane = ["mass", "mass"]
[features.mass]
unit = "kg"
default = 1.0
train = [0.5, 1.5]
bounds = [0.1, 2]
[attributes]
m = "mass"
"""
AGENT = """
algorithm = "PPO"
policy = "hyper"
n_envs = 2
[hyperparameters]
[policy_kwargs]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", names("envs"))
def test_every_family_is_read(name: str) -> None:
    spec = family_spec(name)
    assert spec.name == name
    assert re.fullmatch(r"hyperrl/[A-Za-z0-9]+-v\d+", spec.definition.id)
    used = f"{spec.definition.attributes} {spec.definition.action_scale} {spec.definition.model}"
    if spec.definition.base is None:
        return  # the physics uses them
    for feature in spec.context_space.names:
        assert re.search(rf"\b{feature}\b", used), f"{feature} is never used"


@pytest.mark.parametrize("name", names("agents"))
def test_every_agent_is_read(name: str) -> None:
    assert agent_spec(name).name == name


def test_definitions_are_read_from_a_path(tmp_path: Path) -> None:
    spec = family_spec(write(tmp_path, FAMILY))
    assert spec.context_space.features[0].bounds == ((0.1, 2.0),)
    assert spec.base is not None
    ((path, value),) = spec.base.attributes
    assert path.text == "m"
    assert isinstance(value, Expression)
    assert value({"mass": 0.7}) == 0.7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base =", "bass =", "unknown key 'bass': the keys are ['id', 'features', 'plane', "),
        ("base =", "bass =", "Did you mean 'base'?"),
        ('base = "Pendulum-v1"', "", "give 'base', the Gymnasium id of the environment to vary, or 'physics', or both"),
        ('base = "Pendulum-v1"', "base = 3", "'base' must be of type str, got int 3"),
        (
            '["mass", "mass"]',
            '["mass", "mas"]',
            "unknown feature 'mas': the features are ['mass']. Did you mean 'mass'?",
        ),
        ('["mass", "mass"]', '["mass"]', "'plane' must name two features"),
        ("bounds =", "bound =", "[features.mass] unknown key 'bound'"),
        ("bounds = [0.1, 2]", "", "[features.mass] the key 'bounds' is missing"),
        ("bounds = [0.1, 2]", "choices = [1.0]", "[features.mass] give either 'train' (with 'bounds') or 'choices'"),
        ("bounds = [0.1, 2]", "bounds = [0.1, 2, 3]", "'bounds' must be [low, high] or a list of such intervals"),
        ("bounds = [0.1, 2]", 'bounds = ["a", 2]', "'bounds' must be [low, high] or a list of such intervals"),
        ("bounds = [0.1, 2]", "bounds = [0.6, 2]", "the training range [0.5, 1.5] must lie inside the bounds [0.6, 2]"),
        ('"kg"', '"kg"\ndefault = 1', "not valid TOML"),
        ('m = "mass"', 'm = "maas"', "unknown name 'maas' in 'maas': the names are ['mass']. Did you mean 'mass'?"),
        ('m = "mass"', "m = 3", "[attributes] 'm': expected an expression in quotes"),
        ('m = "mass"', 'm.o.p = "mass"', "[attributes] 'm': write the attribute in quotes, such as 'm.o'"),
        ('m = "mass"', 'm = "9**9**9"', "[attributes] 'm': '9**9**9' is no finite real number"),
        ('m = "mass"', 'm = "(1 - mass) ** 0.5"', "'(1 - mass) ** 0.5' is no finite real number for mass="),
        ('m = "mass"', 'm = "1 / (mass - mass)"', "'1 / (mass - mass)' is no finite real number for mass=1"),
        ('m = "mass"', 'm = "1 / (mass - 1.05)"', "'1 / (mass - 1.05)' is no finite real number for mass=1.05"),
        ('m = "mass"', f'm = "{"-" * 400}mass"', "expected at most 100 nested operations"),
        ('m = "mass"', f'm = "{"(" * 240}mass{")" * 240}"', "expected an arithmetic expression"),
        ('m = "mass"', f'm = "{"mass+" * 200}mass"', "expected an expression of at most 500 characters"),
        ('m = "mass"', 'm = "1e999"', "expected finite numbers"),
        ('m = "mass"', '"m..n" = "mass"', "[attributes] 'm..n': expected an attribute such as 'gravity'"),
        ('m = "mass"', '"__class__.m" = "mass"', "expected an attribute such as 'gravity'"),
        ("[attributes]", "[base_kwargs]\ng = 1\n[attribute]", "unknown key 'attribute'"),
        ('plane = ["mass", "mass"]', "wrappers = [3]", "'wrappers' must list such as 'gymnasium.wrappers:"),
        (
            'base = "Pendulum-v1"',
            'physics = "ode"\nmax_episode_steps = 9\nwrappers = ["a:b"]',
            "is about the environment",
        ),
    ],
)
def test_faults_in_a_family_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, FAMILY.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        family_spec(path)
    assert str(error.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_envs = 2", "n_env = 2", "unknown key 'n_env'"),
        ("n_envs = 2", "", "the key 'n_envs' is missing"),
        ("n_envs = 2", "n_envs = true", "'n_envs' must be of type int, got bool True"),
        ("[hyperparameters]", "hyperparameters = 3", "'hyperparameters' must be of type dict, got int 3"),
    ],
)
def test_faults_in_an_agent_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, AGENT.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        agent_spec(path)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'pendulm': known are .*Did you mean 'pendulum'\?"):
        family_spec("pendulm")
    with pytest.raises(ValueError, match=r"unknown agent 'hyperppo': known are .*Did you mean 'hyper-ppo'\?"):
        agent_spec("hyperppo")
    with pytest.raises(ValueError, match=r"no such file: nowhere\.toml"):
        family_spec("nowhere.toml")
