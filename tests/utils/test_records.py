from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from hyperrl.utils.records import read, write


class Pair(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    numbers: NDArray[np.float64]
    flags: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Whole:
    SCHEMA: ClassVar[str] = "thing-2"

    name: str
    parts: Mapping[str, Part]
    pair: Pair
    infinite: float = 1.0
    rows: tuple[tuple[int, ...], ...] = ()
    anything: Mapping[str, Any] = field(default_factory=dict)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    part = Part(np.array([[0.1, np.nan], [-np.inf, 1e300]]), np.array([True, False]))
    anything = {"n": np.int64(3), "list": [1, "a [1, 2]\n", None]}
    record = Whole("x [ 1 ]\n", {"a": part}, Pair(0.0, 1.0), np.inf, ((1, 2), ()), anything)
    write(record, tmp_path / "new" / "r.json")
    again = read(Whole, tmp_path / "new" / "r.json")
    assert (again.name, again.pair, again.infinite, again.rows) == (record.name, record.pair, np.inf, record.rows)
    assert again.anything == {"n": 3, "list": [1, "a [1, 2]\n", None]}
    assert_array_equal(again.parts["a"].numbers, part.numbers)
    assert again.parts["a"].numbers.dtype == np.float64
    assert again.parts["a"].flags is not None
    assert_array_equal(again.parts["a"].flags, [True, False])
    write(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "new" / "r.json").read_text()


def test_what_is_left_out_is_the_default_and_is_written(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": "thing-2", "name": "x", "parts": {}, "pair": [0, 1]}')
    record = read(Whole, tmp_path / "r.json")
    assert record == Whole("x", {}, Pair(0, 1))
    write(record, tmp_path / "r.json")
    assert '"infinite": 1.0' in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a record of hyperrl's, schema thing-2, got no JSON: Input data was truncated"),
        ('{"schema": "thing-2", ', "got no JSON: Input data was truncated"),
        ("[]", 'expected a record of hyperrl\'s, "schema": "thing-2", got a file without one'),
        ("{}", "got a file without one"),
        ('{"schema": 2}', "got a file without one"),
        ('{"schema": "thing-1"}', " was written by schema thing-1; this hyperrl reads thing-2"),
        ('{"schema": "thing-10"}', " was written by schema thing-10; this hyperrl reads thing-2"),
        ('{"schema": "other-2"}', "expected a record of schema thing-2, got one of schema other-2"),
        ('{"schema": "thing-2"}', "damaged, or edited: Object missing required field `name`"),
        ('{"schema": "thing-2", "name": 3}', "Expected `str`, got `int` - at `$.name`"),
        ('{"schema": "thing-2", "name": "x", "parts": {"a": {"numbers": [[1], 2]}}}', "inhomogeneous"),
        ('{"schema": "thing-2", "name": "x", "parts": {"a": {"numbers": ["b"]}}}', "could not convert string to float"),
        ('{"schema": "thing-2", "name": "x", "parts": {}, "pair": [0]}', "Expected `array` of length 2, got 1"),
        (
            '{"schema": "thing-2", "name": "x", "parts": {"a": {"numbers": [], "flag": []}}, "pair": [0, 1]}',
            "unknown key 'flag' - at `$.parts.a`. Did you mean 'flags'?",
        ),
    ],
)
def test_a_file_that_is_no_such_record_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (compared below)
        read(Whole, path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"r\.json cannot be read: No such file or directory"):
        read(Whole, tmp_path / "r.json")
