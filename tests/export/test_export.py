import io
import json
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from outside import python
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecExtractDictObs, VecNormalize
from torch import nn
from toy import ACTIONS, CONTEXT, IMAGE, toy

import hyperrl
import hyperrl.utils.extras
from hyperrl import specialize
from hyperrl.export import formats as export
from hyperrl.policies import POLICY_OF, ConcatPolicy, ContextExtractor, FilmPolicy, UnawarePolicy
from hyperrl.utils.tensors import pack
from tests.export.test_specialization import observe, trained
from tests.policies import test_policies
from tests.policies.test_policies_actor_critic import HYPER

LENGTH = CONTEXT.vector({"length": 0.7})


def exported(variants: Iterable[str], in_onnx: str, in_pt2: Collection[str] | None = None) -> list[Any]:
    """Each variant as pt2, two seconds of work, and as ONNX, six: of these only one is fast."""
    names = [*variants]
    fast = {"pt2": names if in_pt2 is None else in_pt2, "onnx": [in_onnx]}
    return [pytest.param(v, to, marks=() if v in fast[to] else pytest.mark.slow) for to in fast for v in names]


def load(path: Path) -> Callable[..., np.ndarray]:
    """What a user without hyperrl does with a file."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda *inputs: session.run(["action"], dict(zip(("observation", "context"), inputs, strict=False)))[0]  # pyright: ignore[reportReturnType]
    if path.suffix == ".pt2":
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()
        return lambda *inputs: module(*map(torch.as_tensor, inputs)).numpy()
    return export.load(path).predict


def run(path: Path, *inputs: np.ndarray) -> np.ndarray:
    """Load a file and use it once."""
    return load(path)(*inputs)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("format", export.FORMATS)
def test_a_frozen_policy_acts_as_the_model_does(format: str, action: str, tmp_path: Path) -> None:
    model = trained("low_rank", toy(action))
    path = tmp_path / f"policy.{format}"
    export.save(model, path, {"length": 0.7}, format)
    policy = load(path)
    for n in (1, 9):
        whole, rest = observe(model, LENGTH, n)
        expected = model.predict(whole, deterministic=True)[0]
        assert_allclose(policy(rest), expected, rtol=0, atol=1e-5)
    assert not re.search(rb"/(home|work|root|tmp|usr)/", path.read_bytes())


@pytest.mark.parametrize(("variant", "format"), exported((v for v in HYPER if v != "gSDE"), in_onnx="low_rank"))
def test_an_open_policy_takes_any_batch_of_contexts(variant: str, format: str, tmp_path: Path) -> None:
    model = trained(variant, toy("lopsided box"))
    path = tmp_path / f"policy.{format}"
    export.save(model, path, format=format)
    policy, rng = load(path), np.random.default_rng(1)
    for n in (1, 2, 33):
        observation = rng.normal(size=(n, 5)).astype(np.float32)
        context = CONTEXT.sample("extrapolation", n, 3).astype(np.float32)
        expected = model.predict({"observation": observation, "context": context}, deterministic=True)[0]
        assert_allclose(policy(observation, context), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", POLICY_OF)
def test_every_algorithm_in_one_context(name: str, tmp_path: Path) -> None:
    model = test_policies.trained(name)
    whole, rest = observe(model, LENGTH, 33)
    expected = model.predict(whole, deterministic=True)[0]
    export.save(model, tmp_path / "policy.safetensors", LENGTH, "safetensors")
    assert_allclose(run(tmp_path / "policy.safetensors", rest), expected, rtol=0, atol=1e-5)


ONE_OF_EACH_POLICY = {policy: name for name, policy in reversed(POLICY_OF.items())}.values()


@pytest.mark.parametrize(("name", "format"), exported(POLICY_OF, in_onnx="SAC", in_pt2=ONE_OF_EACH_POLICY))
def test_every_algorithm_in_any_context(name: str, format: str, tmp_path: Path) -> None:
    model = test_policies.trained(name)
    whole, rest = observe(model, LENGTH, 33)
    contexts = np.concatenate([CONTEXT.sample("extrapolation", 30, 3), [LENGTH] * 3]).astype(np.float32)
    several = dict(whole, context=contexts) if isinstance(whole, dict) else np.concatenate([contexts, rest], axis=1)
    expected = model.predict(several, deterministic=True)[0]
    path = tmp_path / f"policy.{format}"
    export.save(model, path, format=format)
    policy = load(path)
    assert_allclose(policy(rest, contexts), expected, rtol=0, atol=1e-5)
    assert_allclose(policy(rest[:1], contexts[:1]), expected[:1], rtol=0, atol=1e-5)


OTHERS = {"concat": ConcatPolicy, "film": FilmPolicy, "unaware": UnawarePolicy}


@pytest.mark.parametrize(("name", "format"), exported(OTHERS, in_onnx="film"))
def test_policies_whose_weights_are_not_generated(name: str, format: str, tmp_path: Path) -> None:
    policy: Any = OTHERS[name]
    model = PPO(policy, toy("lopsided box"), n_steps=16, batch_size=16, learning_rate=1e-2, device="cpu").learn(64)
    whole, rest = observe(model, LENGTH, 33)
    contexts = CONTEXT.sample("extrapolation", 33, 3).astype(np.float32)
    export.save(model, tmp_path / f"open.{format}", format=format)
    expected = model.predict(dict(whole, context=contexts), deterministic=True)[0]
    assert_allclose(run(tmp_path / f"open.{format}", rest, contexts), expected, rtol=0, atol=1e-5)
    export.save(model, tmp_path / f"frozen.{format}", LENGTH, format=format)
    expected = model.predict(whole, deterministic=True)[0]
    assert_allclose(run(tmp_path / f"frozen.{format}", rest), expected, rtol=0, atol=1e-5)


def test_penalties_have_no_part_in_what_is_exported(tmp_path: Path) -> None:
    model = test_policies.make("SAC", squared_norm=0.1, similarity=0.1)
    export.save(model, tmp_path / "policy.pt2", format="pt2")


def test_the_context_of_a_policy_of_sb3s_own_cannot_be_left_open(tmp_path: Path) -> None:
    options = dict(features_extractor_class=ContextExtractor)
    model = PPO("MultiInputPolicy", toy(), policy_kwargs=options, device="cpu")
    with pytest.raises(ValueError, match="cannot export MultiInputActorCriticPolicy with the context left open"):
        export.save(model, tmp_path / "policy.onnx")


@pytest.mark.parametrize("name", ["PPO gSDE", "SAC gSDE"])
def test_networks_of_another_kind_are_refused(name: str, tmp_path: Path) -> None:
    model = test_policies.trained(name)
    for context in (CONTEXT.default, None):
        with pytest.raises(ValueError, match="gSDE"):
            export.save(model, tmp_path / "policy", context)
    assert not list(tmp_path.iterdir())


def test_onnx_says_what_it_is(tmp_path: Path) -> None:
    model = trained("low_rank", hyperrl.load_family("pendulum").vec_env(2))
    export.save(model, tmp_path / "frozen.onnx", {"length": 0.7})
    export.save(model, tmp_path / "open.onnx")
    shapes = {}
    for name in ("frozen", "open"):
        proto = onnx.load(tmp_path / f"{name}.onnx")
        onnx.checker.check_model(proto, full_check=True)
        for value in (*proto.graph.input, *proto.graph.output):
            dims = value.type.tensor_type.shape.dim
            shapes[name, value.name] = [dim.dim_param or dim.dim_value for dim in dims]
        (entry,) = proto.metadata_props
        description = json.loads(entry.value)
        assert [feature["name"] for feature in description["context"]] == list(CONTEXT.names)
        values = [feature.get("value") for feature in description["context"]]
        assert values == (LENGTH.tolist() if name == "frozen" else [None] * 4)
    assert shapes == {
        ("frozen", "observation"): ["batch", 3],
        ("frozen", "action"): ["batch", 1],
        ("open", "observation"): ["batch", 3],
        ("open", "context"): ["batch", 4],
        ("open", "action"): ["batch", 1],
    }


@pytest.mark.parametrize("format", export.FORMATS)
def test_normalisation_goes_along(format: str, tmp_path: Path) -> None:
    """Mean far from zero and little variance: what float32 alone would get wrong."""
    family = hyperrl.load_family("pendulum")
    normalizer = VecNormalize(family.vec_env(4), norm_obs_keys=["observation"], clip_obs=1.5)
    model = trained("low_rank", normalizer)
    normalizer.obs_rms["observation"].mean = np.array([0.1, -1000.0, 3.3])
    normalizer.obs_rms["observation"].var = np.array([1.0, 1e-4, 4.0])
    model.save(tmp_path / "model.zip")
    observation = np.random.default_rng(0).normal(size=(50, 3)) * [1, 0.01, 2] + [0, -1000, 0]
    observation = observation.astype(np.float32)
    whole = normalizer.normalize_obs({"observation": observation, "context": np.tile(np.float32(LENGTH), (50, 1))})
    expected = model.predict(whole, deterministic=True)[0]
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    path = tmp_path / f"policy.{format}"
    export.save(model, path, {"length": 0.7}, format)
    assert_allclose(run(path, observation), expected, rtol=0, atol=1e-5)
    if format == "safetensors":
        export.save(loaded, tmp_path / "given.safetensors", {"length": 0.7}, format, normalizer)
        assert_allclose(run(tmp_path / "given.safetensors", observation), expected, rtol=0, atol=1e-5)
    else:
        export.save(model, tmp_path / f"open.{format}", format=format)
        context = np.tile(np.float32(LENGTH), (50, 1))
        assert_allclose(run(tmp_path / f"open.{format}", observation, context), expected, rtol=0, atol=1e-5)


def test_a_plain_policy_is_exported_as_it_is(tmp_path: Path) -> None:
    family = hyperrl.load_family("pendulum")
    alone = VecExtractDictObs(family.vec_env(4, contexts=[LENGTH]), "observation")
    plain = specialize(trained("low_rank", family.vec_env(4)), {"length": 0.7}, env=VecNormalize(alone))
    plain.learn(64)
    export.save(plain, tmp_path / "policy.safetensors", format="safetensors")
    policy = export.load(tmp_path / "policy.safetensors")
    assert policy.description["context"] is None
    observation = np.float32([[0.1, 0.2, 3.0]])
    expected = plain.predict(plain.get_vec_normalize_env().normalize_obs(observation), deterministic=True)[0]
    assert_allclose(policy.predict(observation), expected, atol=1e-5)
    with pytest.raises(ValueError, match="normalizer's observations are a Dict"):
        export.save(plain, tmp_path / "other.onnx", normalizer=VecNormalize(family.vec_env(4)))
    with pytest.raises(ValueError, match="gets no context"):
        export.save(plain, tmp_path / "other.onnx", {"length": 0.7})


@pytest.mark.parametrize("activation", export.ACTIVATIONS)
def test_activations(activation: str, tmp_path: Path) -> None:
    kwargs = dict(activation_fn=export.ACTIVATIONS[activation], net_arch=[7, 5])
    model = trained("low_rank", toy(), policy_kwargs=kwargs)
    export.save(model, tmp_path / "policy.safetensors", {}, "safetensors")
    description = export.load(tmp_path / "policy.safetensors").description
    assert description["network"] == {"widths": [5, 7, 5, 3], "activation": activation}


def test_a_network_without_hidden_layers_on_a_flat_observation(tmp_path: Path) -> None:
    env = hyperrl.load_family("pendulum").make().unwrapped
    env.observation_space = spaces.Box(0, 1, (5,))
    model = trained("full", env, policy_kwargs=dict(net_arch=[], context_slice=(1, 3)))
    export.save(model, tmp_path / "policy.safetensors", [0.5, 0.5], "safetensors")
    export.save(model, tmp_path / "policy.onnx")
    policy = export.load(tmp_path / "policy.safetensors")
    assert policy.description["context"] == [{"value": 0.5}, {"value": 0.5}]
    flat = np.random.default_rng(0).uniform(size=(6, 5)).astype(np.float32)
    flat[:, 1:3] = 0.5
    rest = np.delete(flat, [1, 2], axis=1)
    expected = model.predict(flat, deterministic=True)[0]
    assert_allclose(policy.predict(rest), expected, atol=1e-5)
    assert_allclose(run(tmp_path / "policy.onnx", rest, flat[:, 1:3]), expected, atol=1e-5)
    assert_array_equal(policy.predict(rest[0]), policy.predict(rest)[0])
    with pytest.raises(ValueError, match=r"shape \(3,\) or \(B, 3\), got \(2,\)"):
        policy.predict([1.0, 2.0])


class Own(nn.Tanh):
    pass


@pytest.mark.parametrize(
    ("variant", "entries", "kwargs", "arguments", "message"),
    [
        ("low_rank", IMAGE, {}, dict(context={}), "only policies on a flat observation"),
        ("low_rank", IMAGE, {}, {}, "only policies on a flat observation"),
        ("low_rank", None, dict(activation_fn=Own), dict(context={}), r"cannot export the layer Own\(\)"),
        ("adapter", None, {}, dict(context={}), "head='adapter' adds a layer"),
        ("low_rank", None, {}, dict(format="safetensors"), "give the context"),
        ("low_rank", None, {}, dict(context={"lenght": 1.0}), "Did you mean 'length'"),
        ("low_rank", None, {}, dict(format="onxn"), "Did you mean 'onnx'"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    variant: str, entries: Any, kwargs: Any, arguments: Any, message: str, tmp_path: Path
) -> None:
    model = trained(variant, toy("box", *([] if entries is None else [entries])), policy_kwargs=kwargs)
    with pytest.raises(ValueError, match=message):
        export.save(model, tmp_path / "policy", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_normalised_context_is_refused(tmp_path: Path) -> None:
    model = trained("low_rank", toy())
    for context in ({}, None):
        with pytest.raises(ValueError, match="normalises the context"):
            export.save(model, tmp_path / "policy.onnx", context, normalizer=VecNormalize(toy()))


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    model = trained("low_rank", toy())
    (tmp_path / "policy").write_text("mine")
    for format in export.FORMATS:
        with pytest.raises(ValueError, match="never overwritten"):
            export.save(model, tmp_path / "policy", {}, format)
    assert (tmp_path / "policy").read_text() == "mine"


@pytest.mark.parametrize("format", export.FORMATS)
def test_what_does_not_act_as_the_model_is_not_written(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained("low_rank", toy())
    forward = hyperrl.export.deterministic.Decode.forward
    monkeypatch.setattr(hyperrl.export.deterministic.Decode, "forward", lambda self, x: forward(self, x) + 2e-5)
    with pytest.raises(RuntimeError, match="does not act as the model does"):
        export.save(model, tmp_path / "policy", {}, format)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyperrl.utils.extras, "find_spec", lambda name: None)
    model = trained("low_rank", toy())
    with pytest.raises(ValueError, match=r"needs onnx, onnxscript, onnxruntime: pip install .* '\.\[export\]'"):
        export.save(model, tmp_path / "policy.onnx", {})


def test_files_run_without_hyperrl(tmp_path: Path) -> None:
    model = trained("low_rank", toy())
    export.save(model, tmp_path / "frozen.pt2", {}, "pt2")
    export.save(model, tmp_path / "open.pt2", format="pt2")
    program = """
