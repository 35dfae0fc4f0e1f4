"""Damaged files: a ValueError that names the file, or the same numbers; a text without a checksum may be another."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback

import hyperrl
from hyperrl.adaptation import Study
from hyperrl.evaluation import Report
from hyperrl.evaluation.reference import Reference
from hyperrl.experiments.comparison import ComparisonRecord
from hyperrl.experiments.tuning import JOURNAL, tune
from hyperrl.export import formats
from hyperrl.training import checkpoint
from hyperrl.training.recipe import agent_spec
from hyperrl.training.record import RunRecord
from hyperrl.training.run import Run
from hyperrl.utils.records import read
from hyperrl.utils.tensors import pack, unpack

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = Path(__file__).parents[2]
QUICK = (FIXTURES / "run" / "agent.toml").read_text()
FAMILY = hyperrl.load_family("pendulum")


@dataclass(frozen=True)
class Kind:
    """A kind of file that is read.

    :param make: writes a whole one into a folder, among what is read with it, and returns its path.
    :param read: reads it and returns its numbers.
    :param has_checksum: whether damage never goes unseen.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    has_checksum: bool = False


def copy(source: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(source, folder / source.name))


def of_run(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(FIXTURES / "run", folder / "run")) / name


def model(path: Path, trust: bool = False) -> Any:
    return Run.open(path.parent).model("cpu", trust).policy.parameters_to_vector().tolist()


