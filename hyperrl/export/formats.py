"""Export: a trained policy as a file that runs without hyperrl and Stable-Baselines3."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from hyperrl.contexts import ContextBox
from hyperrl.export.deterministic import ACTIVATIONS, Decode, FrozenPolicy, Normalize, OpenPolicy, freeze, leave_open
from hyperrl.export.specialization import (
    context_vector,
    plain_observation,
    refuse_memory,
    refuse_normalized_context,
    specialize,
)
from hyperrl.policies import ContextExtractor
from hyperrl.policies.context import ContextReader, context_extractor
from hyperrl.utils.errors import nearest
from hyperrl.utils.extras import require
from hyperrl.utils.files import read_bytes, refuse_existing, write_bytes
from hyperrl.utils.tensors import pack, unpack

PACKAGES: Final = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ()}
FORMATS: Final = tuple(PACKAGES)
SCHEMA: Final = "hyperrl-policy-1"

TOLERANCE: Final = 1e-5  # of actions; of their largest bound where that is more than one
_LIBRARIES: Final = ("hyperrl", "torch", "stable-baselines3")

Array = NDArray[Any]


Exportable = FrozenPolicy | OpenPolicy | Any
"""A module with ``inputs``, a width for each name; the last may be ``state``, of which it returns the next."""


def save(
    model: BaseAlgorithm,
    path: str | Path,
    context: Mapping[str, float] | ArrayLike | None = None,
    format: str = "onnx",
    normalizer: VecNormalize | None = None,
) -> None:
    """Write a model's deterministic policy to a file, having checked that it acts as ``model.predict`` does.

    What is written takes observations ``(B, n)``, any number of rows, and returns actions as the environment expects
    them: it normalises observations, and clips, scales or chooses actions, by itself.

    :param model: a model with a policy of :mod:`hyperrl.policies`, or with a plain one of SB3's, such as
        :func:`hyperrl.specialize` returns. The policy must be a perceptron on a flat observation.
    :param path: the file to write; it must not exist.
    :param context: the context to freeze the policy at, as :func:`hyperrl.specialize` takes it. ``None`` leaves it
        open, with the formats ``"onnx"`` and ``"pt2"``: a second input ``(B, d)`` in physical units.
    :param format: ``"onnx"``; ``"pt2"`` for ``torch.export.load``, where TorchScript was, which torch has deprecated;
        ``"safetensors"`` for :func:`load`: numbers and a description, the format to share.
    :param normalizer: the ``VecNormalize`` that normalised the observations; that of the model's environments by
        default. A model that was loaded without environments has none.
    :raises ValueError: for any other policy, for a faulty context, where the file exists or a package is missing.

    >>> import tempfile
    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2), device="cpu")
    >>> path = Path(tempfile.mkdtemp()) / "policy.safetensors"
    >>> save(model, path, context={"length": 0.7}, format="safetensors")
    >>> policy = load(path)
    >>> policy.description["context"][2]["value"], policy.predict([1.0, 0.0, 0.0]).shape
    (0.7, (1,))
    """
    path = Path(path)
    require_format(format)
    refuse_existing(path, "choose another file, or remove it")
    refuse_memory(model)
    normalizer = model.get_vec_normalize_env() if normalizer is None else normalizer
    policy, extractor = model.policy, context_extractor(model.policy)
    if extractor is None:
        if context is not None:
            raise ValueError(f"this model's policy, {type(policy).__name__}, gets no context: leave it out")
        if normalizer is not None and isinstance(getattr(normalizer, "obs_rms", None), dict):
            raise ValueError(
                f"the normalizer's observations are a Dict, the model's are {model.observation_space}: give a "
                "VecNormalize of such observations, with the statistics of the entry that the model observes"
            )
        vector, module = None, freeze(policy, normalizer, None)
    elif context is not None:
        refuse_normalized_context(extractor.reader, normalizer)
        vector = context_vector(extractor.reader, context)
        module = freeze(specialize(model, context).policy, normalizer, plain_observation(policy, extractor)[1])
    elif format == "safetensors":
        raise ValueError("format 'safetensors' holds one plain network: give the context to freeze the policy at")
    else:
        refuse_normalized_context(extractor.reader, normalizer)
        vector, module = None, leave_open(policy, extractor, normalizer)
    description = describe(module, extractor, vector)
    data = WRITERS[format](module, description)
    _check(READERS[format](data), model, vector, module, normalizer)
    write_bytes(path, data)


def load(path: str | Path) -> FrozenPolicy:
    """Read a policy that was saved as ``"safetensors"``. Nothing in the file is ever run.

    ``description`` of the result is what the file says of the policy: ``"context"`` with ``name``, ``unit``,
    ``train``, ``bounds`` and ``value`` of each feature, ``"observation"``, ``"network"``, ``"action"``, ``"versions"``.

    :raises ValueError: where the file is no such policy, or damaged.
    """
    data = read_bytes(path)
    try:
        return _read_safetensors(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def require_format(format: str) -> None:
    """Refuse a format that is unknown, or whose libraries are not installed.

    :raises ValueError: with the formats, or what to install.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: the formats are {list(FORMATS)}.{nearest(format, FORMATS)}")
    require(f"format {format!r}", "export", *PACKAGES[format])