import sys
sys.modules["hyperrl"] = sys.modules["stable_baselines3"] = None
import torch
for name, inputs in dict(frozen=[5], open=[5, 4]).items():
    policy = torch.export.load(name + ".pt2").module()
    assert policy(*[torch.randn(7, n) for n in inputs]).shape == (7, 3)
"""
    python(tmp_path, "-c", program)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, np.ndarray]:
    path = tmp_path_factory.mktemp("saved") / "policy.safetensors"
    normalizer = VecNormalize(toy("lopsided box"), norm_obs_keys=["observation"])
    model = trained("low_rank", normalizer, policy_kwargs=dict(net_arch=[3, 2]))
    export.save(model, path, {}, "safetensors")
    return path.read_bytes(), export.load(path).predict(np.eye(5))


@given(data=st.data())
def test_a_damaged_file_is_the_right_policy_or_an_error(saved: Any, data: st.DataObject) -> None:
    whole, expected = saved
    header = 8 + int.from_bytes(whole[:8], "little")
    if data.draw(st.booleans(), label="truncate"):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        changed = bytearray(whole)
        places = st.one_of(st.integers(0, 7), st.integers(8, header - 1), st.integers(header, len(whole) - 1))
        for place in data.draw(st.lists(places, min_size=1, max_size=3)):
            changed[place] = data.draw(st.integers(0, 255))
        damaged = bytes(changed)
    try:
        policy = export._read_safetensors(damaged)
    except ValueError:
        return
    assert_array_equal(policy.predict(np.eye(5)), expected)


def forge(whole: bytes, change: Any) -> bytes:
    """A file with another description or other tensors, and the checksum that goes with it."""
    from safetensors.torch import load

    tensors = load(whole)
    end = 8 + int.from_bytes(whole[:8], "little")
    description = json.loads(json.loads(whole[8:end])["__metadata__"]["hyperrl"])
    other = change(description, tensors)
    text = json.dumps(other if isinstance(other, list) else description)
    return pack(tensors, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: d.update(schema="hyperrl-policy-9"), "schema is 'hyperrl-policy-9'"),
        (lambda d, t: d.pop("action"), "KeyError"),
        (lambda d, t: [1], "TypeError"),
        (lambda d, t: d["network"].update(activation="Module"), "unknown activation 'Module'"),
        (lambda d, t: d["network"].update(activation=["Tanh"]), "faulty: TypeError"),
        (lambda d, t: d["network"].update(widths=[5, 10**12, 2, 2]), "expected the tensors"),
        (lambda d, t: d["network"].update(widths=[5, True, 2, 2]), "whole numbers ≥ 1"),
        (lambda d, t: d["network"].update(widths=[]), "IndexError"),
        (lambda d, t: d["action"]["space"].update(type="Text"), "unknown action space 'Text'"),
        (lambda d, t: d["action"]["space"].update(low=[1.0]), "reshape"),
        (lambda d, t: d["action"]["space"].update(low=[9.0, 9.0]), "no bounds"),
        (lambda d, t: d["action"].update(space={"type": "Discrete", "n": 3}), "3 outputs"),
        (lambda d, t: d["observation"].update(clip="far"), "could not convert"),
        (lambda d, t: t.pop("network.2.bias"), "expected the tensors"),
        (lambda d, t: t.update({"network.2.bias": torch.zeros(3)}), "expected the tensors"),
        (lambda d, t: t.update({"network.2.bias": torch.zeros(2, dtype=torch.float16)}), "expected the tensors"),
        (lambda d, t: t.update({"more": torch.zeros(2)}), "expected the tensors"),
    ],
)
def test_a_forged_file_gets_one_clear_error(saved: Any, change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    path.write_bytes(forge(saved[0], change))
    with pytest.raises(ValueError, match=message) as caught:
        export.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "file"
    model = trained("low_rank", toy())
    model.save(tmp_path / "model.zip")
    for content, message in {
        b"": "no safetensors file",
        b"\x80\x04K\x01.": "no safetensors file",
        (tmp_path / "model.zip").read_bytes(): "no safetensors file",
        save({"weight": torch.zeros(2)}): "no file of hyperrl's",
        save({"weight": torch.zeros(2)}, {"hyperrl": "{}"}): "damaged",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            export.load(path)
    with pytest.raises(ValueError, match="nowhere cannot be read: No such file"):
        export.load(tmp_path / "nowhere")
