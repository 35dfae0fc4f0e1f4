"""The model that is rebuilt from numbers alone is the one that the pickled zip holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from stable_baselines3.common.base_class import BaseAlgorithm

import hyperrl
from hyperrl.adaptation import study
from hyperrl.export.specialization import specialize
from hyperrl.rollouts.agent import has_memory
from hyperrl.training.loop import train
from hyperrl.training.models import build
from hyperrl.training.recipe import agent_spec
from hyperrl.training.run import Run
from hyperrl.training.weights import load_weights, save_weights
from hyperrl.utils.definitions import names
from tests.training.test_training import small

FAMILY = hyperrl.load_family("pendulum")


def same(one: Any, other: Any) -> bool:
    """Compare what ``get_parameters`` returns, types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def numbers(model: BaseAlgorithm) -> dict[str, Any]:
    """What is a number among a model's attributes, and its schedules at the beginning, in the middle and at the end."""
    kept = {key: value for key, value in vars(model).items() if isinstance(value, bool | int | float | str | np.number)}
    kept.pop("n_envs")  # of the environments that each has
    schedules: dict[str, Any] = {
        key: getattr(model, key) for key in ("lr_schedule", "clip_range") if hasattr(model, key)
    }
    return kept | {key: [schedule(x) for x in (1.0, 0.5, 0.0)] for key, schedule in schedules.items()}


@pytest.mark.parametrize("agent", names("agents"))
def test_the_rebuilt_model_is_that_of_the_zip(agent: str, tmp_path: Path) -> None:
    """Parameters, optimisers, counters, schedules, statistics; actions, values, specialisation and adaptation."""
    train("pendulum", small(agent, tmp_path), steps=128, seed=2, out=tmp_path / "x", device="cpu")
    run = Run.open(tmp_path / "x")
    rebuilt: Any = run.model("cpu")
    pickled: Any = run.model("cpu", trust=True)
    assert same(rebuilt.get_parameters(), pickled.get_parameters())
    for name in pickled._get_torch_save_params()[1]:
        assert torch.equal(getattr(rebuilt, name), getattr(pickled, name))
    assert numbers(rebuilt) == numbers(pickled)
    normalizer = pickled.get_vec_normalize_env()
    assert (rebuilt.get_vec_normalize_env() is None) == (normalizer is None)
    if normalizer is not None:
        state, expected = (model.get_vec_normalize_env().__getstate__() for model in (rebuilt, pickled))
        assert vars(state.pop("ret_rms")) == vars(expected.pop("ret_rms"))
        settings = (
            "norm_obs",
            "norm_obs_keys",
            "norm_reward",
            "clip_obs",
            "clip_reward",
            "gamma",
            "epsilon",
            "training",
        )
        assert {key: state[key] for key in settings} == {key: expected[key] for key in settings}
    reports = [hyperrl.evaluate(model, FAMILY, ("extrapolation",), 2, 2, 1) for model in (rebuilt, pickled)]
    for one, other in zip(*(report.splits.values() for report in reports), strict=True):
        assert_array_equal(one.returns, other.returns)
        assert (one.values is None) == (other.values is None)
        if one.values is not None and other.values is not None:
            assert_array_equal(one.values.bias, other.values.bias)
    if has_memory(rebuilt) or "adapter" in agent:  # no plain policy acts as they do
        return
    observation = {"observation": np.array([[0.6, -0.8, 1.5]]), "context": np.array([[9.0, 1.1, 0.7, -1.5]])}
    if "unaware" not in agent:
        plain, expected = (specialize(model, {"length": 0.7}) for model in (rebuilt, pickled))
        assert same(plain.get_parameters()["policy"], expected.get_parameters()["policy"])
        obs = observation["observation"].astype(np.float32)
        assert_array_equal(plain.predict(obs, deterministic=True)[0], expected.predict(obs, deterministic=True)[0])
    context = FAMILY.context_space.sample("extrapolation", 1, 0)
    curves = [study({"it": [model]}, FAMILY, context, ("finetune",), 1, 1, 1).lines for model in (rebuilt, pickled)]
    for one, other in zip(*curves, strict=True):
        assert_array_equal(one.returns, other.returns)
        assert_array_equal(one.episode_returns, other.episode_returns)