def describe(module: Exportable, extractor: ContextExtractor | None, context: Array | None) -> dict[str, Any]:
    """Say in JSON's types what a policy takes, is and returns."""
    linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    activation = [type(layer).__name__ for layer in module.layers if not layer.state_dict() and layer not in linear]
    features = None
    if extractor is not None:
        features = _features(extractor.reader)
        for feature, value in zip(features, [] if context is None else context.tolist(), strict=False):
            feature["value"] = value
    return {
        "schema": SCHEMA,
        "observation": {
            "size": module.observation_dim,
            "clip": None if module.normalize is None else module.normalize.limit,
        },
        "context": features,
        "network": {
            "widths": [int(width) for width in (linear[0].in_features, *[layer.out_features for layer in linear])],
            "activation": activation[0] if activation else None,
        },
        "action": {"space": _space_to_json(module.decode.space), "squash": module.decode.squash},
        "versions": {library: version(library) for library in _LIBRARIES},
    }


def _features(reader: ContextReader) -> list[dict[str, Any]]:
    if not isinstance(reader.box, ContextBox):
        return [{} for _ in range(reader.dim)]
    return [
        {"name": feature.name, "unit": feature.unit, "train": feature.train, "bounds": feature.bounds}
        for feature in reader.box.context_space.features
    ]


def _space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    name = type(space).__name__
    if isinstance(space, spaces.Box):
        low, high = space.low.flatten().tolist(), space.high.flatten().tolist()
        return {"type": name, "shape": list(space.shape), "low": low, "high": high}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": name, "nvec": space.nvec.tolist()}
    return {"type": name, "n": int(space.n)}  # pyright: ignore[reportAttributeAccessIssue]


def _outputs(entry: dict[str, Any]) -> int:
    """Return how many numbers parametrise an action of a space: its entries, or a logit for each choice."""
    kind = entry["type"]
    if kind == "Box":
        return math.prod(_sizes(entry["shape"]))
    if kind == "MultiDiscrete":
        return sum(_sizes(entry["nvec"]))
    if kind not in ("Discrete", "MultiBinary"):
        raise ValueError(f"unknown action space {kind!r}")
    return _sizes([entry["n"]])[0]


def _space_from_json(entry: dict[str, Any]) -> spaces.Space[Any]:
    """Make a space of actions, once its sizes are known to be those of the network."""
    if entry["type"] == "Box":
        with np.errstate(over="ignore"):  # more than a float32 holds is no bound either
            low, high = (np.array(entry[end], dtype=np.float32).reshape(entry["shape"]) for end in ("low", "high"))
        if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
            raise ValueError("the bounds of the actions are no bounds")
        return spaces.Box(low, high)
    if entry["type"] == "MultiDiscrete":
        return spaces.MultiDiscrete(entry["nvec"])
    return (spaces.Discrete if entry["type"] == "Discrete" else spaces.MultiBinary)(entry["n"])


def _sizes(numbers: Any) -> list[int]:
    if not isinstance(numbers, list) or any(type(n) is not int or n < 1 for n in numbers):
        raise ValueError(f"expected whole numbers ≥ 1, got {numbers}")
    return numbers


def _write_onnx(module: Exportable, description: dict[str, Any]) -> bytes:
    outputs = ["action", "next_state"][: 1 + ("state" in module.inputs)]
    with _quiet():
        exported: Any = torch.onnx.export(
            _program(module), input_names=[*module.inputs], output_names=outputs, dynamo=True, verbose=False
        )
    proto = exported.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # which torch class each node comes from
    proto.graph.ClearField("value_info")
    proto.metadata_props.add(key="hyperrl", value=json.dumps(description))
    return proto.SerializeToString()


def _write_pt2(module: Exportable, description: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(module), buffer, extra_files={"hyperrl": json.dumps(description)})
    return buffer.getvalue()


def _write_safetensors(module: Exportable, description: dict[str, Any]) -> bytes:
    return pack(module.state_dict(), json.dumps(description))


def _program(module: Exportable) -> torch.export.ExportedProgram:
    """Trace a policy for any number of rows."""
    batch = torch.export.Dim("batch")
    inputs = tuple(torch.zeros(3, width) for width in module.inputs.values())
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody's business
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from warning of its own insides, and of torchvision, which nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _read_safetensors(data: bytes) -> FrozenPolicy:
    tensors, text = unpack(data)
    try:
        return _build(json.loads(text), tensors)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"its description of the policy is faulty: {error!r}") from None


