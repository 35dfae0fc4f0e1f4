"""Recipes that name policies, algorithms and networks of a user's own, from a project outside the checkout."""

import re
from pathlib import Path

import pytest
from outside import hyperrl, python

from hyperrl.families.family import load_family
from hyperrl.training.models import build
from hyperrl.training.recipe import agent_spec

MODULES = {
    "nets": '''
        import torch
        from stable_baselines3.common.policies import MultiInputActorCriticPolicy
        from stable_baselines3.common.torch_layers import CombinedExtractor


        class MyPolicy(MultiInputActorCriticPolicy):
            """Its own action."""

            def _predict(self, observation, deterministic=False):
                return torch.full((len(observation["context"]), 1), 0.5)


        class MyExtractor(CombinedExtractor):
            pass
        ''',
    "algos": '''
        from stable_baselines3 import PPO


        class MyPPO(PPO):
            """One more hyperparameter."""

            def __init__(self, *args, surprise: float = 0.0, **kwargs):
                super().__init__(*args, **kwargs)
                self.surprise = surprise
        ''',
}
RECIPE = """
algorithm = "{algorithm}"
policy = "{policy}"
n_envs = 2
[hyperparameters]
n_steps = 16
batch_size = 32
{hyperparameters}
[policy_kwargs]
{policy_kwargs}
"""


def recipe(
    folder: Path, algorithm: str = "PPO", policy: str = "hyper", hyperparameters: str = "", policy_kwargs: str = ""
) -> Path:
    path = folder / "mine.toml"
    text = RECIPE.format(
        algorithm=algorithm, policy=policy, hyperparameters=hyperparameters, policy_kwargs=policy_kwargs
    )
    path.write_text(text)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").touch()
    for name, code in MODULES.items():
        (tmp_path / "mypkg" / f"{name}.py").write_text(re.sub("^ {8}", "", code, flags=re.MULTILINE))
    return tmp_path


TRAIN = ("--steps", 1, "--device", "cpu", "--no-progress", "--out", "run")
LOOK = """
from hyperrl.training import Run
model = Run.open("run").model("cpu")
print(type(model).__name__, type(model.policy).__name__, vars(model).get("surprise"), model.policy.optimizer_class)
print(model.policy.activation_fn, getattr(model.policy, "features_extractor_class", None))
"""


def test_a_recipe_names_classes_of_a_project(project: Path) -> None:
    recipe(
        project,
        "mypkg.algos:MyPPO",
        "mypkg.nets:MyPolicy",
        "surprise = 0.25",
        'activation_fn = "torch.nn:ELU"\noptimizer_class = "torch.optim:SGD"\n'
        'features_extractor_class = "mypkg.nets:MyExtractor"',
    )
    hyperrl(project, "train", "pendulum", "mine.toml", *TRAIN)
    (project / "look.py").write_text(LOOK)
    printed = python(project, "look.py")
    assert "MyPPO MyPolicy 0.25 <class 'torch.optim.sgd.SGD'>" in printed
    assert "ELU" in printed
    assert "MyExtractor" in printed
    hyperrl(project, "evaluate", "run", "--contexts", 2, "--episodes", 1, "--plane", 0, "--sensitivity", 0)
    assert "there is no module 'mypkg' that Python can import" in hyperrl(
        project.parent, "evaluate", project / "run", "--out", "x.json", expect=2
    )


@pytest.fixture
def importable(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(project))
    return project