def interrupted(folder: Path) -> Path:
    """Write a checkpoint."""

    class Interrupt(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps >= 300:
                raise KeyboardInterrupt
            return True

    (folder / "small.toml").write_text(QUICK)
    with pytest.raises(KeyboardInterrupt):
        hyperrl.train(
            "pendulum", folder / "small.toml", 512, 0, folder / "x", callback=Interrupt(), checkpoint_seconds=0
        )
    return folder / "x.partial" / "checkpoint"


def policy(folder: Path) -> Path:
    formats.save(Run.open(FIXTURES / "run").model("cpu"), folder / "policy.safetensors", {"length": 0.7}, "safetensors")
    return folder / "policy.safetensors"


KINDS = {
    "family": Kind(copy(ROOT / "envs" / "pendulum.toml"), lambda path: hyperrl.load_family(path).context_space.names),
    "recipe": Kind(copy(ROOT / "agents" / "hyper-ppo.toml"), lambda path: agent_spec(path).name),
    "run.json": Kind(of_run("run.json"), lambda path: read(RunRecord, path).SCHEMA),
    "family of a run": Kind(of_run("family.toml"), lambda path: Run.open(path.parent).family.digest, True),
    "recipe of a run": Kind(of_run("agent.toml"), lambda path: Run.open(path.parent).agent.definition, True),
    "model.safetensors": Kind(of_run("model.safetensors"), model, True),
    "model.zip": Kind(of_run("model.zip"), lambda path: model(path, trust=True), True),
    "evaluation.json": Kind(of_run("evaluation.json"), lambda path: set(Report.load(path).splits) - {*"abc"} != set()),
    "adaptation.json": Kind(copy(FIXTURES / "adaptation.json"), lambda path: Study.load(path).SCHEMA),
    "comparison.json": Kind(copy(FIXTURES / "comparison.json"), lambda path: read(ComparisonRecord, path).SCHEMA),
    "reference": Kind(
        copy(ROOT / "envs" / "pendulum.reference.json"), lambda path: Reference.load(path, FAMILY).SCHEMA
    ),
    "checkpoint": Kind(interrupted, lambda path: checkpoint.read(path).model, True),
    "policy.safetensors": Kind(policy, lambda path: formats.load(path).predict(np.eye(3)).tolist(), True),
}
VALUES: list[Any] = [None, True, 0, -1, 2**31, 2**63, 10**30, 10**400, 1.5, 1e39, 1e308, "", "x", "\ud800", "NaN"]
VALUES += [[], [1], [[]], [1, [2]], [[[1.0]]], {}, {"a": 1}, [None], [2**70], [2**62, 2**62], [10**12], "Infinity"]


@cache
def whole(kind: str) -> tuple[Path, bytes, Any]:
    path = KINDS[kind].make(Path(mkdtemp(prefix="damage-")))
    return path, path.read_bytes(), KINDS[kind].read(path)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut, change, insert or remove bytes anywhere."""
    at = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["cut", "change", "insert", "remove", "zero"]))
    if how == "cut":
        return data[:at]
    if how == "change":
        changed = bytearray(data)
        for place in [at, *draw(st.lists(st.integers(0, len(data) - 1), max_size=2))]:
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    if how == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    length = draw(st.integers(1, 64))
    return data[:at] + (b"" if how == "remove" else b"\0" * length) + data[at + length :]


def check(kind: str, path: Path, data: bytes, expected: Any) -> None:
    path.write_bytes(data)
    try:
        got = KINDS[kind].read(path)
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017
        return
    if KINDS[kind].has_checksum:
        assert got == expected


@pytest.mark.filterwarnings("ignore")  # torch's and SB3's own, over what they find in a damaged zip
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_is_named_or_read_as_it_was(kind: str, data: st.DataObject) -> None:
    path, content, expected = whole(kind)
    try:
        check(kind, path, data.draw(damaged(content)), expected)
    finally:
        path.write_bytes(content)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [at] + [place for key, item in inner for place in places(item, (*at, key))]


def with_value(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = json.loads(json.dumps(document))
    if not place:
        return value
    target = changed
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return changed


RECORDS = ("run.json", "evaluation.json", "adaptation.json", "comparison.json", "reference")


@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_record_with_another_value_is_named_or_valid(kind: str, data: st.DataObject) -> None:
    path, content, expected = whole(kind)
    document = json.loads(content)
    place, value = data.draw(st.sampled_from(places(document))), data.draw(st.sampled_from(VALUES))
    try:
        check(kind, path, json.dumps(with_value(document, place, value)).encode(), expected)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "\ud800".encode("utf-8", "surrogatepass")]
)
@pytest.mark.parametrize("kind", RECORDS)
def test_hostile_json_is_named(kind: str, text: str | bytes) -> None:
    path, content, expected = whole(kind)
    try:
        check(kind, path, text if isinstance(text, bytes) else text.encode(), expected)
    finally:
        path.write_bytes(content)


@settings(max_examples=300)
@given(data=st.data())
def test_a_forged_policy_is_an_error_in_words(data: st.DataObject) -> None:
    """Another description, with the checksum that goes with it."""
    path, content, _ = whole("policy.safetensors")
    tensors, text = unpack(content)
    description = json.loads(text)
    entry = data.draw(st.sampled_from([{"type": "Discrete", "n": 1}, {"type": "MultiDiscrete", "nvec": [1]}, None]))
    if entry is not None:
        description["action"]["space"] = entry
    place, value = data.draw(st.sampled_from(places(description))), data.draw(st.sampled_from(VALUES))
    forged = json.dumps(with_value(description, place, value))
    try:
        path.write_bytes(pack(tensors, forged))
        formats.load(path).predict(np.zeros((2, 3)))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    finally:
        path.write_bytes(content)


@settings(max_examples=60)
@given(data=st.data())
def test_forged_weights_are_an_error_in_words(data: st.DataObject) -> None:
    path, content, _ = whole("model.safetensors")
    tensors, text = unpack(content)
    description = json.loads(text)
    place, value = data.draw(st.sampled_from(places(description))), data.draw(st.sampled_from(VALUES))
    if data.draw(st.booleans()):
        tensors[data.draw(st.sampled_from(sorted(tensors)))] = torch.zeros(data.draw(st.integers(0, 3)))
    try:
        path.write_bytes(pack(tensors, json.dumps(with_value(description, place, value))))
        model(path)
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017
    finally:
        path.write_bytes(content)


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_journal_is_named_or_goes_on(data: st.DataObject) -> None:
    path, content, _ = journal()
    try:
        path.write_bytes(data.draw(damaged(content)))
        assert tune("pendulum", path.parent.parent / "small.toml", 1, 64, out=path.parent, resume=True, device="cpu")
    except ValueError as error:
        assert str(path) in str(error) or str(path.parent) in str(error)  # noqa: PT017
    finally:
        path.write_bytes(content)


@cache
def journal() -> tuple[Path, bytes, None]:
    """A search with one trial that has ended."""
    folder = Path(mkdtemp(prefix="damage-"))
    (folder / "small.toml").write_text(QUICK)
    tune("pendulum", folder / "small.toml", 1, 64, out=folder / "search", device="cpu")
    path = folder / "search" / JOURNAL
    return path, path.read_bytes(), None
