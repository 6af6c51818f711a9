"""From a nested state to JSON, tensors and arrays by name, and back; nothing of it is pickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ARRAYS", "Broken", "from_npz", "put_together", "take_apart", "to_npz"]

ARRAYS = "arrays.npz"


class Broken(Exception):
    """Why a checkpoint cannot be used."""


def take_apart(
    value: Any, place: str, tensors: dict[str, Tensor], arrays: dict[str, NDArray[Any]]
) -> Any:
    """Return `value` as JSON; its tensors and arrays go into the dicts, under their place."""
    import torch  # here: who only reads needs none

    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, torch.Tensor):
        # Copied: safetensors refuses tensors that share memory.
        own = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": _put(tensors, place, own)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {"$array": _put(arrays, place, value)}
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return value.item()

    def inner(key: Any, item: Any) -> Any:
        return take_apart(item, f"{place}/{key}" if place else str(key), tensors, arrays)

    if isinstance(value, list | tuple):
        items = [inner(i, item) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        pairs = [[key, inner(key, item)] for key, item in value.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs)
        return dict(pairs) if plain else {"$dict": pairs}
    raise TypeError(
        f"state at {place!r} is {type(value).__name__} {value!r:.40}; expected a dict with str or "
        "int keys, list, tuple, tensor, numeric array, str, number, bool or None"
    )


def put_together(value: Any, tensors: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Undo `take_apart`; tensors may have become something else on the way."""
    if isinstance(value, list):
        return [put_together(item, tensors, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("$tensor", name)]:
            return tensors[name]
        case [("$array", name)]:
            return arrays[name]
        case [("$tuple", items)]:
            return tuple(put_together(item, tensors, arrays) for item in items)
        case [("$dict", pairs)]:
            return {key: put_together(item, tensors, arrays) for key, item in pairs}
    return {key: put_together(item, tensors, arrays) for key, item in value.items()}


def _put(store: dict[str, Any], place: str, value: Any) -> str:
    while place in store:  # {1: ..., "1": ...} and the like
        place += "'"
    store[place] = value
    return place


def to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(name + ".npy")  # with no time stamp: same state, same bytes
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, (1, 0), allow_pickle=False)
    return out.getvalue()


def from_npz(data: bytes) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise Broken(f"{ARRAYS} is compressed")
        if sum(member.file_size for member in members) > len(data):
            raise Broken(f"{ARRAYS} declares more than it holds")
        return {m.filename.removesuffix(".npy"): _read_array(archive.read(m)) for m in members}


def _read_array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise Broken(f"{ARRAYS} has an array in another format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biufc":
        raise Broken(f"{ARRAYS} has an array of {dtype}")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise Broken(f"{ARRAYS} declares an array of shape {shape} that it does not hold")
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
