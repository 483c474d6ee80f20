"""Finds the tensors of a model directory: the headers of its safetensors files, and the index of several files.

A header is checked before tensors are read: it is an error if entries reach beyond the file, overlap, leave gaps or
have another length than their shape and dtype need, and if an index names a file outside the directory. So a tensor
never takes more memory than the file has bytes.
"""

import itertools
import json
import math
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from spare_jax.models.json_files import ModelError, read_json, shown, unreadable

MAX_HEADER = 2**24  # bytes; a hundred times what a model of a thousand tensors needs
MAX_AXES = 8
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class Stored(NamedTuple):
    """A tensor in a file: where it lies, and its shape and dtype."""

    file: pathlib.Path
    offset: int  # bytes from the start of the file
    shape: tuple[int, ...]
    dtype: np.dtype

    def rows(self, start: int, count: int) -> np.ndarray:
        """Read `count` entries of its first axis, from `start` on. Raises ModelError if the file cannot be read."""
        array = np.empty((count, *self.shape[1:]), self.dtype)
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset + start * array[:1].nbytes)
                read = file.readinto(array.view(np.uint8).data)
        except OSError as error:
            raise unreadable(self.file, error) from error
        if read != array.nbytes:
            raise ModelError(f"{self.file} ended while it was read: copy it again")
        return array

    def whole(self) -> np.ndarray:
        """Read all of it. Raises ModelError if the file cannot be read."""
        return self.rows(0, self.shape[0])


def find_tensors(directory: pathlib.Path) -> dict[str, Stored]:
    """The tensors of a model directory by name, in one or several files.

    Raises:
      ModelError: there are no safetensors files, one is missing or damaged, or two hold the same tensor.
    """
    if (directory / _SINGLE).is_file():
        return read_header(directory / _SINGLE)
    index = directory / _INDEX
    if not index.is_file():
        raise ModelError(f"{directory} has neither {_SINGLE} nor {_INDEX}: convert the weights to safetensors there")
    tensors: dict[str, Stored] = {}
    for name in _files_of(index):
        file = directory / name
        if not file.is_file():
            raise ModelError(f"{file} is missing and {_INDEX} names it: copy all files of the model")
        of_file = read_header(file)
        if twice := sorted(tensors.keys() & of_file.keys()):
            raise ModelError(f"{file}: tensor {twice[0]} is in another file too: copy the files of one model")
        tensors |= of_file
    return tensors


def _files_of(index: pathlib.Path) -> list[str]:
    """The names of the files that an index lists, sorted."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: weight_map={shown(weight_map)} names no files: copy the file again")
    for name in weight_map.values():
        plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
        if not plain or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index}: weight_map names {shown(name)}: only safetensors files beside the index are read"
            )
    return sorted(set(weight_map.values()))


def read_header(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name: 8 bytes with the length of the header, a JSON header, then the data.

    Raises:
      ModelError: the file cannot be read or is damaged, or a tensor has a dtype that is none of DTYPES.
    """
    try:
        with path.open("rb") as file:
            size, length = path.stat().st_size, int.from_bytes(file.read(8), "little")
            if 8 + length > size:
                raise ValueError("the header is cut off")
            if length > MAX_HEADER:
                raise ValueError(f"the header has {length:,} bytes, and at most {MAX_HEADER:,} are read")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
        header.pop("__metadata__", None)
        places = {name: _entry(name, entry) for name, entry in header.items()}
        _check_cover(places, size - 8 - length)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no complete safetensors file ({error}): copy it again") from error
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ModelError(
                f"{path}: tensor {name} has dtype {entry['dtype']!r}: convert the weights to {' or '.join(DTYPES)}"
            )
    stored = {}
    for name, (begin, end) in places.items():
        shape, dtype = tuple(header[name]["shape"]), jnp.dtype(DTYPES[header[name]["dtype"]])
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ModelError(
                f"{path} is no complete safetensors file (tensor {name} has {end - begin} bytes, not those of "
                f"{list(shape)} in {dtype}): copy it again"
            )
        stored[name] = Stored(path, 8 + length + begin, shape, dtype)
    return stored


def _entry(name: str, entry: Any) -> tuple[int, int]:
    """The half-open range of a tensor's bytes in the data. Raises ValueError if a field is missing or wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise ValueError(f"tensor {name} has no dtype")
    shape, offsets = (_numbers(name, entry, key) for key in ("shape", "data_offsets"))
    if len(shape) > MAX_AXES or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name} has shape {shown(shape)} and data_offsets {shown(offsets)}")
    return offsets[0], offsets[1]


def _numbers(name: str, entry: dict[str, Any], key: str) -> list[int]:
    value = entry.get(key)
    if not isinstance(value, list) or not all(type(number) is int and 0 <= number < 2**63 for number in value):
        raise ValueError(f"tensor {name} has {key} {shown(value)}")
    return value


def _check_cover(places: dict[str, tuple[int, int]], size: int) -> None:
    """Raises ValueError unless the tensors, without gap or overlap, cover the data."""
    ordered = sorted((begin, end, name) for name, (begin, end) in places.items())
    for (_, end, _), (begin, _, name) in itertools.pairwise([(0, 0, ""), *ordered]):
        if begin != end:
            raise ValueError(f"the data of tensor {name} begins at {begin}, and those before it end at {end}")
    named = ordered[-1][1] if ordered else 0
    if named != size:
        raise ValueError(f"it has {size} bytes of data and its header names {named}")