OPTIMIZERS = {
    "A2C": "use_rms_prop = true",
    "TQC": "ent_coef = 'auto_0.1'\nuse_sde = true",
    "QRDQN": "exploration_final_eps = 0.5",
    "TD3": "action_noise = 0.2",
    "TRPO": "n_steps = 32",
}


@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_other_algorithms_are_rebuilt_too(algorithm: str, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    sizes = "buffer_size = 200\nlearning_starts = 8" if algorithm in ("TQC", "TD3", "QRDQN") else ""
    family = "cartpole" if algorithm == "QRDQN" else "pendulum"
    recipe.write_text(
        f'algorithm = "{algorithm}"\npolicy = "hyper"\nn_envs = 4\n[hyperparameters]\n{OPTIMIZERS[algorithm]}\n'
        f"{sizes}\n[policy_kwargs]\nnet_arch = [8]\n"
    )
    train(family, recipe, steps=128, seed=2, out=tmp_path / "x", device="cpu")
    run = Run.open(tmp_path / "x")
    rebuilt, pickled = run.model("cpu"), run.model("cpu", trust=True)
    assert same(rebuilt.get_parameters(), pickled.get_parameters())
    for name in pickled._get_torch_save_params()[1]:
        assert torch.equal(getattr(rebuilt, name), getattr(pickled, name))
    assert numbers(rebuilt) == numbers(pickled)


class Boom:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise RuntimeError('a pickle was read')",))


def test_nothing_is_unpickled_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    train("pendulum", small("hyper-ppo", tmp_path), steps=64, seed=2, out=tmp_path / "x", device="cpu")
    run = Run.open(tmp_path / "x")
    whole = run.model("cpu").get_parameters()
    (run.path / "vecnormalize.pkl").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ValueError, match=r"vecnormalize\.pkl: no VecNormalize .*RuntimeError: a pickle was read"):
        run.model("cpu", trust=True)
    (run.path / "model.zip").write_bytes(b"")
    for module, name in (("pickle", "loads"), ("pickle", "load"), ("cloudpickle", "loads"), ("torch", "load")):
        monkeypatch.setattr(f"{module}.{name}", lambda *_, **__: pytest.fail("something was unpickled"))
    assert same(run.model("cpu").get_parameters(), whole)


def test_what_is_missing_or_of_another_model_is_named(tmp_path: Path) -> None:
    for seed in (1, 2):
        train("pendulum", small("hyper-ppo", tmp_path), steps=64, seed=seed, out=tmp_path / f"{seed}", device="cpu")
    run = Run.open(tmp_path / "1")
    (tmp_path / "2" / "model.safetensors").replace(run.path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1/model\.safetensors holds another model than .*1/run\.json says"):
        run.model("cpu")
    (run.path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing\. .*load it with --trust \(trust=True\) if"):
        run.model("cpu")
    assert run.model("cpu", trust=True).num_timesteps == 64


def test_weights_of_another_recipe_are_refused(tmp_path: Path) -> None:
    one, other = agent_spec(small("hyper-ppo", tmp_path)), agent_spec(small("unaware-ppo", tmp_path))
    save_weights(build(FAMILY, one, device="cpu"), one, tmp_path / "w")
    with pytest.raises(ValueError, match=r"w does not fit the recipe .*unaware-ppo\.toml: expected 'policy/"):
        load_weights(tmp_path / "w", FAMILY, other, 0, device="cpu")
    with pytest.raises(ValueError, match=r"nowhere cannot be read: No such file"):
        load_weights(tmp_path / "nowhere", FAMILY, one, 0)


def test_the_recipe_whose_size_is_matched_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matched = small("hyper-ppo", tmp_path)
    recipe = small("concat-ppo", tmp_path)
    recipe.write_text(recipe.read_text().replace('"hyper-ppo"', f'"{matched}"'))
    train("pendulum", recipe, steps=64, out=tmp_path / "x", device="cpu")
    matched.unlink()
    run = Run.open(tmp_path / "x")
    assert same(run.model("cpu").get_parameters(), run.model("cpu", trust=True).get_parameters())