def _build(description: dict[str, Any], tensors: dict[str, Tensor]) -> FrozenPolicy:
    """Make a policy out of a description and the numbers, either of which may be anything."""
    if description["schema"] != SCHEMA:
        raise ValueError(f"its schema is {description['schema']!r}; this version of hyperrl reads {SCHEMA!r}")
    widths, name = _sizes(description["network"]["widths"]), description["network"]["activation"]
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: known are {list(ACTIVATIONS)}")
    outputs = _outputs(description["action"]["space"])
    clip = description["observation"]["clip"]
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    if clip is not None:
        expected = {f"normalize.{name}": (torch.float64, (widths[0],)) for name in ("mean", "std")}
    for i, (n, m) in enumerate(pairwise(widths)):
        expected[f"network.{2 * i}.weight"] = torch.float32, (m, n)
        expected[f"network.{2 * i}.bias"] = torch.float32, (m,)
    got = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if got != expected or widths[-1] != outputs:
        raise ValueError(f"expected the tensors {expected} and {outputs} outputs, got {got}")
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m, device="meta"), nn.Identity() if name is None else ACTIVATIONS[name]()]
    normalize = None if clip is None else Normalize(tensors["normalize.mean"], tensors["normalize.std"], float(clip))
    decode = Decode(_space_from_json(description["action"]["space"]), squash=description["action"]["squash"] is True)
    policy = FrozenPolicy(nn.Sequential(*layers[:-1]), decode, normalize, description)
    policy.load_state_dict(tensors, assign=True)
    return policy.eval().requires_grad_(False)


def _run_onnx(data: bytes) -> Callable[..., Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda *inputs: _all(session.run(None, dict(zip(names, inputs, strict=True))))


def _run_pt2(data: bytes) -> Callable[..., Array]:
    module = torch.export.load(io.BytesIO(data)).module()
    return lambda *inputs: _all(module(*map(torch.as_tensor, inputs)))


def _all(outputs: Any) -> Any:
    """Return one output as an array, several as a tuple of such."""
    if isinstance(outputs, list | tuple):
        return np.asarray(outputs[0]) if len(outputs) == 1 else tuple(map(np.asarray, outputs))
    return np.asarray(outputs)


def _run_safetensors(data: bytes) -> Callable[..., Array]:
    return _read_safetensors(data).predict


WRITERS: Final = {"onnx": _write_onnx, "pt2": _write_pt2, "safetensors": _write_safetensors}
READERS: Final = {"onnx": _run_onnx, "pt2": _run_pt2, "safetensors": _run_safetensors}


def _check(
    run: Callable[..., Array],
    model: BaseAlgorithm,
    context: Array | None,
    module: FrozenPolicy | OpenPolicy,
    normalizer: VecNormalize | None,
) -> None:
    """Compare what was written with the model's own ``predict``, on random observations in one batch and alone.

    :raises RuntimeError: where they differ.
    """
    policy, extractor = model.policy, context_extractor(model.policy)
    rng = np.random.default_rng(0)
    if extractor is not None:
        other: Any = plain_observation(policy, extractor)[0]
        observation = _sample(other, rng)
        if context is None:
            contexts = _sample(extractor.reader.box, rng)
            inputs = observation, contexts
        else:
            contexts = np.tile(context.astype(np.float32), (len(observation), 1))
            inputs = (observation,)
        whole = _assemble(extractor.reader, observation, contexts)
    else:
        whole = _sample(policy.observation_space, rng)  # pyright: ignore[reportArgumentType]
        inputs = (whole,)
    expected = model.predict(whole if normalizer is None else normalizer.normalize_obs(whole), deterministic=True)[0]
    space = module.decode.space
    scale = max(1.0, np.abs([space.low, space.high]).max()) if isinstance(space, spaces.Box) else 1.0
    for rows in (slice(None), slice(1)):
        got = run(*[array[rows] for array in inputs])
        if got.shape != expected[rows].shape or not np.abs(got - expected[rows]).max() <= TOLERANCE * scale:
            raise RuntimeError("what was to be written does not act as the model does; nothing was written")


def _sample(space: spaces.Box, rng: np.random.Generator, rows: int = 64) -> Array:
    """Draw from a flat space: evenly where it has bounds, of order one where it has none."""
    bounded = (space.high - space.low.astype(np.float64)) < 1e6
    low, high = np.where(bounded, space.low, -1e6), np.where(bounded, space.high, 1e6)
    values = np.where(bounded, rng.uniform(low, high, (rows, len(low))), rng.normal(size=(rows, len(low))))
    return values.clip(space.low, space.high).astype(np.float32)


def _assemble(reader: ContextReader, observation: Array, context: Array) -> Any:
    """Put observations and contexts together as the policy's environments do."""
    if reader.slice is not None:
        start = reader.slice.indices(observation.shape[1] + context.shape[1])[0]
        return np.concatenate([observation[:, :start], context, observation[:, start:]], axis=1)
    ((key, _),) = reader.other_space.spaces.items()  # pyright: ignore[reportAttributeAccessIssue]
    return {key: observation, reader.key: context}
