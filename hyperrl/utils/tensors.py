"""Tensors and a text, or a record, in one safetensors file, with a checksum. Reading such a file executes no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hyperrl.utils.files import read_bytes, write_bytes
from hyperrl.utils.records import R, Record, decode, encode

if TYPE_CHECKING:
    from torch import Tensor


def pack(tensors: Mapping[str, Tensor], text: str) -> bytes:
    """Return the bytes of a safetensors file.

    :param tensors: on any device; tensors that share memory are written separately.
    :param text: stored in the metadata under ``"hyperrl"``, beside the checksum ``"sha256"``.

    >>> import torch
    >>> tensors, text = unpack(pack({"weight": torch.ones(2)}, '{"width": 2}'))
    >>> tensors["weight"].tolist(), text
    ([1.0, 1.0], '{"width": 2}')
    """
    from safetensors.torch import save

    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = _digest(text, save(copies, {"hyperrl": text}))
    return save(copies, {"hyperrl": text, "sha256": digest})


def unpack(data: bytes) -> tuple[dict[str, Tensor], str]:
    """Return the tensors and the text that :func:`pack` was given.

    :raises ValueError: for any other file, and if the checksum does not match.
    """
    from safetensors.torch import load

    try:
        tensors = load(data)
        metadata = json.loads(data[8 : _header_end(data)]).get("__metadata__", {})
        text, digest = metadata.get("hyperrl"), metadata.get("sha256")
    except Exception as error:  # whatever the library raises over bytes that nobody vouches for
        raise ValueError(f"no safetensors file, or a damaged one: {error}") from None
    if not isinstance(text, str):
        raise ValueError("no file of hyperrl's: the metadata of this safetensors file have no 'hyperrl'")
    try:
        expected = _digest(text, data)
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueError(f"damaged: its description is no text: {error}") from None
    if digest != expected:
        raise ValueError("damaged: its contents are not those of its checksum")
    return tensors, text


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], record: Record) -> None:
    """Write tensors and a record to a file, whole or not at all."""
    write_bytes(path, pack(tensors, encode(record)))


def read_tensors(cls: type[R], path: str | Path) -> tuple[dict[str, Tensor], R]:
    """Return the tensors and the record that :func:`write_tensors` wrote.

    :param cls: the record's class.
    :raises ValueError: where the file cannot be read, is damaged, or holds another record; the message names it.
    """
    data = read_bytes(path)
    try:
        tensors, text = unpack(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return tensors, decode(cls, text, path)


def _digest(text: str, data: bytes) -> str:
    """Return the checksum of a text and of the numbers in a safetensors file, which follow its header."""
    return hashlib.sha256(text.encode() + data[_header_end(data) :]).hexdigest()


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")