@pytest.mark.parametrize("kind", ["hyper", "film", "concat", "unaware"])
def test_an_algorithm_of_ones_own_takes_the_policies_of_the_one_that_it_derives_from(
    importable: Path, kind: str
) -> None:
    spec = agent_spec(recipe(importable, "mypkg.algos:MyPPO", kind, "surprise = 1"))
    stock = agent_spec(recipe(importable, "PPO", kind))
    family = load_family("pendulum")
    mine, theirs = build(family, spec, device="cpu"), build(family, stock, device="cpu")
    assert type(mine).__name__ == "MyPPO"
    assert type(mine.policy) is type(theirs.policy)
    mine.learn(32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(policy="nowhere.nets:MyPolicy"), "there is no module 'nowhere' that Python can import"),
        (dict(policy="mypkg.nts:MyPolicy"), "there is no module 'mypkg.nts' that Python can import"),
        (dict(policy="mypkg.nets:MyPolcy"), "module 'mypkg.nets' has no 'MyPolcy'. Did you mean 'MyPolicy'?"),
        (dict(policy="mypkg.nets.MyPolicy"), "or name any other as 'module:Class'"),
        (dict(policy="mypkg.algos:MyPPO"), "'mypkg.algos:MyPPO' is no stable_baselines3.common.policies.BasePolicy"),
        (dict(policy="os.path:join"), "'os.path:join' is no class derived from stable_baselines3"),
        (dict(algorithm="mypkg.nets:MyPolicy"), "is no stable_baselines3.common.base_class.BaseAlgorithm"),
        (dict(algorithm="MyPPO"), "or name any other as 'module:Class'. Did you mean 'PPO'?"),
        (dict(policy_kwargs='activation_fn = "ReLU"'), "activation_fn: expected 'module:Name'"),
        (dict(policy_kwargs='activation_fn = "torch.nn:RelU"'), "Did you mean 'ReLU'?"),
        (dict(policy_kwargs='optimizer_class = "torch:nn"'), "'optimizer_class' must be of type type"),
        (dict(policy="unaware", policy_kwargs="net_arhc = [8]"), "Did you mean 'net_arch'?"),
        (dict(policy="unaware", policy_kwargs='net_arch = "wide"'), "'net_arch' must be of type list[int]"),
        (dict(hyperparameters="seed = 1"), "'seed' is no hyperparameter of a recipe: give --seed"),
        (dict(hyperparameters='device = "cpu"'), "'device' is no hyperparameter of a recipe: give --device"),
        (dict(hyperparameters='gamma = "high"'), "'gamma' must be of type float, got str 'high'"),
        (dict(hyperparameters="n_epochs = 0"), "'n_epochs' must be at least 1, got 0"),
        (dict(hyperparameters="n_epochs = 1.5"), "'n_epochs' must be of type int, got float 1.5"),
        (dict(algorithm="mypkg.algos:MyPPO", hyperparameters="nepochs = 1"), "unexpected keyword argument 'nepochs'"),
        (dict(algorithm="mypkg.algos:MyPPO", hyperparameters='surprise = "a"'), "'surprise' must be of type float"),
        (dict(hyperparameters="learning_rate = [1]"), "learning_rate must be a number"),
    ],
)
def test_mistakes_in_a_recipe_are_one_sentence(importable: Path, arguments: dict[str, str], message: str) -> None:
    path = recipe(importable, **arguments)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        build(load_family("pendulum"), agent_spec(path), device="cpu")
    assert str(error.value).startswith(str(path))


def test_no_batches_of_nothing(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    path.write_text(path.read_text().replace("batch_size = 32", "batch_size = 0"))
    with pytest.raises(ValueError, match="'batch_size' must be at least 1, got 0"):
        build(load_family("pendulum"), agent_spec(path), device="cpu")


def test_an_error_inside_a_module_is_its_own(importable: Path) -> None:
    (importable / "broken.py").write_text("import not_there_at_all\n")
    spec = agent_spec(recipe(importable, policy="broken:MyPolicy"))
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        build(load_family("pendulum"), spec, device="cpu")


def test_sizes_are_matched_to_a_recipe_with_sizes_of_its_own(tmp_path: Path) -> None:
    text = recipe(tmp_path).read_text()
    for name, other in (("mine", "theirs"), ("theirs", "mine")):
        (tmp_path / f"{name}.toml").write_text(
            text.replace("[hyper", f'match_parameters = "{tmp_path}/{other}.toml"\n[hyper', 1)
        )
    with pytest.raises(ValueError, match="'theirs' has 'match_parameters' itself"):
        build(load_family("pendulum"), agent_spec(tmp_path / "mine.toml"), device="cpu")
