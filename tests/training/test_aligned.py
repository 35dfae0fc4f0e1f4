"""Recipes with an aligned context: trained, saved, loaded, evaluated."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import hyperrl
from hyperrl import train
from hyperrl.alignment import find_aligned
from hyperrl.export import save
from hyperrl.rollouts import play
from hyperrl.training import Run, agent_spec

SMALL = """
algorithm = "{algorithm}"
policy = "hyper"
n_envs = 4
{more}
[alignment]
history = 4
embedding = 4
group = 2
width = 8
every = 16
batch_size = 16
[hyperparameters]
{hyperparameters}
[policy_kwargs]
net_arch = [8, 8]
"""
RECIPES = {
    "PPO": SMALL.format(
        algorithm="PPO", more="normalize_reward = true", hyperparameters="n_steps = 32\nbatch_size = 32"
    ),
    "SAC": SMALL.format(algorithm="SAC", more="", hyperparameters="learning_starts = 16\nbuffer_size = 400"),
}


@pytest.fixture(scope="module", params=RECIPES)
def trained(request: Any, tmp_path_factory: Any) -> tuple[Any, Path]:
    """A trained model, and its run folder."""
    folder = tmp_path_factory.mktemp("aligned")
    (folder / "mine.toml").write_text(RECIPES[request.param])
    return train("pendulum", folder / "mine.toml", 256, seed=1, out=folder / "run", device="cpu"), folder / "run"


def perturb(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)


def returns(model: Any) -> np.ndarray:
    family = hyperrl.load_family("pendulum")
    return hyperrl.evaluate(model, family, ("extrapolation",), contexts=3, episodes=2).splits["extrapolation"].returns


@pytest.mark.parametrize("trust", [False, True])
def test_a_run_comes_back_with_its_encoder(trained: tuple[Any, Path], trust: bool) -> None:
    model, path = trained
    loaded = Run.open(path).model("cpu", trust=trust)
    mine, theirs = find_aligned(model), find_aligned(loaded)
    assert mine is not None
    assert theirs is not None
    for name, tensor in mine.dynamics.state_dict().items():
        assert torch.equal(theirs.dynamics.state_dict()[name], tensor)
    assert mine.dynamics.count > 0
    assert_array_equal(returns(loaded), returns(model))
    perturb(theirs.dynamics.each)
    assert returns(loaded).tolist() != returns(model).tolist()  # the encoder decides what the agent does


def test_a_run_without_its_encoder_says_so(trained: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(trained[1], tmp_path / "run")
    (tmp_path / "run" / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"encoder\.safetensors cannot be read"):
        Run.open(tmp_path / "run").model("cpu")


def test_the_encoder_of_another_run_is_refused(trained: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = trained
    train("pendulum", path / "agent.toml", 256, seed=2, out=tmp_path / "other", device="cpu")
    shutil.copytree(path, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "encoder.safetensors", tmp_path / "run" / "encoder.safetensors")
    with pytest.raises(ValueError, match=r"encoder\.safetensors is not the encoder of this run"):
        Run.open(tmp_path / "run").model("cpu")


def test_a_recipe_sets_the_encoder() -> None:
    overrides = {"alignment.history": 8, "alignment.masking": 0.5}
    assert agent_spec("aligned-ppo", overrides).definition.alignment == overrides_of(overrides)
    plain = agent_spec("hyper-ppo", {"alignment.history": 8})
    assert plain.definition.alignment == {"history": 8}
    with pytest.raises(ValueError, match=r"alignment: AlignedContext knows no 'histroy'.*Did you mean 'history'"):
        train("pendulum", agent_spec("aligned-ppo", {"alignment.histroy": 8}), 1)
    with pytest.raises(ValueError, match="'group' must be of type int, got str 'two'"):
        train("pendulum", agent_spec("aligned-ppo", {"alignment.group": "two"}), 1)


def test_it_is_adapted_to_by_playing_and_not_exported(trained: tuple[Any, Path], tmp_path: Path) -> None:
    model, family = trained[0], hyperrl.load_family("pendulum")
    context = {"torque_gain": -1.2}
    contexts = family.context_space.vector(context)[None]
    eval_env = family.vec_env(4, contexts=contexts)
    curve = hyperrl.adapt(model, family.make(context), episodes=1, eval_env=eval_env, evaluations=4)
    assert_array_equal(curve.returns[0], play(model, family, contexts, 4, seed=0).returns[0])
    assert curve.reported is None
    for method, given in (("search", None), ("finetune", context), ("zero-shot", context)):
        with pytest.raises(ValueError, match="finds its context by itself"):
            hyperrl.adapt(model, family.make(context), method, context=given)
    with pytest.raises(ValueError, match="finds its context by itself"):
        hyperrl.specialize(model, context)
    for given in (None, context):
        with pytest.raises(ValueError, match="finds its context by itself"):
            save(model, tmp_path / "policy.onnx", given)


def overrides_of(overrides: dict[str, Any]) -> dict[str, Any]:
    own = agent_spec("aligned-ppo").definition.alignment or {}
    return own | {key.removeprefix("alignment."): value for key, value in overrides.items()}
