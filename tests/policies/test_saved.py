"""Zips of Stable-Baselines3's: whose algorithm is found, and which are refused."""

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecNormalize
from toy import toy

import hyperrl
from hyperrl import policies
from hyperrl.policies.context import ContextExtractor
from hyperrl.policies.registry import REGISTRY, find
from hyperrl.policies.saved import load_model, load_normalizer

FLAT = ("CrossQ",)
DISCRETE = ("DQN", "QRDQN")


def saved(path: Path, name: str, policy: Any, **kwargs: Any) -> Any:
    flat = name in FLAT
    env = toy("discrete" if name in DISCRETE else "box", flat=flat)
    model: Any = find(name)(policy, env, device="cpu", policy_kwargs=kwargs)  # pyright: ignore[reportCallIssue]
    model.save(path)
    return model


@pytest.mark.parametrize("kind", ["hyper", "stock"])
@pytest.mark.parametrize("name", REGISTRY)
def test_the_algorithm_is_found_from_the_zip(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "agent.zip"
    own = REGISTRY[name].policies.get("hyper")
    if kind == "stock":
        policy: Any = (
            "MlpPolicy" if name in FLAT else "MultiInputLstmPolicy" if name == "RecurrentPPO" else "MultiInputPolicy"
        )
        model = saved(path, name, policy)
    elif own is None:
        return
    else:
        model = saved(path, name, getattr(policies, own), **(dict(context_slice=(0, 4)) if name in FLAT else {}))
    loaded = load_model(path, device="cpu")
    assert type(loaded).__name__ == {"DDPG": "TD3"}.get(name, name)  # which is the same once trained
    model.observation_space.seed(0)
    observation = model.observation_space.sample()
    np.testing.assert_array_equal(
        *(m.predict(observation, deterministic=True)[0] for m in (model, loaded)), strict=True
    )
    assert type(load_model(path, name, device="cpu")) is type(model)


def test_a_policy_of_ones_own_tells_the_algorithm_by_what_it_derives_from(tmp_path: Path) -> None:
    saved(tmp_path / "agent.zip", "A2C", MyPolicy)
    loaded = load_model(tmp_path / "agent.zip", device="cpu")
    assert type(loaded).__name__ == "A2C"
    assert type(loaded.policy) is MyPolicy


class MyPolicy(policies.ConcatPolicy):
    pass


def test_an_algorithm_that_is_not_known_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    kwargs = dict(features_extractor_class=ContextExtractor)
    MaskablePPO("MultiInputPolicy", toy("discrete"), policy_kwargs=kwargs, device="cpu").save(path)
    with pytest.raises(ValueError, match="name it, such as --algorithm sb3_contrib:MaskablePPO"):
        load_model(path)
    assert isinstance(load_model(path, "sb3_contrib:MaskablePPO", device="cpu"), MaskablePPO)
    with pytest.raises(ValueError, match="SAC cannot load it"):
        load_model(path, "SAC")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    with pytest.raises(ValueError, match=r"no such file: .*agent\.zip"):
        load_model(path)
    saved(path, "PPO", "MultiInputPolicy")
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:3000] + b"x" * 3000 + whole[6000:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            load_model(path, device="cpu")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", "{}")
    with pytest.raises(ValueError, match=re.escape(f"{path}: no model that Stable-Baselines3 saved")):
        load_model(path)
    env = hyperrl.load_family("pendulum").vec_env(1)
    path = tmp_path / "vecnormalize.pkl"
    with pytest.raises(ValueError, match="no such file"):
        load_normalizer(path, env)
    VecNormalize(env).save(str(path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=re.escape(f"{path}: no VecNormalize")):
        load_normalizer(path, env)


def test_a_policy_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone.py").write_text(
        "from hyperrl.policies import ConcatPolicy\n\n\nclass Mine(ConcatPolicy):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone  # pyright: ignore[reportMissingImports]

    saved(tmp_path / "agent.zip", "PPO", gone.Mine)
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "gone")
    with pytest.raises(ValueError, match="a class that it names cannot be imported: No module named 'gone'"):
        load_model(tmp_path / "agent.zip")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "gone.py").write_text("# and its class too")
    with pytest.raises(ValueError, match=r"the class of its policy cannot be imported: .*gone"):
        load_model(tmp_path / "agent.zip")
