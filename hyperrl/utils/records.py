"""Records: frozen dataclasses stored as JSON files that name their schema.

A record's class names its schema in ``SCHEMA``: kind and version, such as ``"evaluation-1"``. Arrays are lists in the
file, NaN is ``null``, infinity is ``"Infinity"``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_args

from hyperrl.utils.errors import nearest
from hyperrl.utils.files import read_bytes, write_text


class Record(Protocol):
    """A frozen dataclass with a schema."""

    SCHEMA: ClassVar[str]


R = TypeVar("R", bound=Record)


def write(record: Record, path: str | Path) -> None:
    """Write a record to a JSON file, whole or not at all.

    Its fields may be numbers, texts, arrays, dataclasses, named tuples, and lists and mappings of these.
    """
    write_text(path, encode(record))


def encode(record: Record) -> str:
    """Return the JSON text that :func:`write` writes."""
    text = json.dumps({"schema": record.SCHEMA} | plain(record), indent=1, allow_nan=False, ensure_ascii=False)
    return _NUMBERS.sub(lambda row: re.sub(r"\s+", " ", row[0]).replace("[ ", "[").replace(" ]", "]"), text)


def read(cls: type[R], path: str | Path) -> R:
    """Read a record that :func:`write` wrote, checking its types.

    :param cls: the record's class. A ``ValueError`` of its ``__post_init__`` counts as a fault of the file.
    :raises ValueError: if the file cannot be read, has another schema, or does not fit the class. The message names the
        file and the fault.
    """
    return decode(cls, read_bytes(path), path)


def decode(cls: type[R], text: bytes | str, path: str | Path) -> R:
    """Read a record from its JSON text, see :func:`read`.

    :param path: its file, for messages.
    """
    import msgspec

    kind = cls.SCHEMA.rpartition("-")[0]
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected a record of hyperrl's, schema {cls.SCHEMA}, got no JSON: {error}") from None
    schema = data.pop("schema", None) if isinstance(data, dict) else None
    if not isinstance(schema, str):
        raise ValueError(f'{path}: expected a record of hyperrl\'s, "schema": "{cls.SCHEMA}", got a file without one')
    if schema != cls.SCHEMA:
        if schema.rpartition("-")[0] == kind:
            raise ValueError(f"{path} was written by schema {schema}; this hyperrl reads {cls.SCHEMA}")
        raise ValueError(f"{path}: expected a record of schema {cls.SCHEMA}, got one of schema {schema}")
    try:
        record = msgspec.convert(data, cls, strict=False, dec_hook=_array)  # not strict: "Infinity" is a number
        _refuse_unknown_keys(data, plain(record), "$")
    except (ValueError, TypeError, OverflowError) as error:  # the latter two of arrays
        raise ValueError(f"{path}: damaged, or edited: {error}") from None
    return record


def plain(value: Any) -> Any:
    """Convert a dataclass, or a value of its fields, to what JSON can represent.

    >>> import numpy as np
    >>> plain({"returns": np.array([1.0, np.nan, np.inf])})
    {'returns': [1.0, None, 'Infinity']}
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # a list of numbers only: written on one line


def _array(annotation: Any, value: Any) -> Any:
    """Convert lists to an array; an example of the annotation is ``NDArray[np.float64]``."""
    import numpy as np

    (kind,) = get_args(get_args(annotation)[1])
    return np.array(value, dtype=kind)


def _refuse_unknown_keys(data: Any, known: Any, where: str) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in known:
                raise ValueError(f"unknown key {key!r} - at `{where}`.{nearest(key, known)}")
            _refuse_unknown_keys(value, known[key], f"{where}.{key}")
    elif isinstance(data, list):
        for i, (value, other) in enumerate(zip(data, known, strict=True)):
            if not isinstance(value, int | float):
                _refuse_unknown_keys(value, other, f"{where}[{i}]")
