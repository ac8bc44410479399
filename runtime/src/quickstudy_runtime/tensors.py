"""Named arrays in the safetensors format, read and written with NumPy alone.

The format: eight bytes with the length of a JSON header, the header (for each name its type, shape and place in the
data), the data. https://huggingface.co/docs/safetensors
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from quickstudy_runtime.errors import BundleError

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1",
    "BOOL": "?",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
_MOST_HEADER = 1 << 20


def load(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and the metadata.

    Raises:
        BundleError: it is not whole, or not such a file.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MOST_HEADER, len(data) - 8):
        raise BundleError(f"{where} is not a whole .safetensors file.")
    try:
        header = json.loads(data[8 : 8 + length])
        body = memoryview(data)[8 + length :]
        metadata = header.pop("__metadata__", {})
        arrays = {str(name): _array(entry, body) for name, entry in header.items()}
        if not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("metadata that is not text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise BundleError(f"{where} is damaged: its header does not describe its data.") from error
    return arrays, metadata


def _array(entry: Mapping[str, Any], body: memoryview) -> np.ndarray:
    kind, shape, (begin, end) = np.dtype(_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or not begin <= end <= len(body):
        raise ValueError("a place outside the data")
    count = 1
    for n in shape:
        count *= n
    if count * kind.itemsize != end - begin:
        raise ValueError("a shape that does not fit its data")
    return np.frombuffer(body[begin:end], kind).reshape(shape)


def save(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a .safetensors file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, place = [], 0
    for name, array in arrays.items():
        part = np.ascontiguousarray(array).tobytes()
        kind = _NAMES[array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [place, place + len(part)]}
        parts.append(part)
        place += len(part)
    head = json.dumps(header, allow_nan=False).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(parts)
